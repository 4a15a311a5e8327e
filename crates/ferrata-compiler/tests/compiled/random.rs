//! Random programs: compiled and interpreted, they give what the reference evaluator gives.

use ferrata_compiler::testing::interpret;
use ferrata_compiler::{ReferenceDevice, compile};
use ferrata_ir::testing::{Options, Random, random_arguments, random_program};
use ferrata_ir::transform::{vjp, vmap};
use ferrata_ir::{Evaluator, Function, Literal, Precision};
use std::sync::Arc;

/// How many programs; `FERRATA_PROPERTY_PROGRAMS` asks for more than the default.
fn programs() -> u64 {
    let asked = std::env::var("FERRATA_PROPERTY_PROGRAMS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(300)
}

/// Compares the compiled program with the evaluator.
fn check(program: &Arc<Function>, seed: u64) {
    let args = random_arguments(program, seed);
    let args: Vec<&Literal> = args.iter().collect();
    let want = Evaluator::new(Precision::Typed).call(program, &args).unwrap();
    let mut random = Random::new(seed);
    let donated: Vec<bool> = args.iter().map(|_| random.one_in(2)).collect();
    let plan = compile(program, &donated, &ReferenceDevice)
        .unwrap_or_else(|e| panic!("{seed}: {e}\n{}", program));
    let got = interpret(&plan, &args).unwrap_or_else(|e| panic!("{seed}: {e}"));
    for (r, (want, got)) in want.iter().zip(&got).enumerate() {
        if let Some(difference) = crate::support::difference(want, got) {
            panic!("seed {seed}, result {r}, {difference}\n{program}\n{plan}");
        }
    }
}

/// All integers, but no float narrower than f64: fusion may keep more precision than those have.
fn options() -> Options {
    Options { without: vec![], ..Options::differentiable() }
}

#[test]
fn random_programs() {
    for seed in 0..programs() {
        check(&random_program(seed, &options()), seed);
    }
}

#[test]
fn gradients_of_random_programs() {
    let options = Options::differentiable();
    for seed in 0..programs() / 3 {
        let program = random_program(seed, &options);
        let marks: Vec<bool> =
            program.parameter_types().iter().map(|t| t.dtype.is_float()).collect();
        if let Ok(gradient) = vjp(&program, &marks) {
            check(&Arc::new(gradient), seed);
        }
    }
}

#[test]
fn batched_random_programs() {
    for seed in 0..programs() / 3 {
        let program = random_program(seed, &options());
        let marks = vec![true; program.parameters().len()];
        if let Ok(batched) = vmap(&program, &marks, 3) {
            check(&batched, seed);
        }
    }
}
