//! The training step of a GPT within budgets of memory.

use crate::gpt;
use ferrata_compiler::testing::interpret;
use ferrata_compiler::{Recomputation, ReferenceDevice, compile, recompute};
use ferrata_ir::testing::Random;
use ferrata_ir::{Function, Literal, Result, Scalar, Type};
use std::sync::Arc;

const LAYERS: usize = 4;

fn step() -> (Arc<Function>, Vec<bool>) {
    let step = Arc::new(gpt::step(&gpt::model(2, 12, 8, 2, LAYERS, 11)));
    let donated = step.parameter_types().iter().map(|t: &&Type| t.dtype.is_float()).collect();
    (step, donated)
}

fn within(budget: Option<usize>) -> Result<Recomputation> {
    let (step, donated) = step();
    recompute(&step, &donated, &ReferenceDevice, budget)
}

fn results(program: &Arc<Function>, donated: &[bool]) -> Vec<Vec<u8>> {
    let plan = compile(program, donated, &ReferenceDevice).unwrap();
    let random = &mut Random::new(5);
    let inputs: Vec<Literal> = plan
        .inputs
        .iter()
        .map(|ty| {
            let value = |_| match ty.dtype.is_float() {
                true => Scalar::Float(random.float(0.1, 0.5)),
                false => Scalar::Int(random.below(11) as i64),
            };
            Literal::build(ty.clone(), value).rounded()
        })
        .collect();
    let results = interpret(&plan, &inputs.iter().collect::<Vec<_>>()).unwrap();
    results.iter().map(Literal::to_bytes).collect()
}

#[test]
fn the_least_memory_costs_no_bit() {
    let (step, donated) = step();
    let error = within(Some(1)).unwrap_err().to_string();
    assert!(error.contains("is allowed 1MB of memory"), "{error}");
    let whole = within(Some(usize::MAX)).unwrap();
    assert_eq!((whole.peak, whole.flops, whole.values.len()), (whole.peak_without, 0.0, 0));
    // Budgets from all of it down to what is impossible.
    let (mut last, mut sets) = (whole.clone(), 0);
    let expected = results(&step, &donated);
    while let Ok(found) = within(Some(last.peak - last.peak / 32)) {
        assert!(found.peak < last.peak, "{} {}", found.peak, last.peak);
        assert!(found.flops > 0.0);
        // The first layer has a function of its own: its operand needs no gradient.
        assert!(found.values.iter().all(|(_, _, layers)| *layers == LAYERS - 1));
        let plan = compile(&found.program, &donated, &ReferenceDevice).unwrap();
        assert_eq!(plan.bytes(), found.peak);
        assert_eq!(results(&found.program, &donated), expected, "{:?}", found.values);
        (last, sets) = (found, sets + 1);
    }
    assert!(sets > 1, "{sets}");
    let inputs: usize = step.parameter_types().iter().map(|t| t.bytes()).sum();
    let arena = |peak: usize| peak - inputs;
    assert!(arena(last.peak) * 4 < arena(whole.peak) * 3, "{} {}", last.peak, whole.peak);
}

#[test]
fn more_memory_means_less_work() {
    let whole = within(Some(usize::MAX)).unwrap();
    let budgets = (1..8).map(|eighths| whole.peak / 2 + whole.peak * eighths / 16);
    let work: Vec<f64> =
        budgets.filter_map(|budget| within(Some(budget)).ok()).map(|found| found.flops).collect();
    assert!(work.windows(2).all(|w| w[0] >= w[1]), "{work:?}");
}

#[test]
fn without_a_budget_hardly_anything_is_done_twice() {
    let found = within(None).unwrap();
    assert!(found.peak <= found.peak_without);
    let all: f64 = within(Some(found.peak)).unwrap().flops;
    assert!(all <= found.flops);
}
