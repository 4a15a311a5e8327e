//! Mixtures of experts: against transformers, against plain loops, and Mixtral in files.

use crate::pack::{Deviation, Pack, values};
use ferrata::models::{GenerateOptions, Model, ModelConfig};
use ferrata::nn::{Context, Experts, Routing};
use ferrata::{DType, Key, Module, Tensor, grad, tree};
use ferrata_formats::safetensors::TensorFile;

#[test]
fn mixtral_is_that_of_transformers() {
    let pack = Pack::open("mixtral-tiny");
    let model = pack.model();
    let (ids, targets) = (pack.recorded("input_ids"), pack.recorded("targets"));
    let logits = values(&model.forward(&ids, &mut Context::eval()));
    Deviation::of(&logits, &pack.get("logits")).within("logits", [5e-5, 1e-5, 5e-6]);
    for (name, mut cx) in
        [("loss", Context::train(Key::new(0))), ("cross_entropy", Context::eval())]
    {
        let loss = values(&model.loss(&ids, &targets, &mut cx));
        Deviation::of(&loss, &pack.get(name)).within(name, [1e-5, 5e-6, 5e-6]);
    }
    let slopes = grad(|m: &Model| m.loss(&ids, &targets, &mut Context::train(Key::new(0))))(&model);
    tree::eval(&slopes).unwrap();
    let mut worst = Deviation::default();
    let slopes = slopes.named_parameters();
    for (name, slope) in &slopes {
        let wanted = pack.get(&format!("grad/{name}"));
        worst = worst.worst(Deviation::of(&values(slope), &wanted));
    }
    worst.within("gradients", [5e-5, 5e-5, 2e-5]);
    assert_eq!(slopes.len(), pack.names("grad/").len());
    let options = GenerateOptions { max_new: 12, temperature: 0.0, ..GenerateOptions::default() };
    let prompt = pack.ids("generation/0/prompt");
    let new: Vec<u32> = model.generate(&prompt, &options).unwrap().map(|id| id.unwrap()).collect();
    assert_eq!(new, pack.ids("generation/0/new"));
}

const WIDTH: usize = 6;
const HIDDEN: usize = 5;
const EXPERTS: usize = 4;
const PER_TOKEN: usize = 2;
const TOKENS: usize = 14;

fn experts(capacity: Option<f64>) -> Experts {
    let experts = Experts::new(WIDTH, HIDDEN, EXPERTS, PER_TOKEN, &Key::new(5));
    let experts = tree::map(&experts, |weight| weight.cast(DType::F64) * 2.0);
    Experts { capacity, ..experts }
}

/// What a mixture makes of tokens, in plain loops; and how many choices found no room.
fn plainly(experts: &Experts, x: &[f64], room: usize) -> (Vec<f64>, usize) {
    let [router, gate, down, up] =
        [&experts.router.weight, &experts.gate, &experts.down, &experts.up].map(values);
    let product = |rows: &[f64], x: &[f64]| -> Vec<f64> {
        rows.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let of = |weights: &[f64], e: usize| weights[e * WIDTH * HIDDEN..][..WIDTH * HIDDEN].to_vec();
    let choices: Vec<Vec<(usize, f64)>> = x
        .chunks(WIDTH)
        .map(|x| {
            let chances: Vec<f64> = product(&router, x).iter().map(|s| s.exp()).collect();
            let mut order: Vec<usize> = (0..EXPERTS).collect();
            order.sort_by(|&a, &b| chances[b].total_cmp(&chances[a]));
            order.truncate(PER_TOKEN);
            let sum: f64 = order.iter().map(|&e| chances[e]).sum();
            order.into_iter().map(|e| (e, chances[e] / sum)).collect()
        })
        .collect();
    let (mut y, mut taken, mut dropped) = (vec![0.0; x.len()], [0; EXPERTS], 0);
    for choice in 0..PER_TOKEN {
        for (token, (x, choices)) in x.chunks(WIDTH).zip(&choices).enumerate() {
            let (e, weight) = choices[choice];
            taken[e] += 1;
            if taken[e] > room {
                dropped += 1;
                continue;
            }
            let hidden: Vec<f64> = product(&of(&gate, e), x)
                .iter()
                .zip(product(&of(&up, e), x))
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            for (y, out) in y[token * WIDTH..].iter_mut().zip(product(&of(&down, e), &hidden)) {
                *y += weight * out;
            }
        }
    }
    (y, dropped)
}

#[test]
fn tokens_reach_their_experts_in_order_of_priority() {
    let x = Tensor::randn([2, TOKENS / 2, WIDTH], DType::F64, &Key::new(2));
    for (capacity, room, drops) in
        [(None, TOKENS, false), (Some(1.0), 7, true), (Some(0.4), 3, true)]
    {
        let experts = experts(capacity);
        let (y, routing) = experts.forward(&x, &mut Context::train(Key::new(0)));
        let (wanted, dropped) = plainly(&experts, &values(&x), room);
        Deviation::of(&values(&y), &wanted).within(&format!("{capacity:?}"), [1e-12; 3]);
        assert_eq!(dropped > 0, drops, "{capacity:?}");
        let load: f64 = values(&routing.load).iter().sum();
        assert!((load - PER_TOKEN as f64).abs() < 1e-12);
        // Nothing is dropped outside of training.
        let (y, _) = experts.forward(&x, &mut Context::eval());
        let (wanted, _) = plainly(&experts, &values(&x), TOKENS);
        Deviation::of(&values(&y), &wanted).within("in use", [1e-12; 3]);
    }
}

#[test]
fn slopes_are_those_of_finite_differences() {
    let x = Tensor::randn([TOKENS, WIDTH], DType::F64, &Key::new(2));
    let loss = |(experts, x): &(Experts, Tensor)| {
        let (y, routing) = experts.forward(x, &mut Context::train(Key::new(0)));
        y.square().sum(..) + Routing::imbalance(&[routing])
    };
    for capacity in [None, Some(0.7)] {
        let point = (experts(capacity), x.clone());
        let slope = grad(loss)(&point);
        let mut number = 50;
        let direction = tree::map(&point, |t| {
            number += 1;
            Tensor::randn(t.shape(), DType::F64, &Key::new(number))
        });
        let along = tree::zip(&slope, &direction, |a, b| (a * b).sum(..));
        let along: f64 = tree::leaves(&along).iter().flat_map(values).sum();
        let h = 1e-6;
        let at = |h: f64| values(&loss(&tree::zip(&point, &direction, |p, d| p + d * h)))[0];
        let difference = (at(h) - at(-h)) / (2.0 * h);
        assert!((along - difference).abs() < 1e-6 * difference.abs(), "{along} {difference}");
    }
}

#[test]
fn even_loads_are_the_best() {
    let routing = |load: [f64; 4]| {
        let load = Tensor::from(load);
        Routing { chance: &load / 2.0, load }
    };
    let imbalance = |layers: &[Routing]| values(&Routing::imbalance(layers))[0];
    let (even, one) = (routing([0.5; 4]), routing([1.0, 1.0, 0.0, 0.0]));
    assert!((imbalance(std::slice::from_ref(&even)) - 2.0).abs() < 1e-12);
    assert!((imbalance(std::slice::from_ref(&one)) - 4.0).abs() < 1e-12);
    assert!((imbalance(&[even, one]) - 2.5).abs() < 1e-12);
}

#[test]
fn each_expert_is_apart_in_files() {
    let text = r#"{"model_type": "mixtral", "vocab_size": 13, "hidden_size": 12,
        "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 3,
        "num_key_value_heads": 3, "num_local_experts": 3, "capacity_factor": 1.5}"#;
    let config = ModelConfig::from_json(text.as_bytes(), "config.json".as_ref()).unwrap();
    let model = Model::new(&config, &Key::new(1)).unwrap();
    let name = "model.layers.0.block_sparse_moe.experts.*.w2.weight";
    let (_, weight) = model.named_parameters().into_iter().find(|(n, _)| n == name).unwrap();
    assert_eq!(weight.shape(), [3, 12, 20]);
    let folder = std::env::temp_dir().join(format!("ferrata-experts-{}", std::process::id()));
    model.save(&folder, None).unwrap();
    let file = TensorFile::open(folder.join("model.safetensors")).unwrap();
    let second = file.get(&name.replace('*', "1")).unwrap();
    assert_eq!(second.to_f64().unwrap(), values(&weight.at(1)));
    let loaded = Model::load(&folder).unwrap();
    assert_eq!(loaded.config(), config);
    for ((name, a), (_, b)) in model.named_parameters().iter().zip(loaded.named_parameters()) {
        assert_eq!(values(a), values(&b), "{name}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
