//! Compiling, interpreting and comparing.

use ferrata_compiler::testing::{difference, interpret};
use ferrata_compiler::{Plan, ReferenceDevice, compile};
use ferrata_ir::{Evaluator, Function, Literal, Precision, Scalar};
use std::sync::Arc;

/// Deterministic inputs of any type.
pub fn arguments(f: &Function) -> Vec<Literal> {
    let value = |i: usize, k: usize| ((i * 7 + k * 13) as f64 * 0.37 + 0.2).sin();
    f.parameter_types()
        .into_iter()
        .enumerate()
        .map(|(k, ty)| {
            let float = ty.dtype.is_float();
            Literal::build(ty.clone(), |i| match float {
                true => Scalar::Float(value(i, k)),
                false => Scalar::Int((i * 5 + k) as i64 % 4),
            })
            .rounded()
        })
        .collect()
}

pub fn check(f: &Arc<Function>) -> Plan {
    check_donated(f, &vec![false; f.parameters().len()])
}

pub fn check_donated(f: &Arc<Function>, donated: &[bool]) -> Plan {
    let args = arguments(f);
    let args: Vec<&Literal> = args.iter().collect();
    let want = Evaluator::new(Precision::Typed).call(f, &args).unwrap();
    let plan = compile(f, donated, &ReferenceDevice).unwrap();
    let got = interpret(&plan, &args).unwrap();
    for (r, (want, got)) in want.iter().zip(&got).enumerate() {
        if let Some(difference) = difference(want, got, 0.0) {
            panic!("result {r}, {difference}");
        }
    }
    plan
}
