//! Training on several ranks, which are threads here, is training on one.

use ferrata::device::{CpuOptions, with_default_device};
use ferrata::inspect::Inspection;
use ferrata::mesh::{
    ContextParallel, Layout, Mesh, MeshDevice, MeshOptions, Schedule, Sharding, Zero,
};
use ferrata::models::{Model, ModelConfig, tensor_rules};
use ferrata::nn::Context;
use ferrata::optim::{self, Adam, Optimizer, clip_by_norm};
use ferrata::{DType, Device, Key, Tensor, compile, scan, tree, value_and_grad};

const STEPS: u64 = 20;
const BATCH: usize = 6;
const TIME: usize = 8;
const VOCABULARY: usize = 29;

const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 29, "n_positions": 8, "n_embd": 24,
    "n_layer": 2, "n_head": 6, "attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1}"#;
const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 29, "hidden_size": 24,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 8, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": false}"#;

const MIXTRAL: &str = r#"{"model_type": "mixtral", "vocab_size": 29, "hidden_size": 24,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 8, "rope_theta": 1e4,
    "num_local_experts": 4, "router_aux_loss_coef": 0.02, "capacity_factor": CAPACITY}"#;

fn model(config: &str) -> Model {
    let config = ModelConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
    Model::new(&config, &Key::new(1)).unwrap()
}

/// The losses of a run on the default device, with batches in so many microbatches.
fn losses(config: &str, dtype: DType, layout: Option<&Layout>, parts: usize) -> Vec<f64> {
    let model = model(config).cast(dtype);
    let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() }).weight_decay(0.1);
    let mut state = optimizer.init(&model);
    let mut model = model;
    if let Some(layout) = layout {
        (model, state) = (layout.model(&model), layout.optimizer(&state));
    }
    let step = compile(|((model, state), batches, rates)| {
        let of_batch = |(ids, targets, key): &(Tensor, Tensor, Key)| {
            value_and_grad(|model: &Model| {
                model.loss(ids, targets, &mut Context::train(Key::clone(key)))
            })(&model)
        };
        let (loss, gradient) = if parts == 1 {
            of_batch(&tree::map(&batches, |x| x.at(0)))
        } else {
            let zeros = (Tensor::zeros((), dtype), tree::map(&model, Tensor::zeros_like));
            let ((loss, gradient), _) = scan(zeros, &batches, |(total, sum), batch| {
                let (loss, gradient) = of_batch(batch);
                ((total + loss, optim::accumulate(Some(sum), &gradient)), ())
            });
            (loss / parts as f64, optim::average(&gradient, parts))
        };
        let (gradient, norm) = clip_by_norm(&gradient, 1.0);
        let updated: (Model, optim::State) = optimizer.update(&model, &gradient, &state, &rates);
        (updated, loss, norm)
    })
    .with_results_like(|(state, ..)| tree::leaves(state));
    let mut losses = Vec::new();
    for i in 0..STEPS {
        let tokens = |offset: usize| -> Tensor {
            let token = |at: usize| ((at * at + 3 * at + i as usize) % VOCABULARY) as i64;
            let ids: Vec<i64> = (0..BATCH * TIME).map(|at| token(at + offset)).collect();
            let ids = Tensor::from_slice(&ids, &[parts, BATCH / parts, TIME]);
            layout.map_or(ids.clone(), |layout| ids.place(&layout.batches(ids.ty())))
        };
        let keys = Key::new(7).fold(i as u32).split(parts as u32);
        let keys: Vec<Tensor> = keys.iter().map(Key::tensor).collect();
        let keys = Key::from_tensor(&Tensor::stack(&keys.iter().collect::<Vec<_>>(), 0));
        let batches = (tokens(0), tokens(1), keys);
        let argument = ((model, state), batches, optimizer.rates(i, 0.01));
        let (loss, norm);
        ((model, state), loss, norm) = step.call(argument).unwrap();
        losses.push(loss.cast(DType::F64).item::<f64>().unwrap());
        losses.push(norm.cast(DType::F64).item::<f64>().unwrap());
    }
    losses
}

/// A mesh, and how its ranks work together.
#[derive(Clone, Copy, Debug)]
struct Case {
    axes: &'static [(&'static str, usize)],
    zero: Zero,
    /// Whether values between layers are cut along `tensor`.
    sequence: bool,
    interleave: usize,
    schedule: Schedule,
    context: ContextParallel,
}

impl Case {
    /// With this way of attention along `context`.
    const fn by(self, context: ContextParallel) -> Case {
        Case { context, ..self }
    }
}

/// The losses of every rank.
fn losses_on(mesh: &Mesh, case: Case, config: &str, dtype: DType, parts: usize) -> Vec<Vec<f64>> {
    let ranks = ferrata_cluster::local(mesh.size());
    let Case { zero, sequence, interleave, schedule, context, .. } = case;
    std::thread::scope(|scope| {
        let ranks = ranks.into_iter().map(|rank| {
            scope.spawn(move || {
                let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
                let cut_sums = zero >= Zero::Gradients;
                let way = MeshOptions { sequence, schedule, cut_sums, context };
                let device = MeshDevice::new(mesh.clone(), rank.into(), way, options);
                let device = Device::from(device.unwrap());
                let layout = Layout::new(mesh.clone(), zero, tensor_rules()).with_options(&way);
                let layout = layout.with_stages(&model(config), interleave).unwrap();
                with_default_device(&device, || losses(config, dtype, Some(&layout), parts))
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn check(config: &str, dtype: DType, within: f64, parts: usize, cases: &[Case]) {
    let expected = losses(config, dtype, None, parts);
    for case in cases {
        let mesh = Mesh::new(case.axes.iter().copied()).unwrap();
        let all = losses_on(&mesh, *case, config, dtype, parts);
        for (rank, found) in all.iter().enumerate() {
            for (i, (a, b)) in expected.iter().zip(found).enumerate() {
                // Norms of gradients feel roundings more than losses.
                let (what, within) =
                    if i % 2 == 0 { ("loss", within) } else { ("norm", 30.0 * within) };
                let error = (a - b).abs() / a.abs();
                assert!(
                    error <= within,
                    "{case:?} rank {rank}, step {}: {what} {a} on one, {b} here ({error:e})",
                    i / 2
                );
            }
            assert_eq!(found, &all[0], "{case:?}: ranks differ");
        }
    }
}

/// Without stages.
const fn cut(axes: &'static [(&'static str, usize)], zero: Zero, sequence: bool) -> Case {
    let (schedule, context) = (Schedule::OneForwardOneBackward, ContextParallel::Cheapest);
    Case { axes, zero, sequence, interleave: 1, schedule, context }
}

const CASES: [Case; 28] = [
    cut(&[("data", 2)], Zero::Off, false),
    cut(&[("data", 3)], Zero::Off, false),
    cut(&[("data", 2)], Zero::Optimizer, false),
    cut(&[("data", 4)], Zero::Optimizer, false),
    cut(&[("data", 2)], Zero::Gradients, false),
    cut(&[("data", 5)], Zero::Weights, false),
    cut(&[("data", 2)], Zero::Weights, false),
    cut(&[("tensor", 2)], Zero::Off, false),
    cut(&[("tensor", 3)], Zero::Off, false),
    cut(&[("tensor", 4)], Zero::Off, false),
    cut(&[("context", 2)], Zero::Off, false),
    cut(&[("context", 3)], Zero::Off, false),
    cut(&[("data", 2), ("tensor", 2)], Zero::Off, false),
    cut(&[("data", 2), ("tensor", 2)], Zero::Optimizer, false),
    cut(&[("data", 2), ("tensor", 2)], Zero::Weights, false),
    cut(&[("data", 2), ("context", 2)], Zero::Optimizer, false),
    cut(&[("data", 2), ("context", 2), ("tensor", 2)], Zero::Weights, false),
    cut(&[("data", 4), ("context", 2), ("tensor", 2)], Zero::Gradients, false),
    cut(&[("tensor", 2)], Zero::Off, true),
    cut(&[("data", 2), ("tensor", 3)], Zero::Optimizer, true),
    cut(&[("data", 2), ("context", 2), ("tensor", 2)], Zero::Weights, true),
    cut(&[("context", 2)], Zero::Off, false).by(ContextParallel::Exchange),
    cut(&[("context", 2)], Zero::Off, false).by(ContextParallel::Gather),
    cut(&[("context", 2)], Zero::Off, false).by(ContextParallel::Ring),
    cut(&[("context", 3)], Zero::Off, false).by(ContextParallel::Ring),
    cut(&[("context", 4)], Zero::Optimizer, false).by(ContextParallel::Ring),
    cut(&[("data", 2), ("context", 2)], Zero::Weights, false).by(ContextParallel::Ring),
    cut(&[("tensor", 2), ("context", 2)], Zero::Off, true).by(ContextParallel::Ring),
];

/// With stages.
const fn staged(
    axes: &'static [(&'static str, usize)],
    zero: Zero,
    interleave: usize,
    schedule: Schedule,
) -> Case {
    Case { axes, zero, sequence: true, interleave, schedule, context: ContextParallel::Cheapest }
}

const PIPELINES: [Case; 15] = {
    use Schedule::{GPipe, OneForwardOneBackward as OneByOne, ZeroBubble};
    [
        staged(&[("pipeline", 2)], Zero::Off, 1, OneByOne),
        staged(&[("pipeline", 2)], Zero::Off, 1, GPipe),
        staged(&[("pipeline", 2)], Zero::Off, 1, ZeroBubble),
        staged(&[("pipeline", 3)], Zero::Off, 1, OneByOne),
        staged(&[("pipeline", 4)], Zero::Off, 1, ZeroBubble),
        staged(&[("pipeline", 2)], Zero::Off, 2, OneByOne),
        staged(&[("pipeline", 2)], Zero::Off, 2, ZeroBubble),
        staged(&[("pipeline", 2), ("data", 2)], Zero::Optimizer, 1, OneByOne),
        staged(&[("data", 2), ("pipeline", 2)], Zero::Gradients, 2, OneByOne),
        staged(&[("pipeline", 2), ("data", 2)], Zero::Weights, 1, ZeroBubble),
        staged(&[("pipeline", 2), ("tensor", 2)], Zero::Off, 1, OneByOne),
        staged(&[("pipeline", 2), ("context", 2)], Zero::Off, 1, GPipe),
        staged(&[("pipeline", 2), ("context", 2)], Zero::Off, 1, ZeroBubble)
            .by(ContextParallel::Ring),
        staged(&[("pipeline", 2), ("data", 2), ("tensor", 2)], Zero::Optimizer, 2, OneByOne),
        staged(
            &[("pipeline", 2), ("data", 2), ("context", 2), ("tensor", 2)],
            Zero::Weights,
            1,
            OneByOne,
        ),
    ]
};

/// The configuration with four layers.
fn deeper(config: &str) -> String {
    config
        .replace("n_layer\": 2", "n_layer\": 4")
        .replace("hidden_layers\": 2", "hidden_layers\": 4")
}

#[test]
fn gpt2_learns_the_same_on_any_mesh() {
    check(GPT2, DType::F64, 1e-9, 1, &CASES);
}

#[test]
fn llama_learns_the_same_on_any_mesh() {
    check(LLAMA, DType::F64, 1e-9, 1, &CASES);
}

#[test]
fn gpt2_learns_the_same_on_stages() {
    check(&deeper(GPT2), DType::F64, 1e-9, 3, &PIPELINES);
}

#[test]
fn llama_learns_the_same_on_stages() {
    check(&deeper(LLAMA), DType::F64, 1e-9, 3, &PIPELINES);
}

const EXPERT_CASES: [Case; 12] = [
    cut(&[("expert", 2)], Zero::Off, false),
    cut(&[("expert", 3)], Zero::Off, false),
    cut(&[("expert", 4)], Zero::Off, false),
    cut(&[("data", 3)], Zero::Weights, false),
    cut(&[("tensor", 2)], Zero::Off, true),
    cut(&[("expert", 2), ("data", 2)], Zero::Off, false),
    cut(&[("data", 2), ("expert", 2)], Zero::Weights, false),
    cut(&[("expert", 2), ("tensor", 2)], Zero::Off, false),
    cut(&[("expert", 2), ("context", 2)], Zero::Optimizer, false),
    cut(&[("expert", 4), ("data", 2)], Zero::Gradients, false),
    cut(&[("data", 2), ("expert", 2), ("tensor", 2)], Zero::Optimizer, true),
    cut(&[("data", 2), ("expert", 2), ("context", 2), ("tensor", 2)], Zero::Weights, true),
];

#[test]
fn experts_without_limit_learn_the_same_on_any_mesh() {
    check(&MIXTRAL.replace("CAPACITY", "null"), DType::F64, 1e-9, 1, &EXPERT_CASES);
}

/// With so little room that tokens are passed over.
#[test]
fn experts_of_limited_capacity_learn_the_same_on_any_mesh() {
    check(&MIXTRAL.replace("CAPACITY", "0.8"), DType::F64, 1e-9, 1, &EXPERT_CASES);
}

/// Tokens are moved, never the weights of experts: only sums of their gradients over `data`.
#[test]
fn experts_stay_where_they_are() {
    let mesh = Mesh::new([("data", 2), ("expert", 2)]).unwrap();
    let expert = mesh.axis("expert").unwrap();
    let rank = ferrata_cluster::local(mesh.size()).swap_remove(0);
    let (way, options) = (MeshOptions::default(), CpuOptions::default());
    let device = Device::from(MeshDevice::new(mesh.clone(), rank.into(), way, options).unwrap());
    let layout = Layout::new(mesh.clone(), Zero::Off, tensor_rules());
    with_default_device(&device, || {
        let model = layout.model(&model(&MIXTRAL.replace("CAPACITY", "1.25")));
        let ids = Tensor::zeros([BATCH, TIME], DType::I64);
        let ids = ids.place(&layout.batch(ids.ty()));
        let step = compile(|(model, ids): (Model, Tensor)| {
            let loss = |m: &Model| m.loss(&ids, &ids, &mut Context::train(Key::new(0)));
            value_and_grad(loss)(&model)
        });
        let inspection = Inspection::new(step.planned(&(model, ids), false).unwrap(), &device);
        let inspection = inspection.unwrap();
        let mut moved = 0;
        for edge in inspection.reshards() {
            let (from, to) = (edge.from.describe(&mesh), edge.to.describe(&mesh));
            eprintln!("{} {}: {from} to {to}, {} bytes", edge.wanted_by, edge.ty, edge.bytes);
            let mut sizes = edge.ty.shape.clone();
            sizes.sort_unstable();
            if sizes == [4, 24, 40] {
                let cut = |lies: &Sharding| lies.cuts.iter().any(|cut| cut.axes == [expert]);
                assert!(cut(&edge.from) && cut(&edge.to), "{}: {from} to {to}", edge.ty);
                moved += 1;
            }
        }
        // Three for each of two layers.
        assert_eq!(moved, 6);
    });
}

#[test]
fn single_precision_learns_the_same_within_roundings() {
    check(GPT2, DType::F32, 1e-4, 1, &CASES[..8]);
    check(&deeper(GPT2), DType::F32, 1e-4, 3, &PIPELINES[..4]);
}

#[test]
fn the_rank_whose_bits_differ_is_named() {
    let ranks = ferrata_cluster::local(3);
    let mesh = Mesh::new([("data", 3)]).unwrap();
    let found: Vec<(bool, String)> = std::thread::scope(|scope| {
        let ranks = ranks.into_iter().map(|rank| {
            let mesh = mesh.clone();
            scope.spawn(move || {
                let own = rank.rank();
                let (way, options) = (MeshOptions::default(), CpuOptions::default());
                let device: Device =
                    MeshDevice::new(mesh, rank.into(), way, options).unwrap().into();
                with_default_device(&device, || {
                    let named = |x: f32| vec![("w".to_owned(), Tensor::from([1.0, x]))];
                    let mesh = device.mesh().unwrap();
                    let sound = mesh.check_replicas(&named(2.0)).is_ok();
                    let x = if own == 1 { 2.0000002 } else { 2.0 };
                    (sound, mesh.check_replicas(&named(x)).unwrap_err().to_string())
                })
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    for (sound, error) in found {
        assert!(sound);
        let named = "replicas differ in `w`: of ranks 0, 1, 2 it is rank 1 that holds other bits";
        assert!(error.starts_with(named), "{error}");
    }
}
