//! Matrix products of every dtype and orientation, with work fused behind them.

use crate::support::{check, f32s, literal, program, small, ty};
use ferrata_ir::DType;
use ferrata_ir::primitive::{Reverse, Slice};
use ferrata_ir::testing::Random;

#[test]
fn every_dtype() {
    for dtype in DType::ALL.into_iter().filter(|&d| d != DType::Bool) {
        for [m, k, n] in [[7, 30, 9], [40, 70, 50], [1, 1, 1], [0, 3, 2], [3, 0, 2], [2, 3, 0]] {
            let types = [ty(dtype, &[m, k]), ty(dtype, &[k, n])];
            let f = program(&types, |b, x| vec![b.matmul(x[0], x[1])]);
            let random = &mut Random::new(2);
            let what = format!("{dtype} {m} {k} {n}");
            check(&f, &types.clone().map(|t| small(random, &t)), 60.0, 4.0, &what);
            check(&f, &types.clone().map(|t| literal(random, &t, true)), 60.0, 20.0, &what);
        }
    }
}

#[test]
fn every_orientation_and_size() {
    for [m, k, n] in [
        [1, 1, 1],
        [0, 4, 5],
        [4, 0, 5],
        [5, 4, 0],
        [1, 50, 70],
        [70, 50, 1],
        [33, 17, 40],
        [130, 300, 65],
    ] {
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
        for [m, k, n] in [[50, 40, 300], [1, 1, 1], [1, 40, 300], [5, 0, 7], [0, 3, 2]] {
            behind(dtype, [m, k, n]);
        }
    }
}

#[test]
fn a_product_keeps_what_its_work_goes_on_from() {
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        let types = [ty(dtype, &[50, 40]), ty(dtype, &[40, 300]), ty(dtype, &[50, 300])];
        for sum in [false, true] {
            let f = program(&types, |b, x| {
                let product = b.matmul(x[0], x[1]);
                let kept = if sum { b.add(product, x[2]) } else { product };
                let active = b.logistic(kept);
                let last = b.dot(active, x[1], (&[], &[]), (&[1], &[1]));
                vec![kept, last]
            });
            let random = &mut Random::new(2);
            let args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
            check(&f, &args, 60.0, 10.0, &format!("{dtype} {sum}"));
        }
    }
}

fn behind(dtype: DType, [m, k, n]: [usize; 3]) {
    let types = [
        ty(dtype, &[3, m, k]),
        ty(dtype, &[k, n]),
        ty(dtype, &[n]),
        ty(dtype, &[3, m, n]),
        ty(dtype, &[3, n, m]),
    ];
    let f = program(&types, |b, x| {
        let y = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
        let bias = b.broadcast_trailing(x[2], &[3, m, n]);
        let y = b.add(y, bias);
        let gate = b.logistic(y);
        let y = b.mul(y, gate);
        let z = b.add(y, x[3]);
        let y = b.dot(x[0], x[1], (&[], &[]), (&[2], &[0]));
        let turned = b.transpose(x[4], &[0, 2, 1]);
        let w = b.mul(y, turned);
        let w = if dtype == DType::F64 { b.cast(w, DType::F32) } else { w };
        let w = b.transpose(w, &[1, 2, 0]);
        vec![z, w]
    });
    let random = &mut Random::new(2);
    let args: Vec<_> = types.iter().map(|t| small(random, t)).collect();
    check(&f, &args, 60.0, 10.0, &format!("{dtype} {m} {k} {n}"));
}

/// Operands that begin at odd places, with gaps between their elements.
#[test]
fn operands_at_odd_places() {
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16, DType::I8, DType::I32] {
        for [m, k, n] in [[1, 70, 50], [37, 70, 50], [3, 5, 1]] {
            for stride in [1, 2] {
                let types =
                    [ty(dtype, &[m + 2, stride * k + 1]), ty(dtype, &[stride * k + 3, n + 1])];
                let f = program(&types, |b, x| {
                    let left = Slice {
                        start: vec![1, 1],
                        limit: vec![m + 1, stride * k + 1],
                        stride: vec![1, stride],
                    };
                    let right = Slice {
                        start: vec![3, 1],
                        limit: vec![stride * k + 3, n + 1],
                        stride: vec![stride, 1],
                    };
                    let (left, right) = (b.emit1(left, &[x[0]]), b.emit1(right, &[x[1]]));
                    let right = b.emit1(Reverse { dims: vec![0] }, &[right]);
                    vec![b.matmul(left, right)]
                });
                let random = &mut Random::new(2);
                let args = types.clone().map(|t| small(random, &t));
                check(&f, &args, 60.0, 10.0, &format!("{dtype} {m} {k} {n} stride {stride}"));
            }
        }
    }
}
