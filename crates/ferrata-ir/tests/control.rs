//! Scans, branches and running reductions: values by hand, derivatives and batching by checks.

use ferrata_ir::primitive::{Cond, Cumulative, ReduceKind, Save, Scan};
use ferrata_ir::testing::{
    Random, check_batch, check_gradient, check_second_derivative, evaluate, function_of,
};
use ferrata_ir::{Builder, DType, Function, Literal, Type};
use std::sync::Arc;

fn f64s(shape: &[usize]) -> Type {
    Type::new(DType::F64, shape)
}

/// `h <- tanh(h w + x)`, giving `h²` at every step; a second carry counts steps.
fn cell() -> Arc<Function> {
    let mut b = Builder::new("cell");
    let w = b.parameter(f64s(&[2, 2]));
    let h = b.parameter(f64s(&[1, 2]));
    let n = b.parameter(Type::scalar(DType::I64));
    let x = b.parameter(f64s(&[1, 2]));
    let doubled = b.exp(w);
    let s = b.matmul(h, doubled);
    let s = b.add(s, x);
    let h = b.tanh(s);
    let one = b.full_like(n, 1.0);
    let n = b.add(n, one);
    let square = b.mul(h, h);
    let count = b.cast(n, DType::F64);
    let count = b.broadcast(count, &[1, 2], &[]);
    let y = b.mul(square, count);
    Arc::new(b.finish(&[h, n, y]).unwrap())
}

fn recurrent(length: usize, reverse: bool, save: Save) -> (Arc<Function>, Vec<Literal>) {
    let random = &mut Random::new(7);
    let args = vec![
        random.literal(&f64s(&[2, 2])),
        random.literal(&f64s(&[1, 2])),
        random.literal(&Type::scalar(DType::I64)),
        random.literal(&f64s(&[length, 1, 2])),
    ];
    let op = Scan { body: cell(), constants: 1, carries: 2, length, reverse, save };
    (function_of(&args, |b, x| b.emit(op, x)).unwrap(), args)
}

const SAVES: [Save; 5] = [Save::All, Save::Every(1), Save::Every(2), Save::Every(9), Save::None];

#[test]
fn scan_equals_its_unrolling() {
    for reverse in [false, true] {
        let (f, args) = recurrent(3, reverse, Save::All);
        let unrolled = function_of(&args, |b, x| {
            let (mut h, mut n) = (x[1], x[2]);
            let mut ys = vec![x[1]; 3];
            for i in if reverse { [2, 1, 0] } else { [0, 1, 2] } {
                let slice = b.slice_dim(x[3], 0, i, i + 1);
                let slice = b.reshape(slice, &[1, 2]);
                let out = b.call(&cell(), &[x[0], h, n, slice]);
                (h, n) = (out[0], out[1]);
                ys[i] = b.reshape(out[2], &[1, 1, 2]);
            }
            let y = b.concatenate(&ys, 0);
            vec![h, n, y]
        });
        assert_eq!(evaluate(&f, &args).unwrap(), evaluate(&unrolled.unwrap(), &args).unwrap());
    }
}

#[test]
fn scan_derivatives() {
    for length in [0, 1, 5] {
        for reverse in [false, true] {
            for save in SAVES {
                let (f, args) = recurrent(length, reverse, save);
                let what = |e| panic!("{length} {reverse} {save:?}: {e}");
                check_gradient(&f, &args, 1).unwrap_or_else(what);
                check_second_derivative(&f, &args, 2).unwrap_or_else(what);
            }
        }
    }
}

#[test]
fn scan_batches_only_what_differs() {
    let (f, args) = recurrent(4, true, Save::All);
    for marks in 1..16 {
        let batched: Vec<bool> = (0..4).map(|i| marks >> i & 1 == 1).collect();
        check_batch(&f, &args, &batched, 3, 5).unwrap_or_else(|e| panic!("{batched:?}: {e}"));
    }
    let batched = ferrata_ir::transform::vmap(&f, &[false, false, false, true], 3).unwrap();
    let scan = batched.nodes().iter().find(|n| n.op.name() == "scan").unwrap();
    assert_eq!(batched.ty(scan.outputs[1]).shape, [] as [usize; 0], "the counter is shared");
}

#[test]
fn invariant_residuals_are_not_stacked() {
    let (f, _) = recurrent(5, false, Save::All);
    let g = ferrata_ir::transform::vjp(&f, &[true, true, false, true]).unwrap();
    let forward = g.nodes().iter().find(|n| n.op.name() == "scan").unwrap();
    let stacked: Vec<_> = forward.outputs.iter().map(|&v| g.ty(v).shape.clone()).collect();
    assert!(!stacked.contains(&vec![5, 2, 2]), "exp(w) is stacked: {stacked:?}");
}

fn branches() -> (Arc<Function>, Vec<Literal>) {
    let types = [f64s(&[3]), f64s(&[3]), f64s(&[2])];
    let branch = |yes: bool| {
        let mut b = Builder::new(if yes { "yes" } else { "no" });
        let p = b.parameters(&types);
        let e = if yes { b.exp(p[0]) } else { b.sin(p[1]) };
        let y = b.mul(e, p[0]);
        let z = if yes { p[2] } else { b.zeros_like(p[2]) };
        Arc::new(b.finish(&[y, z]).unwrap())
    };
    let random = &mut Random::new(3);
    let mut args = vec![Literal::int(Type::scalar(DType::Bool), vec![1])];
    args.extend(types.iter().map(|t| random.literal(t)));
    let op = Cond { branches: [branch(true), branch(false)] };
    (function_of(&args, |b, x| b.emit(op, x)).unwrap(), args)
}

#[test]
fn branch_derivatives_and_batches() {
    let (f, mut args) = branches();
    for condition in [0, 1] {
        args[0] = Literal::int(Type::scalar(DType::Bool), vec![condition]);
        check_gradient(&f, &args, 1).unwrap();
        check_second_derivative(&f, &args, 2).unwrap();
        for marks in 1..16 {
            let batched: Vec<bool> = (0..4).map(|i| marks >> i & 1 == 1).collect();
            check_batch(&f, &args, &batched, 3, 5).unwrap_or_else(|e| panic!("{batched:?}: {e}"));
        }
    }
}

#[test]
fn a_branch_inside_a_scan() {
    let mut b = Builder::new("step");
    let h = b.parameter(f64s(&[3]));
    let x = b.parameter(f64s(&[2]));
    let first = b.slice_dim(x, 0, 0, 1);
    let first = b.reshape(first, &[]);
    let zero = b.zeros_like(first);
    let positive = b.gt(first, zero);
    let (f, _) = branches();
    let cond = f.nodes()[0].op.clone();
    let out = b.emit(cond, &[positive, h, h, x]);
    let h = b.tanh(out[0]);
    let body = Arc::new(b.finish(&[h, out[1]]).unwrap());
    let random = &mut Random::new(11);
    let args = [random.literal(&f64s(&[3])), random.literal(&f64s(&[6, 2]))];
    for save in SAVES {
        let op =
            Scan { body: body.clone(), constants: 0, carries: 1, length: 6, reverse: false, save };
        let f = function_of(&args, |b, x| b.emit(op, x)).unwrap();
        check_gradient(&f, &args, 1).unwrap();
        check_second_derivative(&f, &args, 2).unwrap();
        check_batch(&f, &args, &[false, true], 2, 5).unwrap();
    }
}

#[test]
fn running_products_and_extrema() {
    let x = Literal::float(f64s(&[2, 4]), vec![0.5, 0.0, 2.0, -1.5, 3.0, 0.0, 0.0, 1.2]);
    for kind in [ReduceKind::Sum, ReduceKind::Product] {
        for (dim, reverse) in [(0, false), (0, true), (1, false), (1, true)] {
            let op = Cumulative { kind, dim, reverse };
            let args = std::slice::from_ref(&x);
            let f = function_of(args, |b, x| b.emit(op, x)).unwrap();
            check_gradient(&f, args, 1).unwrap();
            check_second_derivative(&f, args, 2).unwrap();
        }
    }
    // The latest among equals gets the gradient.
    let x = Literal::float(f64s(&[4]), vec![1.0, 2.0, 2.0, 0.0]);
    let cases = [(false, [1.0, 1.0, 2.0, 0.0]), (true, [0.0, 2.0, 1.0, 1.0])];
    for (reverse, want) in cases {
        let op = Cumulative { kind: ReduceKind::Max, dim: 0, reverse };
        let args = std::slice::from_ref(&x);
        let f = function_of(args, |b, x| {
            let y = b.emit1(op, x);
            vec![b.sum(y, &[0])]
        });
        let g = ferrata_ir::transform::value_and_grad(&f.unwrap(), &[true]).unwrap();
        assert_eq!(evaluate(&g, args).unwrap()[1].to_f64(), want);
    }
}
