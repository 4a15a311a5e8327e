//! Reductions along any dimensions, and kernels made around them.

use crate::support::{check, f32s, literal, program, small, ty};
use ferrata_ir::primitive::{ReduceKind, Reverse, Slice};
use ferrata_ir::testing::Random;
use ferrata_ir::{Builder, DType, Value};

const KINDS: [ReduceKind; 6] = [
    ReduceKind::Sum,
    ReduceKind::Product,
    ReduceKind::Max,
    ReduceKind::Min,
    ReduceKind::And,
    ReduceKind::Or,
];

#[test]
fn every_kind_and_dtype() {
    for kind in KINDS {
        for dtype in DType::ALL.into_iter().filter(|&d| kind.accepts(d).is_ok()) {
            for shape in [[4, 33, 6], [1, 1, 1], [0, 3, 2], [2, 0, 3], [2, 3, 0]] {
                let t = ty(dtype, &shape);
                let f = program(std::slice::from_ref(&t), |b, x| {
                    let dims: [&[usize]; 6] = [&[0], &[1], &[2], &[0, 2], &[1, 2], &[0, 1, 2]];
                    dims.map(|d| b.reduce(kind, x[0], d)).to_vec()
                });
                let random = &mut Random::new(4);
                let scale = if kind == ReduceKind::Sum { 8.0 } else { 0.0 };
                let what = format!("{kind:?} {dtype} {shape:?}");
                check(&f, &[small(random, &t)], 40.0, scale, &what);
                // A product of tiny numbers depends on the order.
                if kind != ReduceKind::Product {
                    check(&f, &[literal(random, &t, true)], 40.0, 4.0 * scale, &what);
                }
            }
        }
    }
}

#[test]
fn sizes_from_nothing_to_many_tasks() {
    for shape in [
        [0, 0],
        [0, 9],
        [9, 0],
        [1, 1],
        [3, 9000],
        [20, 9000],
        [40_000, 3],
        [1, 300_000],
        [300_000, 1],
    ] {
        let t = f32s(&shape);
        let f = program(std::slice::from_ref(&t), |b, x| {
            let square = b.mul(x[0], x[0]);
            vec![b.sum(square, &[0]), b.sum(square, &[1]), b.sum(square, &[0, 1])]
        });
        let x = small(&mut Random::new(9), &t);
        check(&f, &[x], 40.0, 100.0, &format!("{shape:?}"));
    }
}

#[test]
fn rows_combined_in_groups() {
    for shape in [[3, 0, 4], [3, 50, 40], [100, 3, 40], [2, 5000, 7], [2, 3, 20_000]] {
        let t = f32s(&shape);
        let f = program(std::slice::from_ref(&t), |b, x| {
            let y = b.exp(x[0]);
            vec![b.sum(y, &[1]), b.sum(x[0], &[0]), b.reduce(ReduceKind::Max, x[0], &[1])]
        });
        let x = small(&mut Random::new(9), &t);
        check(&f, &[x], 40.0, 100.0, &format!("{shape:?}"));
    }
}

pub fn softmax(b: &mut Builder, x: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let last = [shape.len() - 1];
    let top = b.reduce(ReduceKind::Max, x, &last);
    let top = b.broadcast_reduced(top, &shape, &last);
    let x = b.sub(x, top);
    let e = b.exp(x);
    let sum = b.sum(e, &last);
    let sum = b.broadcast_reduced(sum, &shape, &last);
    b.div(e, sum)
}

fn layer_norm(b: &mut Builder, x: Value, weight: Value) -> Value {
    let shape = b.ty(x).shape.clone();
    let last = [shape.len() - 1];
    let n = shape[last[0]] as f64;
    let mean = b.sum(x, &last);
    let mean = b.scale(mean, 1.0 / n);
    let mean = b.broadcast_reduced(mean, &shape, &last);
    let x = b.sub(x, mean);
    let square = b.mul(x, x);
    let var = b.sum(square, &last);
    let var = b.scale(var, 1.0 / n);
    let var = b.offset(var, 1e-5);
    let scale = b.rsqrt(var);
    let scale = b.broadcast_reduced(scale, &shape, &last);
    let x = b.mul(x, scale);
    let weight = b.broadcast_trailing(weight, &shape);
    b.mul(x, weight)
}

#[test]
fn several_reductions_in_a_row_of_any_length() {
    for shape in [[3, 0], [0, 3], [1, 1], [7, 5], [30, 384], [20, 8200], [3, 20_000], [12, 50_257]]
    {
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            if dtype != DType::F32 && shape[1] > 9000 {
                continue;
            }
            let (t, w) = (ty(dtype, &shape), ty(dtype, &[shape[1]]));
            let f = program(&[t.clone(), w.clone()], |b, x| {
                let s = softmax(b, x[0]);
                let n = layer_norm(b, x[0], x[1]);
                let total = b.sum(n, &[0]);
                let log = b.log(s);
                let entropy = b.sum(log, &[1]);
                vec![s, n, total, entropy]
            });
            let random = &mut Random::new(6);
            let args = [small(random, &t), small(random, &w)];
            // Products of sums that each have their own rounding.
            let scale = if dtype == DType::BF16 { 20.0 * shape[1] as f64 } else { shape[1] as f64 };
            check(&f, &args, 40.0, scale, &format!("{dtype} {shape:?}"));
        }
    }
}

#[test]
fn rows_that_their_own_reductions_change() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for shape in [[1, 1], [40, 1], [7, 5], [3, 16], [30, 384]] {
            let t = ty(dtype, &shape);
            let f = program(std::slice::from_ref(&t), |b, x| {
                let sum = b.sum(x[0], &[1]);
                let mean = b.scale(sum, 1.0 / shape[1] as f64);
                let mean = b.broadcast_reduced(mean, &shape, &[1]);
                vec![b.sub(x[0], mean)]
            });
            let x = small(&mut Random::new(7), &t);
            check(&f, &[x], 4.0, shape[1] as f64, &format!("{dtype} {shape:?}"));
        }
    }
}

#[test]
fn halves_are_summed_in_f32() {
    let t = ty(DType::BF16, &[2, 3000]);
    let f = program(std::slice::from_ref(&t), |b, x| vec![b.sum(x[0], &[1]), b.sum(x[0], &[0])]);
    let x = small(&mut Random::new(8), &t);
    check(&f, &[x], 2.0, 1.0, "bf16");
}

#[test]
fn operands_at_odd_places() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::I32, DType::U8] {
        let t = ty(dtype, &[9, 75, 3]);
        let f = program(std::slice::from_ref(&t), |b, x| {
            let s = Slice { start: vec![1, 2, 1], limit: vec![8, 73, 3], stride: vec![2, 3, 1] };
            let y = b.emit1(s, &[x[0]]);
            let z = b.transpose(y, &[2, 1, 0]);
            let z = b.emit1(Reverse { dims: vec![1] }, &[z]);
            vec![b.sum(y, &[1]), b.sum(y, &[0, 2]), b.sum(z, &[1]), b.sum(z, &[0, 1, 2])]
        });
        let x = small(&mut Random::new(8), &t);
        check(&f, &[x], 40.0, 20.0, &format!("{dtype}"));
    }
}

/// A reduction that is stored once for every column: rows and columns cannot change places, as no
/// column would see the others.
#[test]
fn repeated_where_it_was_reduced() {
    for kind in [ReduceKind::Sum, ReduceKind::Product, ReduceKind::Max] {
        for [rows, columns] in [[2, 2], [5, 17], [1, 17], [64, 3]] {
            let t = f32s(&[rows]);
            let f = program(&[f32s(&[]), t], |b, x| {
                let same = b.broadcast(x[0], &[rows, columns], &[]);
                let along = b.broadcast(x[1], &[rows, columns], &[0]);
                let repeated = |b: &mut Builder, y| {
                    let y = b.sin(y);
                    let y = b.reduce(kind, y, &[1]);
                    b.broadcast(y, &[columns, rows], &[1])
                };
                vec![repeated(b, same), repeated(b, along)]
            });
            let random = &mut Random::new(7);
            let arguments = [small(random, &f32s(&[])), small(random, &f32s(&[rows]))];
            check(&f, &arguments, 40.0, 100.0, &format!("{kind:?} {rows} {columns}"));
        }
    }
}
