//! Training on several ranks, which are threads here, is training on one.

use ferrata::device::{CpuOptions, with_default_device};
use ferrata::mesh::{Layout, Mesh, MeshDevice, Zero};
use ferrata::models::{Model, ModelConfig, tensor_rules};
use ferrata::nn::Context;
use ferrata::optim::{self, Adam, Optimizer, clip_by_norm};
use ferrata::{DType, Device, Key, Tensor, compile, tree, value_and_grad};

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

/// The losses of a run on the default device.
fn losses(config: &str, dtype: DType, layout: Option<&Layout>) -> Vec<f64> {
    let config = ModelConfig::from_json(config.as_bytes(), "config.json".as_ref()).unwrap();
    let model = Model::new(&config, &Key::new(1)).unwrap().cast(dtype);
    let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() }).weight_decay(0.1);
    let mut state = optimizer.init(&model);
    let mut model = model;
    if let Some(layout) = layout {
        (model, state) = (layout.model(&model), layout.optimizer(&state));
    }
    let step = compile(|((model, state), ids, targets, key, rates)| {
        let (loss, gradient) = value_and_grad(|model: &Model| {
            model.loss(&ids, &targets, &mut Context::train(Key::clone(&key)))
        })(&model);
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
            let ids = Tensor::from_slice(&ids, &[BATCH, TIME]);
            layout.map_or(ids.clone(), |layout| ids.place(&layout.batch(ids.ty())))
        };
        let key = Key::new(7).fold(i as u32);
        let argument = ((model, state), tokens(0), tokens(1), key, optimizer.rates(i, 0.01));
        let (loss, norm);
        ((model, state), loss, norm) = step.call(argument).unwrap();
        losses.push(loss.cast(DType::F64).item::<f64>().unwrap());
        losses.push(norm.cast(DType::F64).item::<f64>().unwrap());
    }
    losses
}

/// What is cut to save memory, and whether values between layers are cut along `tensor`.
type Way = (Zero, bool);

/// The losses of every rank.
fn losses_on(mesh: &Mesh, (zero, sequence): Way, config: &str, dtype: DType) -> Vec<Vec<f64>> {
    let ranks = ferrata_cluster::local(mesh.size());
    std::thread::scope(|scope| {
        let ranks = ranks.into_iter().map(|rank| {
            scope.spawn(move || {
                let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
                let device = MeshDevice::new(mesh.clone(), rank.into(), sequence, options);
                let device = Device::from(device.unwrap());
                let layout = Layout::new(mesh.clone(), zero, tensor_rules());
                with_default_device(&device, || losses(config, dtype, Some(&layout)))
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn check(config: &str, dtype: DType, within: f64, cases: &[(&[(&str, usize)], Way)]) {
    let expected = losses(config, dtype, None);
    for (axes, way) in cases {
        let mesh = Mesh::new(axes.iter().copied()).unwrap();
        let all = losses_on(&mesh, *way, config, dtype);
        for (rank, found) in all.iter().enumerate() {
            for (i, (a, b)) in expected.iter().zip(found).enumerate() {
                // Norms of gradients feel roundings more than losses.
                let (what, within) =
                    if i % 2 == 0 { ("loss", within) } else { ("norm", 30.0 * within) };
                let error = (a - b).abs() / a.abs();
                assert!(
                    error <= within,
                    "{mesh} {way:?} rank {rank}, step {}: {what} {a} on one, {b} here ({error:e})",
                    i / 2
                );
            }
            assert_eq!(found, &all[0], "{mesh} {way:?}: ranks differ");
        }
    }
}

const CASES: [(&[(&str, usize)], Way); 21] = [
    (&[("data", 2)], (Zero::Off, false)),
    (&[("data", 3)], (Zero::Off, false)),
    (&[("data", 2)], (Zero::Optimizer, false)),
    (&[("data", 4)], (Zero::Optimizer, false)),
    (&[("data", 2)], (Zero::Gradients, false)),
    (&[("data", 5)], (Zero::Weights, false)),
    (&[("data", 2)], (Zero::Weights, false)),
    (&[("tensor", 2)], (Zero::Off, false)),
    (&[("tensor", 3)], (Zero::Off, false)),
    (&[("tensor", 4)], (Zero::Off, false)),
    (&[("context", 2)], (Zero::Off, false)),
    (&[("context", 3)], (Zero::Off, false)),
    (&[("data", 2), ("tensor", 2)], (Zero::Off, false)),
    (&[("data", 2), ("tensor", 2)], (Zero::Optimizer, false)),
    (&[("data", 2), ("tensor", 2)], (Zero::Weights, false)),
    (&[("data", 2), ("context", 2)], (Zero::Optimizer, false)),
    (&[("data", 2), ("context", 2), ("tensor", 2)], (Zero::Weights, false)),
    (&[("data", 4), ("context", 2), ("tensor", 2)], (Zero::Gradients, false)),
    (&[("tensor", 2)], (Zero::Off, true)),
    (&[("data", 2), ("tensor", 3)], (Zero::Optimizer, true)),
    (&[("data", 2), ("context", 2), ("tensor", 2)], (Zero::Weights, true)),
];

#[test]
fn gpt2_learns_the_same_on_any_mesh() {
    check(GPT2, DType::F64, 1e-9, &CASES);
}

#[test]
fn llama_learns_the_same_on_any_mesh() {
    check(LLAMA, DType::F64, 1e-9, &CASES);
}

#[test]
fn single_precision_learns_the_same_within_roundings() {
    check(GPT2, DType::F32, 1e-4, &CASES[..8]);
}
