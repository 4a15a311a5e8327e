//! Compiling, interpreting and comparing.

use ferrata_compiler::testing::interpret;
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
        close(r, want, got);
    }
    plan
}

fn close(r: usize, want: &Literal, got: &Literal) {
    if let Some(difference) = difference(want, got) {
        panic!("result {r}, {difference}");
    }
}

/// The first element that differs by more than rounding explains.
pub fn difference(want: &Literal, got: &Literal) -> Option<String> {
    assert_eq!(want.ty, got.ty);
    let (w, g) = (want.to_f64(), got.to_f64());
    let largest = w.iter().filter(|x| x.is_finite()).fold(0.0f64, |a, x| a.max(x.abs()));
    let allowed = 64.0 * want.ty.dtype.epsilon() * (largest + 1e-3);
    let same = |w: f64, g: f64| w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= allowed;
    let at = w.iter().zip(&g).position(|(w, g)| !same(*w, *g))?;
    Some(format!("element {at}: {} instead of {}", g[at], w[at]))
}
