//! Ten steps of every optimiser on three problems.

use crate::pack::{Pack, dtypes, tensor};
use ferrata::optim::{
    Adagrad, Adam, Group, Lion, Muon, MuonScale, Optimizer, Rates, RmsProp, Rule, Select, Sgd,
    State,
};
use ferrata::{DType, Tensor, compile, value_and_grad};
use serde_json::Value;
use std::collections::BTreeMap;

type Parameters = BTreeMap<String, Tensor>;

fn adam(h: &Value) -> Adam {
    let number = |key: &str| h[key].as_f64().unwrap();
    Adam {
        betas: (number("beta1"), number("beta2")),
        eps: number("eps"),
        decoupled: h["decoupled"].as_bool().unwrap(),
        amsgrad: h["amsgrad"].as_bool().unwrap(),
    }
}

fn optimizer(h: &Value) -> Optimizer {
    let number = |key: &str| h[key].as_f64().unwrap();
    let flag = |key: &str| h[key].as_bool().unwrap();
    let rule: Rule = match h["rule"].as_str().unwrap() {
        "sgd" => Sgd {
            momentum: number("momentum"),
            dampening: number("dampening"),
            nesterov: flag("nesterov"),
        }
        .into(),
        "adam" => adam(h).into(),
        "lion" => Lion { betas: (number("beta1"), number("beta2")) }.into(),
        "rmsprop" => RmsProp {
            alpha: number("alpha"),
            eps: number("eps"),
            momentum: number("momentum"),
            centered: flag("centered"),
        }
        .into(),
        "adagrad" => Adagrad {
            lr_decay: number("lr_decay"),
            eps: number("eps"),
            initial: number("initial_accumulator"),
        }
        .into(),
        "muon" => {
            let vectors = &h["vectors"];
            Muon {
                momentum: number("momentum"),
                nesterov: flag("nesterov"),
                rounds: number("ns_steps") as usize,
                compute: None,
                eps: number("eps"),
                scale: match h["scale"].as_str().unwrap() {
                    "spectral" => MuonScale::Spectral,
                    _ => MuonScale::Rms,
                },
                vectors: adam(vectors),
                vector_lr_scale: vectors["lr"].as_f64().unwrap() / number("lr"),
            }
            .into()
        }
        other => panic!("unknown rule {other}"),
    };
    let optimizer = Optimizer::new(rule).weight_decay(number("weight_decay"));
    match h["vectors"]["weight_decay"].as_f64() {
        Some(w) => optimizer.group(Group::new(Select::FewerDims(2)).weight_decay(w)),
        None => optimizer,
    }
}

/// The loss of a problem with data; for given gradients, the gradients of each step.
fn loss(problem: &str, p: &Parameters, data: &Parameters) -> Tensor {
    match problem {
        "quadratic" => {
            let off = data["A"].matmul(&p["w"]) - &data["C"];
            let bowl = (&data["D"] * p["b"].square()).sum(..) * 0.5;
            off.square().sum(..) * (0.5 / 12.0) + bowl - (&data["e"] * &p["b"]).sum(..)
        }
        "mlp" => {
            let h = data["x"].linear(&p["w1"], Some(&p["b1"])).tanh();
            (h.linear(&p["w2"], Some(&p["b2"])) - &data["y"]).square().mean(..)
        }
        other => panic!("unknown problem {other}"),
    }
}

/// The worst difference to the golden parameters and losses over all steps.
fn run(pack: &mut Pack, problem: &str, name: &str, h: &Value, dtype: DType) -> f64 {
    let (file, data_file) =
        (format!("{problem}.safetensors"), format!("{problem}.data.safetensors"));
    let names: &[&str] = match problem {
        "given_gradients" => &["w", "u", "b"],
        "quadratic" => &["w", "b"],
        _ => &["w1", "b1", "w2", "b2"],
    };
    let mut load = |key: String| tensor(&pack.get(&data_file, &key), dtype);
    let given = problem == "given_gradients";
    let data_names: &[&str] = match problem {
        "given_gradients" => &[],
        "quadratic" => &["A", "C", "D", "e"],
        _ => &["x", "y"],
    };
    let data: Parameters =
        data_names.iter().map(|n| (n.to_string(), load(n.to_string()))).collect();
    let mut p: Parameters =
        names.iter().map(|n| (n.to_string(), load(format!("init/{n}")))).collect();
    let optimizer = optimizer(h);
    let mut state = optimizer.init(&p);
    let step = compile(|(p, state, rates, data): (Parameters, State, Rates, Parameters)| {
        let (loss, g) = match given {
            true => (Tensor::zeros((), dtype), data),
            false => value_and_grad(|p: &Parameters| loss(problem, p, &data))(&p),
        };
        let (p, state) = optimizer.update(&p, &g, &state, &rates);
        (p, state, loss)
    });
    let steps = 10;
    let losses = pack.get(&file, &format!("{name}/loss")).view().to_f64().unwrap();
    let mut worst = 0f64;
    for i in 0..steps {
        let data = match given {
            true => {
                let one = |n: &&str| {
                    let raw = pack.get(&data_file, &format!("grad_step{i}/{n}"));
                    (n.to_string(), tensor(&raw, dtype))
                };
                names.iter().map(one).collect()
            }
            false => data.clone(),
        };
        let rates = optimizer.rates(i, h["lr"].as_f64().unwrap());
        let found;
        (p, state, found) = step.call((p, state, rates, data)).unwrap();
        let found = found.cast(DType::F64).item::<f64>().unwrap();
        let limit = if dtype == DType::F64 { 1e-12 } else { 1e-5 };
        let want = losses[i as usize];
        assert!(
            (found - want).abs() <= limit * (1.0 + want.abs()),
            "{name} {i}: loss {found}, not {want}"
        );
        for n in names {
            let want = pack.get(&file, &format!("{name}/params/{n}")).view().to_f64().unwrap();
            let got = p[*n].cast(DType::F64).to_vec::<f64>().unwrap();
            let want = &want[(i as usize + 1) * got.len()..][..got.len()];
            for (g, w) in got.iter().zip(want) {
                worst = worst.max((g - w).abs());
            }
        }
    }
    assert_eq!(step.traces(), 1, "{name}");
    worst
}

fn check(problem: &str) {
    let mut pack = Pack::open("optim");
    let meta = pack.json("meta.json");
    let mut failures = Vec::new();
    for dtype in dtypes() {
        for (name, run_) in meta["problems"][problem]["runs"].as_object().unwrap() {
            let limit = match dtype {
                DType::F64 => 1e-12,
                _ => run_["suggested_max_abs"].as_f64().unwrap(),
            };
            let worst = run(&mut pack, problem, name, &run_["hyper"], dtype);
            // The comparison is false for NaN too.
            let close = worst <= limit;
            if !close {
                failures
                    .push(format!("{name} in {dtype}: off by {worst:.1e}, allowed {limit:.1e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{problem}\n{}", failures.join("\n"));
}

#[test]
fn given_gradients() {
    check("given_gradients");
}

#[test]
fn quadratic() {
    check("quadratic");
}

#[test]
fn mlp() {
    check("mlp");
}
