//! Each kind of kernel.

use crate::support::{check, numbers, program, ty};
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::testing::Random;
use ferrata_ir::{Builder, DType, Literal, Type, Value};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn case(
    types: &[Type],
    units: f64,
    scale: f64,
    what: &str,
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) {
    let f = program(types, build);
    let random = &mut Random::new(7);
    let args: Vec<Literal> = types.iter().map(|t| numbers(random, t)).collect();
    check(&f, &args, units, scale, what);
}

fn f32s(shape: &[usize]) -> Type {
    ty(DType::F32, shape)
}

#[test]
fn elementwise() {
    for dtype in FLOATS {
        for shape in [&[1][..], &[7], &[64, 100], &[3, 5000], &[40_000]] {
            let types = [ty(dtype, shape), ty(dtype, shape)];
            case(&types, 4.0, 4.0, "elementwise", |b, x| {
                let y = b.mul(x[0], x[1]);
                let y = b.add(y, x[0]);
                let z = b.exp(x[1]);
                vec![b.logistic(y), z]
            });
        }
    }
}

#[test]
fn soft_max() {
    for dtype in FLOATS {
        for shape in [[1, 7], [5, 100], [100, 64], [3, 20_011]] {
            case(&[ty(dtype, &shape)], 8.0, 1.0, "softmax", |b, x| {
                let top = b.reduce(ReduceKind::Max, x[0], &[1]);
                let top = b.broadcast_reduced(top, &shape, &[1]);
                let y = b.sub(x[0], top);
                let e = b.exp(y);
                let sum = b.sum(e, &[1]);
                let sum = b.broadcast_reduced(sum, &shape, &[1]);
                vec![b.div(e, sum)]
            });
        }
    }
}

#[test]
fn reductions() {
    for shape in [[1, 7], [50, 33], [1000, 3], [4, 5003]] {
        for dims in [&[0][..], &[1], &[0, 1]] {
            case(&[f32s(&shape)], 64.0, 60.0, "sum", |b, x| vec![b.sum(x[0], dims)]);
            case(&[f32s(&shape)], 1.0, 0.0, "max", |b, x| {
                vec![b.reduce(ReduceKind::Max, x[0], dims)]
            });
        }
    }
}

#[test]
fn transposed() {
    case(&[f32s(&[30, 70]), f32s(&[70, 30])], 1.0, 1.0, "transposed", |b, x| {
        let y = b.transpose(x[0], &[1, 0]);
        vec![b.add(y, x[1])]
    });
    case(&[f32s(&[4, 6, 5, 7])], 0.0, 0.0, "four", |b, x| vec![b.transpose(x[0], &[0, 2, 1, 3])]);
    case(&[f32s(&[4, 6, 5, 7])], 0.0, 0.0, "back", |b, x| vec![b.transpose(x[0], &[3, 1, 2, 0])]);
}

#[test]
fn products() {
    for dtype in FLOATS {
        for [m, n, k] in [[1, 1, 1], [16, 16, 16], [33, 65, 20], [100, 70, 300], [200, 300, 520]] {
            let shapes = [[m, k], [k, m]].map(|s| ty(dtype, &s));
            let others = [[k, n], [n, k]].map(|s| ty(dtype, &s));
            for (i, left) in shapes.iter().enumerate() {
                for (j, right) in others.iter().enumerate() {
                    let types = [left.clone(), right.clone()];
                    let what = format!("product {m} {n} {k}, {i} {j}, {dtype}");
                    case(&types, 16.0, 40.0, &what, |b, x| {
                        vec![b.dot(x[0], x[1], (&[], &[]), (&[1 - i], &[j]))]
                    });
                }
            }
        }
    }
    let types = [f32s(&[2, 3, 20, 40]), f32s(&[2, 3, 40, 24]), f32s(&[24])];
    case(&types, 16.0, 20.0, "batched with an epilogue", |b, x| {
        let y = b.matmul(x[0], x[1]);
        let bias = b.broadcast_trailing(x[2], &[2, 3, 20, 24]);
        let y = b.add(y, bias);
        vec![b.logistic(y)]
    });
}

#[test]
fn gathers_and_scatters() {
    use ferrata_ir::primitive::index::{BadIndex, ScatterKind};
    use ferrata_ir::primitive::{Gather, Primitive, Scatter};
    let one = |op: Primitive, types: &[Type], what: &str| {
        case(types, 2.0, 8.0, what, |b, x| b.emit(op, x));
    };
    for bad in [BadIndex::Clip, BadIndex::Drop] {
        for dtype in [DType::F32, DType::BF16, DType::I64, DType::Bool] {
            let gather = Gather { batch: 0, indexed: 1, bad };
            let types = [ty(dtype, &[9, 20]), ty(DType::I64, &[13, 1])];
            one(gather.into(), &types, "rows");
            let gather = Gather { batch: 1, indexed: 2, bad };
            let types = [ty(dtype, &[2, 3, 4, 5]), ty(DType::I32, &[2, 6, 2])];
            one(gather.into(), &types, "batched");
        }
        for kind in [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min] {
            let scatter = Scatter { batch: 0, indexed: 1, kind, bad };
            let types = [f32s(&[9, 5000]), ty(DType::I64, &[13, 1]), f32s(&[13, 5000])];
            one(scatter.clone().into(), &types, "rows");
            let scatter = Scatter { batch: 1, ..scatter };
            let types = [f32s(&[2, 5, 3]), ty(DType::I32, &[2, 7, 1]), f32s(&[2, 7, 3])];
            one(scatter.into(), &types, "batched");
        }
    }
}
