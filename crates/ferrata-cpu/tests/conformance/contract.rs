//! Matrix products of every dtype and orientation, with work fused behind them.

use crate::support::{check, f32s, program, small, ty};
use ferrata_ir::DType;
use ferrata_ir::testing::Random;

#[test]
fn every_dtype() {
    for dtype in DType::ALL.into_iter().filter(|&d| d != DType::Bool) {
        let types = [ty(dtype, &[7, 30]), ty(dtype, &[30, 9])];
        let f = program(&types, |b, x| vec![b.matmul(x[0], x[1])]);
        let random = &mut Random::new(2);
        let args = types.clone().map(|t| small(random, &t));
        check(&f, &args, 60.0, 4.0, &format!("{dtype}"));
    }
}

#[test]
fn every_orientation_and_size() {
    for [m, k, n] in [[1, 1, 1], [1, 50, 70], [70, 50, 1], [33, 17, 40], [130, 300, 65]] {
        for turned in 0..8 {
            let turn = |bit, a, b| if turned & bit == 0 { [2, a, b] } else { [2, b, a] };
            let types = [f32s(&turn(1, m, k)), f32s(&turn(2, k, n))];
            let f = program(&types, |b, x| {
                let contract = ([2 - (turned & 1)], [1 + (turned >> 1 & 1)]);
                let y = b.dot(x[0], x[1], (&[0], &[0]), (&contract.0, &contract.1));
                vec![if turned & 4 == 0 { y } else { b.transpose(y, &[2, 0, 1]) }]
            });
            let random = &mut Random::new(2);
            let args = types.clone().map(|t| small(random, &t));
            check(&f, &args, 60.0, 10.0, &format!("{m} {k} {n} turned {turned}"));
        }
    }
}

#[test]
fn work_behind_a_product() {
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        let types = [
            ty(dtype, &[3, 50, 40]),
            ty(dtype, &[40, 300]),
            ty(dtype, &[300]),
            ty(dtype, &[3, 50, 300]),
            ty(dtype, &[3, 300, 50]),
        ];
        let f = program(&types, |b, x| {
            let y = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
            let bias = b.broadcast_trailing(x[2], &[3, 50, 300]);
            let y = b.add(y, bias);
            let gate = b.logistic(y);
            let y = b.mul(y, gate);
            let z = b.add(y, x[3]);
            let y = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
            let turned = b.transpose(x[4], &[0, 2, 1]);
            let w = b.mul(y, turned);
            let w = if dtype == DType::F64 { b.cast(w, DType::F32) } else { w };
            let w = b.transpose(w, &[1, 2, 0]);
            // The sum is kept, and what is made of it goes on into another product.
            let y = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
            let kept = b.add(y, x[3]);
            let active = b.logistic(kept);
            let last = b.dot(active, x[1], (&[], &[]), (&[2], &[1]));
            vec![z, w, kept, last]
        });
        let random = &mut Random::new(2);
        let args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
        check(&f, &args, 60.0, 10.0, &format!("{dtype}"));
    }
}
