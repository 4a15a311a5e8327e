//! Random programs: compiled and interpreted, they give what the reference evaluator gives.

use ferrata_compiler::testing::{Form, check_random, interpret};
use ferrata_compiler::{ReferenceDevice, compile};
use ferrata_ir::testing::Options;
use ferrata_ir::{Error, Literal};

/// All integers, but no float narrower than f64: fusion may keep more precision than those have.
fn check(form: Form, default: u64) {
    let options = Options { without: vec![], ..Options::differentiable() };
    let done = check_random(form, &options, default, |trial| {
        let plan = compile(&trial.program, &trial.donated, &ReferenceDevice)?;
        let arguments: Vec<&Literal> = trial.arguments.iter().collect();
        let results = interpret(&plan, &arguments);
        let agree = results.and_then(|results| trial.agrees(&results));
        agree.map_err(|e| Error::new(format!("{e}\n{plan}")))
    });
    done.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn random_programs() {
    check(Form::Plain, 300);
}

#[test]
fn gradients_of_random_programs() {
    check(Form::Gradient, 100);
}

#[test]
fn batched_random_programs() {
    check(Form::Batched, 100);
}
