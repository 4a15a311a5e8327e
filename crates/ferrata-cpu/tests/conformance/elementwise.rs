//! Every elementwise operation and cast, on every dtype, in every layout.

use crate::support::{check, literal, program, small, ty};
use ferrata_ir::primitive::elementwise::{self, ElementwiseOp, Signature};
use ferrata_ir::primitive::{Elementwise, Primitive, Reverse, Slice};
use ferrata_ir::testing::Random;
use ferrata_ir::{Builder, DType, Literal, Type, Value};

/// How an operand of shape `[rows, columns]` lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Contiguous,
    Transposed,
    /// One element for each row, each column, or for all.
    Rows,
    Columns,
    Scalar,
    /// Every second row, columns from an odd place on.
    Sliced,
    Reversed,
}

const LAYOUTS: [Layout; 7] = [
    Layout::Contiguous,
    Layout::Transposed,
    Layout::Rows,
    Layout::Columns,
    Layout::Scalar,
    Layout::Sliced,
    Layout::Reversed,
];

impl Layout {
    fn stored(self, dtype: DType, [r, c]: [usize; 2]) -> Type {
        match self {
            Layout::Contiguous | Layout::Reversed => ty(dtype, &[r, c]),
            Layout::Transposed => ty(dtype, &[c, r]),
            Layout::Rows => ty(dtype, &[r]),
            Layout::Columns => ty(dtype, &[c]),
            Layout::Scalar => ty(dtype, &[]),
            Layout::Sliced => ty(dtype, &[2 * r, c + 4]),
        }
    }

    fn view(self, b: &mut Builder, x: Value, [r, c]: [usize; 2]) -> Value {
        match self {
            Layout::Contiguous => x,
            Layout::Transposed => b.transpose(x, &[1, 0]),
            Layout::Rows => b.broadcast(x, &[r, c], &[0]),
            Layout::Columns => b.broadcast(x, &[r, c], &[1]),
            Layout::Scalar => b.broadcast(x, &[r, c], &[]),
            Layout::Sliced => {
                let op = Slice { start: vec![0, 3], limit: vec![2 * r, c + 3], stride: vec![2, 1] };
                b.emit1(op, &[x])
            }
            Layout::Reversed => b.emit1(Reverse { dims: vec![0, 1] }, &[x]),
        }
    }
}

fn dtypes(signature: Signature, dtype: DType) -> Option<Vec<DType>> {
    let n = signature.operands();
    let ok = match signature {
        Signature::Float(_) | Signature::Test => dtype.is_float(),
        Signature::Number(_) => dtype != DType::Bool,
        Signature::Bits(_) => !dtype.is_float(),
        Signature::Bool(_) => dtype == DType::Bool,
        Signature::Compare | Signature::Select => true,
    };
    let mut list = vec![dtype; n];
    if signature == Signature::Select {
        list[0] = DType::Bool;
    }
    ok.then_some(list)
}

/// Operations whose f32 error the mathematics module states, and those of f64 that go through the
/// standard library or a series.
fn units(op: &ElementwiseOp, dtype: DType) -> f64 {
    let simple = ["lgamma", "digamma", "erf_inv", "erfinv"].contains(&op.name);
    match (dtype, simple) {
        (DType::F64, true) => 1e5,
        (DType::F64, _) => 64.0,
        (_, true) => 16.0,
        _ => 3.0,
    }
}

fn case(
    op: &'static ElementwiseOp,
    dtype: DType,
    layouts: &[Layout],
    shape: [usize; 2],
    special: bool,
) {
    let Some(dtypes) = dtypes(op.signature, dtype) else { return };
    let layout = |i: usize| layouts[i % layouts.len()];
    let types: Vec<Type> =
        dtypes.iter().enumerate().map(|(i, &d)| layout(i).stored(d, shape)).collect();
    let f = program(&types, |b, args| {
        let views: Vec<Value> =
            args.iter().enumerate().map(|(i, &x)| layout(i).view(b, x, shape)).collect();
        b.emit(Elementwise(op), &views)
    });
    let random = &mut Random::new(shape[1] as u64 + 7);
    let args: Vec<Literal> = types.iter().map(|t| literal(random, t, special)).collect();
    // A remainder of a rounded quotient is exact; close to 0, the sine of a large angle is not.
    let scale = if op.name == "digamma" || op.name == "lgamma" { 1.0 } else { 0.0 };
    let what = format!("{} {dtype} {layouts:?} {shape:?}", op.name);
    check(&f, &args, units(op, dtype), scale, &what);
}

#[test]
fn every_operation_and_dtype() {
    for op in elementwise::all() {
        for dtype in DType::ALL {
            let special = !["lgamma", "digamma"].contains(&op.name);
            for shape in [[5, 67], [1, 1], [0, 3]] {
                case(op, dtype, &[Layout::Contiguous], shape, special);
            }
        }
    }
}

#[test]
fn every_layout_of_each_operand() {
    let pick = ["neg", "add", "lt", "select", "exp"];
    for op in elementwise::all().filter(|o| pick.contains(&o.name)) {
        for dtype in [DType::F32, DType::BF16, DType::I64, DType::U8] {
            for first in LAYOUTS {
                for second in LAYOUTS {
                    case(op, dtype, &[first, second], [9, 70], false);
                }
            }
        }
    }
}

#[test]
fn sizes_from_nothing_to_several_tasks() {
    let pick = ["sub", "select"];
    for op in elementwise::all().filter(|o| pick.contains(&o.name)) {
        for shape in [
            [0, 0],
            [0, 70],
            [9, 0],
            [1, 1],
            [1, 5000],
            [5000, 1],
            [3, 20_001],
            [700, 65],
            [40, 384],
        ] {
            for layouts in
                [[Layout::Contiguous; 2], [Layout::Transposed, Layout::Rows], [Layout::Sliced; 2]]
            {
                case(op, DType::F32, &layouts, shape, false);
            }
        }
    }
}

#[test]
fn every_cast() {
    for from in DType::ALL {
        for to in DType::ALL {
            for shape in [[3, 50], [1, 1], [2, 0]] {
                let t = ty(from, &shape);
                let f = program(std::slice::from_ref(&t), |b, x| vec![b.cast(x[0], to)]);
                let args = [literal(&mut Random::new(5), &t, true)];
                check(&f, &args, 0.0, 0.0, &format!("{from} to {to}"));
            }
        }
    }
}

#[test]
fn strided_moves_of_every_dtype() {
    for dtype in DType::ALL {
        let t = ty(dtype, &[3, 70, 5]);
        let f = program(std::slice::from_ref(&t), |b, x| {
            let a = b.transpose(x[0], &[2, 1, 0]);
            let c = b.transpose(x[0], &[1, 2, 0]);
            let d = b.slice_dim(x[0], 1, 3, 64);
            let d = b.emit1(Primitive::from(Reverse { dims: vec![2] }), &[d]);
            vec![a, c, d]
        });
        check(&f, &[literal(&mut Random::new(3), &t, true)], 0.0, 0.0, &format!("{dtype}"));
    }
}

#[test]
fn indices_count_along_any_dimension() {
    for dtype in DType::ALL.into_iter().filter(|&d| d != DType::Bool) {
        let shape = [3, 4, 33];
        let f = program(&[ty(dtype, &shape)], |b, x| {
            let mut y = x[0];
            for dim in 0..3 {
                let i = b.iota(ty(dtype, &shape), dim);
                y = b.add(y, i);
            }
            let t = b.transpose(y, &[2, 0, 1]);
            vec![y, t]
        });
        let args = [small(&mut Random::new(3), &ty(dtype, &shape))];
        check(&f, &args, 3.0, 64.0, &format!("{dtype}"));
    }
    let f = program(&[], |b, _| {
        let index = b.iota(ty(DType::Bool, &[5, 3]), 0);
        vec![b.cast(index, DType::I64), index]
    });
    check(&f, &[], 0.0, 0.0, "truths");
}
