//! Primitives that are no loop nest.

use crate::support::{check, literal, program, ty};
use ferrata_ir::primitive::arg_reduce::Extremum;
use ferrata_ir::primitive::index::{BadIndex, ScatterKind};
use ferrata_ir::primitive::{
    ArgReduce, Concatenate, Cumulative, DynamicSlice, DynamicUpdate, FoldKey, Gather, Pad,
    Primitive, RandomBits, ReduceKind, Scatter, Sort, TopK,
};
use ferrata_ir::testing::Random;
use ferrata_ir::{DType, Literal, Scalar, Type};

/// One primitive on operands of these types, the last ones being indices below `limit`.
fn case(op: impl Into<Primitive>, types: &[Type], indices: &[usize], limit: i64, what: &str) {
    let op = op.into();
    let f = program(types, |b, x| b.emit(op, x));
    let random = &mut Random::new(11);
    let args: Vec<Literal> = types
        .iter()
        .enumerate()
        .map(|(i, t)| {
            if indices.contains(&i) {
                let draw = |random: &mut Random| random.between(0, limit as usize + 2) as i64 - 1;
                Literal::build(t.clone(), |_| Scalar::Int(draw(random)))
            } else {
                literal(random, t, false)
            }
        })
        .collect();
    check(&f, &args, 8.0, 4.0, &format!("{what} {types:?}"));
}

const INDEX: [DType; 2] = [DType::I64, DType::I32];

#[test]
fn gather_and_scatter() {
    for dtype in DType::ALL {
        for index in INDEX {
            for bad in [BadIndex::Clip, BadIndex::Drop] {
                let gather = Gather { batch: 0, indexed: 1, bad };
                let types = [ty(dtype, &[9, 20]), ty(index, &[3, 7, 1])];
                case(gather, &types, &[1], 9, "rows");
                let gather = Gather { batch: 1, indexed: 2, bad };
                let types = [ty(dtype, &[2, 3, 4, 2]), ty(index, &[2, 5, 2])];
                case(gather, &types, &[1], 3, "batched");
                for kind in [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min]
                {
                    if dtype == DType::Bool && kind != ScatterKind::Set {
                        continue;
                    }
                    let scatter = Scatter { batch: 0, indexed: 1, kind, bad };
                    let types =
                        [ty(dtype, &[9, 20]), ty(index, &[3, 7, 1]), ty(dtype, &[3, 7, 20])];
                    case(scatter, &types, &[1], 9, "rows");
                    let scatter = Scatter { batch: 1, indexed: 1, kind, bad };
                    let types = [ty(dtype, &[2, 3]), ty(index, &[2, 50, 1]), ty(dtype, &[2, 50])];
                    case(scatter, &types, &[1], 3, "elements");
                }
            }
        }
    }
}

#[test]
fn windows() {
    for dtype in DType::ALL {
        for index in INDEX {
            let types = [ty(dtype, &[5, 8, 3]), ty(index, &[3])];
            case(DynamicSlice { sizes: vec![2, 8, 2] }, &types, &[1], 9, "slice");
            let types = [ty(dtype, &[5, 8, 3]), ty(dtype, &[2, 8, 2]), ty(index, &[3])];
            case(DynamicUpdate {}, &types, &[2], 9, "update");
        }
        let pad = Pad { low: vec![2, -1], high: vec![-2, 3], interior: vec![0, 2] };
        case(pad, &[ty(dtype, &[5, 6]), ty(dtype, &[])], &[], 0, "pad");
        let parts = [ty(dtype, &[3, 2, 4]), ty(dtype, &[3, 5, 4]), ty(dtype, &[3, 1, 4])];
        case(Concatenate { dim: 1 }, &parts, &[], 0, "concatenate");
    }
}

#[test]
fn order() {
    for dtype in DType::ALL {
        for (shape, dim) in [(vec![4, 30], 1), (vec![30, 4], 0), (vec![3, 400, 2], 1)] {
            let x = [ty(dtype, &shape)];
            for descending in [false, true] {
                case(Sort { dim, descending }, &x, &[], 0, "sort");
                case(TopK { k: 5, dim, largest: descending }, &x, &[], 0, "top_k");
            }
            if dtype != DType::Bool {
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
        for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::And] {
            if kind.accepts(dtype).is_err() {
                continue;
            }
            for (dim, reverse) in [(0, false), (1, true), (1, false), (2, true)] {
                let op = Cumulative { kind, dim, reverse };
                case(op, &[ty(dtype, &[3, 17, 5])], &[], 0, "cumulative");
            }
        }
    }
}

#[test]
fn random_bits_and_keys() {
    for shape in [vec![], vec![1], vec![7], vec![100, 33]] {
        case(RandomBits { shape }, &[ty(DType::U32, &[3, 2])], &[], 0, "random_bits");
    }
    case(RandomBits { shape: vec![70_001] }, &[ty(DType::U32, &[2])], &[], 0, "random_bits");
    case(FoldKey {}, &[ty(DType::U32, &[3, 2]), ty(DType::U32, &[3])], &[], 0, "fold_key");
}
