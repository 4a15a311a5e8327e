//! Attention, which the device runs with a kernel of its own.

use crate::support::{check, program, small, ty};
use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::testing::Random;
use ferrata_ir::transform::vjp;
use ferrata_ir::{DType, Type};
use std::sync::Arc;

#[test]
fn forward_and_backward() {
    let plain = Attention::default();
    let causal = Attention { causal: true, ..plain };
    let all = [
        plain,
        causal,
        Attention { offset: 3, window: Some(4), ..causal },
        Attention { softcap: Some(5.0), scale: Some(0.7), ..plain },
    ];
    for settings in all {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            for lengths in [false, true] {
                let mut types = vec![
                    ty(dtype, &[2, 4, 9, 8]),
                    ty(dtype, &[2, 2, 12, 8]),
                    ty(dtype, &[2, 2, 12, 6]),
                ];
                if lengths {
                    types.push(ty(DType::I64, &[2]));
                }
                one(&types, &settings, dtype, lengths);
            }
        }
    }
}

fn one(types: &[Type], settings: &Attention, dtype: DType, lengths: bool) {
    let f = program(types, |b, x| {
        vec![attention(b, x[0], x[1], x[2], None, lengths.then(|| x[3]), settings)]
    });
    let random = &mut Random::new(3);
    let mut args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
    let what = format!("{settings:?} {dtype} lengths {lengths}");
    check(&f, &args, 100.0, 1.0, &what);
    let mut wrt = vec![true; 3];
    wrt.extend(vec![false; types.len() - 3]);
    let g = Arc::new(vjp(&f, &wrt).unwrap());
    let rest: Vec<Type> = g.parameter_types()[types.len()..].iter().map(|&t| t.clone()).collect();
    args.extend(rest.iter().map(|t| small(random, t)));
    check(&g, &args, 200.0, 4.0, &what);
}
