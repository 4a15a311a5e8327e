//! Gather, scatter and their relatives on small cases worked out by hand.

use ferrata_ir::primitive::{BadIndex, Extremum, Gather, Scatter, ScatterKind};
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Evaluator, Function, Literal, Precision, Type, Value};
use std::sync::Arc;

fn floats(shape: &[usize], x: &[f64]) -> Literal {
    Literal::float(Type::new(DType::F64, shape), x.to_vec())
}

fn indices(shape: &[usize], x: &[i64]) -> Literal {
    Literal::int(Type::new(DType::I64, shape), x.to_vec())
}

fn run(args: &[Literal], build: impl FnOnce(&mut Builder, &[Value]) -> Value) -> Vec<f64> {
    let (f, _) = function(args, build);
    let args: Vec<_> = args.iter().collect();
    Evaluator::new(Precision::Exact).call(&f, &args).unwrap()[0].to_f64()
}

fn function(
    args: &[Literal],
    build: impl FnOnce(&mut Builder, &[Value]) -> Value,
) -> (Function, Type) {
    let mut b = Builder::new("f");
    let x: Vec<Value> = args.iter().map(|a| b.parameter(a.ty.clone())).collect();
    let y = build(&mut b, &x);
    let ty = b.ty(y).clone();
    (b.finish(&[y]).unwrap(), ty)
}

/// Gradients of `sum(y * [1, 2, 3, ..])` in the float arguments.
fn gradients(
    args: &[Literal],
    build: impl FnOnce(&mut Builder, &[Value]) -> Value,
) -> Vec<Vec<f64>> {
    let (loss, _) = function(args, |b, x| {
        let y = build(b, x);
        let ty = b.ty(y).clone();
        let n = ty.elements();
        let weight = b.iota(Type::new(DType::F64, [n]), 0);
        let weight = b.offset(weight, 1.0);
        let y = b.reshape(y, &[n]);
        let y = b.mul(y, weight);
        b.sum(y, &[0])
    });
    let wrt: Vec<bool> = args.iter().map(|a| a.ty.dtype.is_float()).collect();
    let grad = value_and_grad(&Arc::new(loss), &wrt).unwrap();
    let args: Vec<_> = args.iter().collect();
    let all = Evaluator::new(Precision::Exact).call(&grad, &args).unwrap();
    all[1..].iter().map(Literal::to_f64).collect()
}

#[test]
fn embedding_and_its_gradient() {
    let args = [floats(&[3, 2], &[1., 2., 3., 4., 5., 6.]), indices(&[2, 2], &[2, 0, 2, 9])];
    let take = |bad| move |b: &mut Builder, x: &[Value]| b.take(x[0], x[1], 0, bad);
    assert_eq!(run(&args, take(BadIndex::Drop)), [5., 6., 1., 2., 5., 6., 0., 0.]);
    assert_eq!(run(&args, take(BadIndex::Clip)), [5., 6., 1., 2., 5., 6., 5., 6.]);
    assert_eq!(gradients(&args, take(BadIndex::Drop)), [[3., 4., 0., 0., 6., 8.]]);
    assert_eq!(gradients(&args, take(BadIndex::Clip)), [[3., 4., 0., 0., 13., 16.]]);
}

#[test]
fn take_in_the_middle_and_along() {
    let x: Vec<f64> = (0..12).map(f64::from).collect();
    let args = [floats(&[2, 3, 2], &x), indices(&[2], &[2, 0])];
    let got = run(&args, |b, x| b.take(x[0], x[1], 1, BadIndex::Clip));
    assert_eq!(got, [4., 5., 0., 1., 10., 11., 6., 7.]);
    let args = [floats(&[2, 3], &x[..6]), indices(&[2, 2], &[2, 2, 0, 1])];
    let along = |b: &mut Builder, x: &[Value]| b.take_along(x[0], x[1], 1, BadIndex::Clip);
    assert_eq!(run(&args, along), [2., 2., 3., 4.]);
    assert_eq!(gradients(&args, along), [[0., 0., 3., 3., 4., 0.]]);
}

#[test]
fn gather_with_several_indices() {
    let x: Vec<f64> = (0..12).map(f64::from).collect();
    let args = [floats(&[3, 4], &x), indices(&[2, 2], &[1, 3, 2, 0])];
    let op = Gather { batch: 0, indexed: 2, bad: BadIndex::Clip };
    assert_eq!(run(&args, |b, x| b.emit1(op, x)), [7., 8.]);
}

#[test]
fn scatter_kinds_and_their_gradients() {
    let args = [
        floats(&[4], &[1., 2., 3., 4.]),
        indices(&[5, 1], &[1, 1, 3, 2, 7]),
        floats(&[5], &[9., 2., 4., -1., 8.]),
    ];
    let scatter = |kind| {
        move |b: &mut Builder, x: &[Value]| {
            b.emit1(Scatter { batch: 0, indexed: 1, kind, bad: BadIndex::Drop }, x)
        }
    };
    assert_eq!(run(&args, scatter(ScatterKind::Set)), [1., 2., -1., 4.]);
    assert_eq!(
        gradients(&args, scatter(ScatterKind::Set)),
        [vec![1., 0., 0., 0.], vec![0., 2., 4., 3., 0.]]
    );
    assert_eq!(run(&args, scatter(ScatterKind::Add)), [1., 13., 2., 8.]);
    assert_eq!(
        gradients(&args, scatter(ScatterKind::Add)),
        [vec![1., 2., 3., 4.], vec![2., 2., 4., 3., 0.]]
    );
    // The tie at index 3 is shared between operand and update.
    assert_eq!(run(&args, scatter(ScatterKind::Max)), [1., 9., 3., 4.]);
    assert_eq!(
        gradients(&args, scatter(ScatterKind::Max)),
        [vec![1., 0., 3., 2.], vec![2., 0., 2., 0., 0.]]
    );
    // Here operand and one update tie at index 1.
    assert_eq!(run(&args, scatter(ScatterKind::Min)), [1., 2., -1., 4.]);
    assert_eq!(
        gradients(&args, scatter(ScatterKind::Min)),
        [vec![1., 1., 0., 2.], vec![0., 1., 2., 3., 0.]]
    );
}

#[test]
fn dynamic_windows_move_inside() {
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    let args = [floats(&[2, 3], &x), indices(&[2], &[-4, 2])];
    let slice = |b: &mut Builder, x: &[Value]| b.dynamic_slice(x[0], x[1], &[1, 2]);
    assert_eq!(run(&args, slice), [1., 2.]);
    assert_eq!(gradients(&args, slice), [[0., 1., 2., 0., 0., 0.]]);
    let args = [args[0].clone(), floats(&[1, 2], &[8., 9.]), args[1].clone()];
    let update = |b: &mut Builder, x: &[Value]| b.dynamic_update(x[0], x[1], x[2]);
    assert_eq!(run(&args, update), [0., 8., 9., 3., 4., 5.]);
    assert_eq!(gradients(&args, update), [vec![1., 0., 0., 4., 5., 6.], vec![2., 3.]]);
}

#[test]
fn arg_reduce_takes_the_first_and_nan() {
    let nan = f64::NAN;
    let args = [floats(&[3, 3], &[1., 5., 5., 2., nan, 0., -1., -1., 3.])];
    assert_eq!(run(&args, |b, x| b.arg_reduce(Extremum::Max, x[0], 1)), [1., 1., 2.]);
    assert_eq!(run(&args, |b, x| b.arg_reduce(Extremum::Min, x[0], 1)), [0., 1., 0.]);
    assert_eq!(run(&args, |b, x| b.arg_reduce(Extremum::Min, x[0], 0)), [2., 1., 1.]);
}

#[test]
fn random_bits_do_not_depend_on_the_batch() {
    let keys = Literal::int(Type::new(DType::U32, [2, 2]), vec![1, 2, 3, 4]);
    let many = run(std::slice::from_ref(&keys), |b, x| b.random_bits(x[0], &[3, 3]));
    for k in 0..2 {
        let key = Literal::int(Type::new(DType::U32, [2]), keys.to_i64()[2 * k..][..2].to_vec());
        assert_eq!(run(&[key], |b, x| b.random_bits(x[0], &[9])), many[9 * k..][..9]);
    }
    assert_ne!(many[..9], many[9..]);
}
