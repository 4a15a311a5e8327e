//! A tiny GPT and a tiny Llama learn on the simulator as they do on the CPU.

use crate::support::device;
use ferrata::models::{Model, ModelConfig};
use ferrata::nn::Context;
use ferrata::optim::{Adam, Optimizer, Rates, State, clip_by_norm};
use ferrata::{DType, Device, Key, Tensor, compile, tree, value_and_grad};
use ferrata_compiler::{Kernel, ReferenceDevice};
use std::path::Path;
use std::sync::Arc;

pub const GPT: &str = r#"{"model_type": "gpt2", "vocab_size": 24, "n_positions": 16, "n_embd": 32,
    "n_layer": 2, "n_head": 4, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0}"#;
pub const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 24, "max_position_embeddings": 16,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": false}"#;

/// What a step takes: model, optimiser's state, tokens, targets, rates.
type Arguments = (Model, State, Tensor, Tensor, Rates);

fn optimizer() -> Optimizer {
    Optimizer::new(Adam { decoupled: true, ..Adam::default() }).weight_decay(0.01)
}

/// A step of training with products in `dtype`.
fn step(dtype: DType) -> impl Fn(Arguments) -> (Model, State, Tensor) {
    move |(model, state, ids, targets, rates)| {
        let loss = |model: &Model| {
            model.loss(&ids, &targets, &mut Context::train(Key::new(0)).with_compute(dtype))
        };
        let (loss, gradient) = value_and_grad(loss)(&model);
        let (gradient, _norm) = clip_by_norm(&gradient, 1.0);
        let (model, state) = optimizer().update(&model, &gradient, &state, &rates);
        (model, state, loss)
    }
}

/// What the first step takes, on a device.
fn arguments(config: &str, device: &Device) -> Arguments {
    let config = ModelConfig::from_json(config.as_bytes(), Path::new("config.json")).unwrap();
    let windows = |shift: i64| {
        let token = |row: i64, at: i64| (row * 5 + at + shift).pow(2) % 23;
        let row = |r: i64| (0..16).map(|at| token(r, at)).collect::<Vec<i64>>();
        Tensor::from((0..2).map(row).collect::<Vec<_>>()).to_device(device)
    };
    let model = Model::new(&config, &Key::new(1)).unwrap();
    let state = optimizer().init(&model);
    let model = tree::map(&model, |t| t.to_device(device));
    let state = tree::map(&state, |t| t.to_device(device));
    (model, state, windows(0), windows(1), rates(0, device))
}

fn rates(step: u64, device: &Device) -> Rates {
    tree::map(&optimizer().rates(step, 1e-2), |t| t.to_device(device))
}

/// The kernels of a step.
pub fn kernels(config: &str, dtype: DType) -> Vec<Arc<Kernel>> {
    let planned = compile(step(dtype)).planned(&arguments(config, &Device::cpu()), true).unwrap();
    let plan = ferrata_compiler::compile(&planned.traced, &planned.donated, &ReferenceDevice);
    plan.unwrap().kernels
}

/// Losses of so many steps on a device.
fn losses(config: &str, device: &Device, dtype: DType, steps: u64) -> Vec<f32> {
    let step = compile(step(dtype));
    let (mut model, mut state, ids, targets, _) = arguments(config, device);
    let mut losses = Vec::new();
    for i in 0..steps {
        let loss: Tensor;
        let arguments = (model, state, ids.clone(), targets.clone(), rates(i, device));
        (model, state, loss) = step.call(arguments).unwrap();
        losses.push(loss.item::<f32>().unwrap());
    }
    losses
}

/// Losses on the simulator are those on the CPU, to within `tolerance` of the first.
fn same(config: &str, dtype: DType, tolerance: f32) {
    let Some(simulator) = device() else { return };
    same_on(&Device::from_backend(simulator.clone()), config, dtype, tolerance);
}

/// [`same`] on another device.
pub fn same_on(device: &Device, config: &str, dtype: DType, tolerance: f32) {
    let want = losses(config, &Device::cpu(), dtype, 20);
    let got = losses(config, device, dtype, 20);
    assert!(want[19] < 0.8 * want[0], "{want:?}");
    let first = want[0];
    for (step, (got, want)) in got.iter().zip(&want).enumerate() {
        let off = (got - want).abs() / first;
        assert!(off <= tolerance, "step {step} of {dtype}: {got}, not {want}");
    }
}

#[test]
fn gpt_in_f32() {
    same(GPT, DType::F32, 1e-4);
}

#[test]
fn gpt_in_bf16() {
    same(GPT, DType::BF16, 2e-2);
}

#[test]
fn gpt_in_f16() {
    same(GPT, DType::F16, 5e-3);
}

#[test]
fn llama_in_f32() {
    same(LLAMA, DType::F32, 1e-4);
}
