//! The training step of a GPT within budgets of memory.

use crate::gpt;
use ferrata_compiler::plan::Step;
use ferrata_compiler::testing::interpret;
use ferrata_compiler::{Recomputation, ReferenceDevice, compile, recompute};
use ferrata_ir::primitive::{Save, Scan};
use ferrata_ir::testing::Random;
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, Function, Literal, Result, Scalar, Type, Value};
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

/// The step on several microbatches in a loop: their loss and gradients are summed.
fn loop_over_microbatches(turns: usize) -> Arc<Function> {
    let loss = gpt::model(2, 12, 8, 2, LAYERS, 11);
    let types: Vec<Type> = loss.parameter_types().into_iter().cloned().collect();
    let mut marks = vec![true; types.len()];
    let last = types.len() - 1;
    (marks[0], marks[last]) = (false, false);
    let gradient = Arc::new(value_and_grad(&loss, &marks).unwrap());
    let mut b = Builder::new("turn");
    let weights: Vec<Value> = types[1..last].iter().map(|t| b.parameter(t.clone())).collect();
    let sums: Vec<Value> =
        gradient.result_types().iter().map(|t| b.parameter((*t).clone())).collect();
    let (x, targets) = (b.parameter(types[0].clone()), b.parameter(types[last].clone()));
    let made = b.call(&gradient, &[vec![x], weights.clone(), vec![targets]].concat());
    let sums: Vec<Value> = sums.iter().zip(made).map(|(&sum, g)| b.add(sum, g)).collect();
    // Weights go around as they are.
    let body = Arc::new(b.finish(&[weights, sums].concat()).unwrap());
    let mut b = Builder::new("step");
    let begin: Vec<Value> = types[1..last].iter().map(|t| b.parameter(t.clone())).collect();
    let zeros = gradient.result_types().into_iter().map(|t| b.full(t.clone(), 0.0));
    let begin = [begin.clone(), zeros.collect()].concat();
    let stack = |t: &Type| Type::new(t.dtype, [&[turns], &t.shape[..]].concat());
    let batches = [&types[0], &types[last]].map(|t| b.parameter(stack(t)));
    let scan = Scan {
        body,
        constants: 0,
        carries: begin.len(),
        length: turns,
        reverse: false,
        save: Save::All,
    };
    let made = b.emit(scan, &[begin, batches.to_vec()].concat());
    Arc::new(b.finish(&made[types.len() - 2..]).unwrap())
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

/// In a loop, sums grow where they are and layers are computed again as outside of one.
#[test]
fn layers_in_a_loop_are_computed_again() {
    let program = loop_over_microbatches(3);
    let donated = vec![false; program.parameters().len()];
    let within = |budget| recompute(&program, &donated, &ReferenceDevice, Some(budget));
    let whole = within(usize::MAX).unwrap();
    let least = within(whole.peak - whole.peak / 8).unwrap();
    assert!(!least.values.is_empty() && least.flops > 0.0);
    assert!(least.values.iter().all(|(_, _, layers)| *layers == LAYERS - 1));
    assert_eq!(results(&least.program, &donated), results(&program, &donated));
    let plan = compile(&least.program, &donated, &ReferenceDevice).unwrap();
    assert_eq!(plan.bytes(), least.peak);
    let copies =
        |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Copy { .. })).count();
    let [Step::Repeat { body, .. }] =
        plan.steps.iter().filter(|s| matches!(s, Step::Repeat { .. })).collect::<Vec<_>>()[..]
    else {
        panic!("one loop")
    };
    // Only what is stored behind a product is made elsewhere and copied: six of 51 sums.
    assert_eq!(copies(body), 6, "{plan}");
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
