//! The engine with the smallest language model: a table of logits by token.

use ferrata_formats::checkpoint::CheckpointWriter;

use std::path::Path;

use super::*;
use crate::data::Batch;
use crate::train::config::{Override, Source};
use crate::train::next_token::{self, LanguageModel};
use crate::train::tests::scratch;

#[derive(Clone, Module)]
struct Bigram {
    table: Tensor,
    bias: Tensor,
}

impl LanguageModel for Bigram {
    fn logits(&self, ids: &Tensor, _: &mut Context) -> Tensor {
        self.table.take(ids, 0) + &self.bias
    }
}

const VOCABULARY: usize = 5;

fn engine(config: &Config) -> Engine<Bigram> {
    Engine::new(bigram(), next_token::loss(0.0), next_token::STEP, config).unwrap()
}

/// The sum of the losses of a batch.
fn evaluate(engine: &Engine<Bigram>, batch: &Batch) -> f64 {
    next_token::loss_sum(&next_token::evaluation(None), engine.best_model().unwrap(), batch)
        .unwrap()
}

fn bigram() -> Bigram {
    Bigram {
        table: Tensor::randn([VOCABULARY, VOCABULARY], DType::F32, &Key::new(1)) * 0.1,
        bias: Tensor::zeros([VOCABULARY], DType::F32),
    }
}

fn config(settings: &[&str]) -> Config {
    let overrides: Vec<_> = settings.iter().map(|s| Override::parse(s).unwrap()).collect();
    Config::load(Source::Text { name: "test", text: "[optimizer]\nlr = 0.1" }, &overrides).unwrap()
}

/// Two rows of a fixed pattern that begins at `start`; the next token is the successor.
fn batch(start: i64) -> Batch {
    let row = |offset: i64| (0..6).map(move |i| (start + i + offset) % VOCABULARY as i64);
    let ids = |offset: i64| row(offset).chain(row(offset + 2)).collect::<Vec<i64>>();
    let mut batch = Batch::default();
    let array = |values| HostArray::i64(&[2, 6], values).unwrap();
    batch.arrays.insert("input_ids".to_owned(), array(ids(0)));
    batch.arrays.insert("targets".to_owned(), array(ids(1)));
    let weights = vec![1.0f32; 12];
    batch.arrays.insert("weights".to_owned(), HostArray::f32(&[2, 6], weights).unwrap());
    batch
}

fn run(engine: &mut Engine<Bigram>, steps: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let step = |i: u64| {
        let (loss, norm) = engine.step(i, 0.1, &[batch(i as i64)], false).unwrap();
        (loss.to_bits(), norm.to_bits())
    };
    steps.map(step).collect()
}

#[test]
fn steps_learn_and_evaluation_sees_it() {
    let mut engine = self::engine(&config(&["train.clip_norm=1.0"]));
    let before = evaluate(&engine, &batch(0)) / 12.0;
    let losses = run(&mut engine, 0..30);
    let after = evaluate(&engine, &batch(0)) / 12.0;
    assert!((before - (VOCABULARY as f64).ln()).abs() < 0.2, "{before}");
    assert!((f64::from_bits(losses[0].0) - before).abs() < 0.1);
    assert!(after < 0.5 * before, "{after}");
}

fn written(snapshot: Snapshot, folder: &Path) -> Checkpoint {
    let mut writer = CheckpointWriter::new(folder, 1).unwrap();
    snapshot.write(&mut writer, true).unwrap();
    Checkpoint::open(writer.finish("here", serde_json::Value::Null).unwrap()).unwrap()
}

#[test]
fn a_restored_state_continues_bit_for_bit() {
    let folder = scratch("engine");
    let config = config(&["train.ema=0.9", "train.clip_norm=0.5"]);
    let mut whole = engine(&config);
    let expected = run(&mut whole, 0..8);
    let mut first = engine(&config);
    assert_eq!(run(&mut first, 0..3), expected[..3]);
    // What is saved is the state of now, whenever it is written.
    let mut snapshot = Snapshot::default();
    first.save(&mut snapshot).unwrap();
    run(&mut first, 3..4);
    let checkpoint = written(snapshot, &folder);
    let mut second = engine(&config);
    second.restore_from(&checkpoint).unwrap();
    assert_eq!(run(&mut second, 3..8), expected[3..]);
    let last = |engine: &Engine<Bigram>| Engine::weights(engine.best_model().unwrap()).unwrap();
    for ((name, a), (_, b)) in last(&whole).iter().zip(&last(&second)) {
        assert_eq!(a.bytes, b.bytes, "{name}");
    }
    let other = super::tests::config(&["optimizer.kind=lion"]);
    let error = engine(&other).restore_from(&checkpoint);
    assert!(error.unwrap_err().to_string().contains("optimiser state does not fit"));
}

#[test]
fn accumulated_microbatches_are_one_batch() {
    let mut split = engine(&config(&["train.accumulate=2"]));
    let (loss, norm) = split.step(0, 0.1, &[batch(0), batch(3)], false).unwrap();
    let mut whole = engine(&config(&[]));
    let mut both = Batch::default();
    for name in ["input_ids", "targets"] {
        let rows = [batch(0), batch(3)].map(|b| b.integers(name).unwrap().to_vec()).concat();
        both.arrays.insert(name.to_owned(), HostArray::i64(&[4, 6], rows).unwrap());
    }
    let (expected, expected_norm) = whole.step(0, 0.1, &[both], false).unwrap();
    assert!((loss - expected).abs() < 1e-6 && (norm - expected_norm).abs() < 1e-6);
    let weights = |engine: &Engine<Bigram>| engine.model().unwrap().table.to_vec::<f32>().unwrap();
    for (a, b) in weights(&split).iter().zip(weights(&whole)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn frozen_parameters_stay_and_the_average_follows() {
    let start = bigram().table.to_vec::<f32>().unwrap();
    // What the average keeps of the random beginning is less at first.
    for (step, kept) in [(0, 0.1), (100, 0.5)] {
        let mut engine = self::engine(&config(&["train.freeze=bias", "train.ema=0.5"]));
        run(&mut engine, step..step + 1);
        let model = engine.model().unwrap();
        assert!(model.bias.to_vec::<f32>().unwrap().iter().all(|x| *x == 0.0));
        let moved = model.table.to_vec::<f32>().unwrap();
        let average = engine.best_model().unwrap().table.to_vec::<f32>().unwrap();
        for ((a, b), middle) in start.iter().zip(&moved).zip(&average) {
            assert!((kept * a + (1.0 - kept) * b - middle).abs() < 1e-6);
        }
    }
}

#[test]
fn the_node_that_makes_a_nan_is_named() {
    let mut model = bigram();
    model.bias = &model.bias - f64::MAX;
    let mut engine =
        Engine::new(model, next_token::loss(0.0), next_token::STEP, &config(&[])).unwrap();
    let (loss, _) = engine.step(0, 0.1, &[batch(0)], true).unwrap();
    assert!(!loss.is_finite());
    let reason = engine.explain(0, 0.1, &[batch(0)]).unwrap();
    assert!(reason.contains("not finite"), "{reason}");
}

#[test]
fn the_step_can_be_planned() {
    let engine = self::engine(&config(&[]));
    let program = engine.prepare(&next_token::example(2, 3)).unwrap().traced;
    assert!(program.to_string().contains("cross_entropy"));
    assert!(engine.state_bytes() >= 3 * 4 * (25 + 5));
}

/// A scale for centred numbers, with a running mean as state.
#[derive(Clone, Module)]
struct Centred {
    scale: Tensor,
    mean: Tensor,
}

fn centred(config: &Config) -> Engine<Centred> {
    let model =
        Centred { scale: Tensor::ones([2], DType::F32), mean: Tensor::zeros([2], DType::F32) };
    let loss: Loss<Centred> = Box::new(|model, batch, cx| {
        let mean = batch["x"].mean(0);
        cx.update(&model.mean, &model.mean * 0.5 + &mean * 0.5);
        ((&batch["x"] - mean) * &model.scale - 1.0).square().mean(..)
    });
    Engine::new(model, loss, &["x"], config).unwrap()
}

fn numbers(step: u64) -> Batch {
    let mut batch = Batch::default();
    let values = (0..6).map(|i| (step as f32 + i as f32).sin()).collect();
    batch.arrays.insert("x".to_owned(), HostArray::f32(&[3, 2], values).unwrap());
    batch
}

#[test]
fn running_statistics_are_state() {
    let folder = scratch("engine-state");
    let config = config(&["train.ema=0.9", "optimizer.decay_on=all", "optimizer.weight_decay=0.1"]);
    let steps = |engine: &mut Engine<Centred>, range: std::ops::Range<u64>| {
        for i in range {
            engine.step(i, 0.1, &[numbers(i)], false).unwrap();
        }
    };
    let mut whole = centred(&config);
    steps(&mut whole, 0..1);
    let column = |i: usize| (0..3).map(|row| ((2 * row + i) as f32).sin()).sum::<f32>() / 6.0;
    let mean = whole.model().unwrap().mean.to_vec::<f32>().unwrap();
    assert!((mean[0] - column(0)).abs() < 1e-6 && (mean[1] - column(1)).abs() < 1e-6, "{mean:?}");
    let mut snapshot = Snapshot::default();
    whole.save(&mut snapshot).unwrap();
    let checkpoint = written(snapshot, &folder);
    steps(&mut whole, 1..5);
    let mut resumed = centred(&config);
    resumed.restore_from(&checkpoint).unwrap();
    steps(&mut resumed, 1..5);
    for get in [Engine::model, Engine::best_model] {
        let tensors = |engine| Engine::weights(get(engine).unwrap()).unwrap();
        for ((name, a), (_, b)) in tensors(&whole).iter().zip(&tensors(&resumed)) {
            assert_eq!(a.bytes, b.bytes, "{name}");
        }
    }
}

#[test]
fn every_microbatch_moves_running_statistics() {
    let mut engine = centred(&config(&["train.accumulate=2"]));
    engine.step(0, 0.1, &[numbers(0), numbers(7)], false).unwrap();
    let mean =
        |step: u64| (0..3).map(|row| (step as f32 + 2.0 * row as f32).sin()).sum::<f32>() / 3.0;
    let found = engine.model().unwrap().mean.to_vec::<f32>().unwrap()[0];
    assert!((found - (0.25 * mean(0) + 0.5 * mean(7))).abs() < 1e-6, "{found}");
}
