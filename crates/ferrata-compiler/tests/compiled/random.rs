//! Random programs: compiled and interpreted, they give what the reference evaluator gives.

use crate::gpt::f32s;
use crate::support::check_donated;
use ferrata_compiler::testing::{Form, check_random, interpret};
use ferrata_compiler::{ReferenceDevice, compile};
use ferrata_ir::primitive::{Reverse, Save, Scan};
use ferrata_ir::testing::{Options, Random, property_programs};
use ferrata_ir::{Builder, Error, Function, Literal, Value};
use std::sync::Arc;

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

/// A loop whose carries are summed, exchanged, kept, read late or made of each other.
fn loop_of_carries(random: &mut Random, depth: usize) -> Arc<Function> {
    let (carries, constants) = (2 + random.below(3), random.below(2));
    let mut b = Builder::new("turn");
    let mut values: Vec<Value> =
        (0..constants + carries + 1).map(|_| b.parameter(f32s(&[3]))).collect();
    for _ in 0..1 + random.below(6) {
        let [x, y] = [0; 2].map(|_| *random.pick(&values));
        let made = match random.below(5) {
            0 => b.mul(x, y),
            1 => b.emit1(Reverse { dims: vec![0] }, &[x]),
            2 if depth > 0 => {
                let inner = loop_of_carries(random, depth - 1);
                let count = inner.parameters().len();
                let args: Vec<Value> = (0..count).map(|_| *random.pick(&values)).collect();
                let stacked = b.broadcast(args[count - 1], &[2, 3], &[1]);
                let args = [&args[..count - 1], &[stacked]].concat();
                *random.pick(&repeated(&mut b, inner, &args))
            }
            _ => b.add(x, y),
        };
        values.push(made);
    }
    let results: Vec<Value> = (0..carries).map(|_| *random.pick(&values)).collect();
    Arc::new(b.finish(&results).unwrap())
}

/// The carries of a loop of two turns; the last argument has a part for each.
fn repeated(b: &mut Builder, body: Arc<Function>, args: &[Value]) -> Vec<Value> {
    let carries = body.results().len();
    let constants = args.len() - 1 - carries;
    let scan = Scan { body, constants, carries, length: 2, reverse: false, save: Save::All };
    b.emit(scan, args)
}

#[test]
fn loops_of_random_carries() {
    for seed in 0..property_programs(300) {
        let random = &mut Random::new(seed);
        let body = loop_of_carries(random, 1);
        let count = body.parameters().len();
        let mut b = Builder::new("f");
        let mut args: Vec<Value> = (1..count).map(|_| b.parameter(f32s(&[3]))).collect();
        args.push(b.parameter(f32s(&[2, 3])));
        // Some values before the first turn are made here, and some results are used further.
        args[0] = b.neg(args[0]);
        let mut results = repeated(&mut b, body, &args);
        results.push(b.exp(results[0]));
        let f = Arc::new(b.finish(&results).unwrap());
        let donated: Vec<bool> = (0..count).map(|_| random.one_in(2)).collect();
        check_donated(&f, &donated);
    }
}
