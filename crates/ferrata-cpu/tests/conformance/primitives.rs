//! Primitives that are no loop nest.

use crate::support::{check, f32s, literal, program, ty};
use ferrata_ir::composite::random_normal;
use ferrata_ir::primitive::arg_reduce::Extremum;
use ferrata_ir::primitive::index::{BadIndex, ScatterKind};
use ferrata_ir::primitive::{
    ArgReduce, Concatenate, Cumulative, Dft, DynamicSlice, DynamicUpdate, Factorization, Factorize,
    FoldKey, Gather, Pad, Primitive, RandomBits, ReduceKind, Scatter, Slice, Sort, TopK,
    TriangularSolve,
};
use ferrata_ir::testing::Random;
use ferrata_ir::{DType, Literal, Scalar, Type};

/// One primitive on operands of these types, those at `indices` being below `limit` or a little
/// outside; with plain numbers, and with NaN, infinities and denormals among them.
fn case(op: impl Into<Primitive>, types: &[Type], indices: &[usize], limit: i64, what: &str) {
    let op = op.into();
    let f = program(types, |b, x| b.emit(op, x));
    for special in [false, true] {
        let random = &mut Random::new(11);
        let operand = |(i, t): (usize, &Type)| {
            if indices.contains(&i) {
                let draw = |random: &mut Random| random.between(0, limit as usize + 2) as i64 - 1;
                Literal::build(t.clone(), |_| Scalar::Int(draw(random)))
            } else {
                literal(random, t, special)
            }
        };
        let args: Vec<Literal> = types.iter().enumerate().map(operand).collect();
        check(&f, &args, 8.0, 4.0, &format!("{what} {types:?}"));
    }
}

const INDEX: [DType; 2] = [DType::I64, DType::I32];

/// Rows of an operand, positions in it, elements of a row.
const ROWS: [[usize; 3]; 5] = [[9, 21, 20], [1, 1, 1], [0, 3, 4], [3, 0, 4], [3, 5, 0]];

#[test]
fn gather() {
    for dtype in DType::ALL {
        for index in INDEX {
            for bad in [BadIndex::Clip, BadIndex::Drop] {
                for [rows, positions, slice] in ROWS {
                    let gather = Gather { batch: 0, indexed: 1, bad };
                    let types = [ty(dtype, &[rows, slice]), ty(index, &[positions, 1])];
                    case(gather, &types, &[1], rows as i64, "rows");
                }
                for batch in [0, 1, 2] {
                    let gather = Gather { batch: 1, indexed: 2, bad };
                    let types = [ty(dtype, &[batch, 3, 4, 2]), ty(index, &[batch, 5, 2])];
                    case(gather, &types, &[1], 3, "batched");
                }
            }
        }
    }
}

#[test]
fn scatter() {
    let kinds = [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min];
    for dtype in DType::ALL {
        for kind in kinds.into_iter().filter(|&k| dtype != DType::Bool || k == ScatterKind::Set) {
            for (index, bad) in INDEX.into_iter().zip([BadIndex::Clip, BadIndex::Drop]) {
                for [rows, positions, slice] in ROWS {
                    let scatter = Scatter { batch: 0, indexed: 1, kind, bad };
                    let types = [
                        ty(dtype, &[rows, slice]),
                        ty(index, &[positions, 1]),
                        ty(dtype, &[positions, slice]),
                    ];
                    case(scatter, &types, &[1], rows as i64, "rows");
                }
                for batch in [0, 1, 2] {
                    let scatter = Scatter { batch: 1, indexed: 1, kind, bad };
                    let updates = ty(dtype, &[batch, 50]);
                    let types = [ty(dtype, &[batch, 3]), ty(index, &[batch, 50, 1]), updates];
                    case(scatter, &types, &[1], 3, "elements");
                }
            }
        }
    }
}

#[test]
fn scatter_of_more_updates_than_a_task_takes() {
    let scatter = Scatter { batch: 0, indexed: 1, kind: ScatterKind::Max, bad: BadIndex::Drop };
    let n = 70_000;
    let types = [f32s(&[9, 2]), ty(DType::I32, &[n, 1]), f32s(&[n, 2])];
    case(scatter, &types, &[1], 9, "many");
}

#[test]
fn windows() {
    for dtype in DType::ALL {
        for index in INDEX {
            for [rows, columns] in [[5, 8], [1, 1], [0, 8], [5, 0]] {
                let window = vec![rows / 2, columns, 2];
                let types = [ty(dtype, &[rows, columns, 3]), ty(index, &[3])];
                case(DynamicSlice { sizes: window.clone() }, &types, &[1], 9, "slice");
                let [x, starts] = types;
                case(DynamicUpdate {}, &[x, ty(dtype, &window), starts], &[2], 9, "update");
            }
        }
        for columns in [6, 1, 0] {
            let pad = Pad { low: vec![2, -1], high: vec![-2, 3], interior: vec![0, 2] };
            case(pad, &[ty(dtype, &[5, columns]), ty(dtype, &[])], &[], 0, "pad");
        }
        for sizes in [[2, 5, 1], [0, 1, 0], [0, 0, 0]] {
            let parts = sizes.map(|n| ty(dtype, &[3, n, 4]));
            case(Concatenate { dim: 1 }, &parts, &[], 0, "concatenate");
        }
    }
}

#[test]
fn order() {
    let shapes = [
        (vec![4, 30], 1),
        (vec![30, 4], 0),
        (vec![3, 400, 2], 1),
        (vec![3, 1], 1),
        (vec![0, 4], 1),
        (vec![4, 0], 1),
    ];
    for dtype in DType::ALL {
        for (shape, dim) in &shapes {
            let (dim, length) = (*dim, shape[*dim]);
            let x = [ty(dtype, shape)];
            for descending in [false, true] {
                case(Sort { dim, descending }, &x, &[], 0, "sort");
                case(TopK { k: length.min(5), dim, largest: descending }, &x, &[], 0, "top_k");
                case(TopK { k: 0, dim, largest: descending }, &x, &[], 0, "top_k");
            }
            // Nothing is the largest of nothing.
            if dtype != DType::Bool && length > 0 {
                for kind in [Extremum::Max, Extremum::Min] {
                    case(ArgReduce { kind, dim }, &x, &[], 0, "arg_reduce");
                }
            }
        }
    }
}

#[test]
fn running_reductions() {
    for dtype in DType::ALL {
        for kind in [ReduceKind::Sum, ReduceKind::Product, ReduceKind::Max, ReduceKind::And] {
            if kind.accepts(dtype).is_err() {
                continue;
            }
            for (dim, reverse) in [(0, false), (1, true), (1, false), (2, true)] {
                for shape in [[3, 17, 5], [1, 1, 1], [0, 3, 2], [3, 0, 2], [3, 2, 0]] {
                    let op = Cumulative { kind, dim, reverse };
                    case(op, &[ty(dtype, &shape)], &[], 0, "cumulative");
                }
            }
        }
    }
}

#[test]
fn factorisations_and_triangular_systems() {
    let shapes: [&[usize]; 9] = [
        &[3, 3],
        &[1, 1],
        &[0, 0],
        &[40, 40],
        &[2, 3, 5, 5],
        &[0, 4, 4],
        &[3, 20, 7],
        &[7, 20],
        &[2, 0, 3],
    ];
    for dtype in [DType::F32, DType::F64] {
        for shape in shapes {
            let [.., m, n] = *shape else { continue };
            let x = [ty(dtype, shape)];
            for kind in [Factorization::Qr, Factorization::Svd] {
                case(Factorize { kind }, &x, &[], 0, &format!("{kind:?}"));
            }
            if m != n {
                continue;
            }
            for kind in [Factorization::Cholesky, Factorization::Lu, Factorization::Eigh] {
                case(Factorize { kind }, &x, &[], 0, &format!("{kind:?}"));
            }
            for (lower, unit) in [(true, false), (false, false), (true, true), (false, true)] {
                for columns in [1, 5, 0] {
                    let right = [&shape[..shape.len() - 1], &[columns]].concat();
                    let types = [x[0].clone(), ty(dtype, &right)];
                    case(TriangularSolve { lower, unit }, &types, &[], 0, "triangular_solve");
                }
            }
        }
    }
}

/// Lengths of all radices, of large primes, of none.
#[test]
fn fourier_transforms() {
    let lengths = [0, 1, 2, 3, 4, 5, 7, 8, 12, 13, 30, 64, 77, 17, 34, 101, 360, 1024];
    for dtype in [DType::F32, DType::F64] {
        for n in lengths {
            for inverse in [false, true] {
                let f = program(&[ty(dtype, &[3, n, 2])], |b, x| {
                    // A line in memory, and one across.
                    let y = b.emit1(Dft { inverse }, &[x[0]]);
                    let x = b.transpose(x[0], &[1, 0, 2]);
                    vec![y, b.emit1(Dft { inverse }, &[x])]
                });
                let x = literal(&mut Random::new(n as u64), &ty(dtype, &[3, n, 2]), false);
                // The reference adds `n` terms one after the other.
                check(&f, &[x], 8.0, n as f64, &format!("{dtype} {n}"));
            }
        }
    }
    case(Dft { inverse: false }, &[f32s(&[0, 4, 2])], &[], 0, "dft");
}

/// Positive definite and transposed matrices, and factors of factors.
#[test]
fn factors_of_views() {
    for dtype in [DType::F32, DType::F64] {
        let f = program(&[ty(dtype, &[3, 6, 5])], |b, x| {
            let xt = b.matrix_transpose(x[0]);
            let square = b.matmul(xt, x[0]);
            let l = b.emit1(Factorize { kind: Factorization::Cholesky }, &[square]);
            let upper = b.matrix_transpose(l);
            let rest = b.slice_dim(xt, 2, 1, 4);
            let solved = b.solve_triangular(upper, rest, false, false);
            let svd = b.emit(Factorize { kind: Factorization::Svd }, &[xt]);
            [vec![l, solved], svd].concat()
        });
        let x = literal(&mut Random::new(3), &ty(dtype, &[3, 6, 5]), false);
        // Products of another order of sums lie below.
        check(&f, &[x], 64.0, 64.0, &format!("{dtype}"));
    }
}

#[test]
fn random_bits_and_keys() {
    for shape in [vec![], vec![0], vec![1], vec![7], vec![100, 33]] {
        for keys in [0, 1, 3] {
            let op = RandomBits { shape: shape.clone() };
            case(op, &[ty(DType::U32, &[keys, 2])], &[], 0, "random_bits");
        }
    }
    case(RandomBits { shape: vec![70_001] }, &[ty(DType::U32, &[2])], &[], 0, "random_bits");
    for n in [0, 1, 3] {
        case(FoldKey {}, &[ty(DType::U32, &[n, 2]), ty(DType::U32, &[n])], &[], 0, "fold_key");
    }
}

/// Operands that begin at odd places, with gaps between their elements.
#[test]
fn operands_at_odd_places() {
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::I64, DType::U8, DType::Bool] {
        let types = [ty(dtype, &[21, 75]), ty(DType::I64, &[7, 3])];
        let f = program(&types, |b, x| {
            let s = Slice { start: vec![1, 2], limit: vec![20, 73], stride: vec![2, 3] };
            let y = b.emit1(s, &[x[0]]);
            let i = b.slice_dim(x[1], 1, 1, 2);
            let t = b.transpose(y, &[1, 0]);
            let rows = Gather { batch: 0, indexed: 1, bad: BadIndex::Clip };
            let rows = b.emit1(rows, &[t, i]);
            let set = Scatter { batch: 0, indexed: 1, kind: ScatterKind::Set, bad: BadIndex::Clip };
            let set = b.emit1(set, &[t, i, rows]);
            let sorted = b.emit(Sort { dim: 1, descending: false }, &[t]);
            let joined = b.emit1(Concatenate { dim: 0 }, &[y, y]);
            let kind = if dtype == DType::Bool { ReduceKind::Or } else { ReduceKind::Max };
            let running = b.emit1(Cumulative { kind, dim: 0, reverse: false }, &[y]);
            [vec![rows, set, joined, running], sorted].concat()
        });
        let random = &mut Random::new(7);
        let x = literal(random, &types[0], true);
        let i = Literal::build(types[1].clone(), |i| Scalar::Int(i as i64 % 26));
        check(&f, &[x, i], 0.0, 0.0, &format!("{dtype}"));
    }
}

#[test]
fn random_normal_numbers() {
    let key = Literal::build(ty(DType::U32, &[2]), |i| Scalar::Int(7 + i as i64));
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for shape in [vec![], vec![1], vec![3, 2, 1], vec![5, 13], vec![20_003]] {
            let f = program(&[ty(DType::U32, &[2])], |b, x| {
                vec![random_normal(b, x[0], &ty(dtype, &shape), 0.5)]
            });
            // Angles are rounded, so numbers near 0 have the error of those near 1.
            check(&f, std::slice::from_ref(&key), 8.0, 1.0, &format!("random_normal {dtype}"));
        }
    }
}
