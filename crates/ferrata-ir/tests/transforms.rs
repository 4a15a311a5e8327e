//! Derivatives and batching against finite differences and loops.

use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::primitive::elementwise::{
    Derivative, ElementwiseOp, Kernel, Reference, ScalarOp, Signature,
};
use ferrata_ir::transform::{jvp, value_and_grad, vmap};
use ferrata_ir::{Builder, DType, Evaluator, Function, Literal, Precision, Type};
use std::sync::Arc;

fn f64s(shape: &[usize]) -> Type {
    Type::new(DType::F64, shape)
}

fn layer() -> Arc<Function> {
    let mut b = Builder::new("layer");
    let (w, x) = (b.parameter(f64s(&[3, 3])), b.parameter(f64s(&[2, 3])));
    let y = b.matmul(x, w);
    let y = b.tanh(y);
    let y = b.add(x, y);
    Arc::new(b.finish(&[y]).unwrap())
}

/// Two calls of one layer, soft-max-like normalisation, sum of squares.
fn loss(recompute: bool) -> Arc<Function> {
    let layer = layer();
    let mut b = Builder::new("loss");
    let w0 = b.parameter(f64s(&[3, 3]));
    let w1 = b.parameter(f64s(&[3, 3]));
    let mut x = b.parameter(f64s(&[2, 3]));
    for w in [w0, w1] {
        let call = ferrata_ir::primitive::Call { function: layer.clone(), recompute };
        x = b.emit1(call, &[w, x]);
    }
    let top = b.reduce(ReduceKind::Max, x, &[1]);
    let top = b.broadcast_reduced(top, &[2, 3], &[1]);
    let x = b.sub(x, top);
    let e = b.exp(x);
    let s = b.sum(e, &[1]);
    let s = b.log(s);
    let l = b.sum(s, &[0]);
    Arc::new(b.finish(&[l]).unwrap())
}

fn arguments() -> Vec<Literal> {
    let values = |n: usize, k: f64| (0..n).map(|i| ((i as f64 + 1.3) * k).sin()).collect();
    vec![
        Literal::float(f64s(&[3, 3]), values(9, 0.7)),
        Literal::float(f64s(&[3, 3]), values(9, 1.1)),
        Literal::float(f64s(&[2, 3]), values(6, 2.3)),
    ]
}

fn run(f: &Function, args: &[Literal]) -> Vec<Literal> {
    Evaluator::new(Precision::Exact).call(f, &args.iter().collect::<Vec<_>>()).unwrap()
}

fn nudged(args: &[Literal], which: usize, i: usize, by: f64) -> Vec<Literal> {
    let mut args = args.to_vec();
    let mut v = args[which].to_f64();
    v[i] += by;
    args[which] = Literal::float(args[which].ty.clone(), v);
    args
}

fn check_gradient(f: &Arc<Function>, args: &[Literal]) {
    let wrt = vec![true; args.len()];
    let g = value_and_grad(f, &wrt).unwrap();
    let grads = run(&g, args);
    for which in 0..args.len() {
        for i in 0..args[which].ty.elements() {
            let h = 1e-5;
            let up = run(f, &nudged(args, which, i, h))[0].to_f64()[0];
            let down = run(f, &nudged(args, which, i, -h))[0].to_f64()[0];
            let want = (up - down) / (2.0 * h);
            let got = grads[1 + which].to_f64()[i];
            assert!((got - want).abs() < 1e-7 * (1.0 + want.abs()), "{which} {i}: {got} {want}");
        }
    }
}

#[test]
fn gradient_through_repeated_calls() {
    check_gradient(&loss(false), &arguments());
}

#[test]
fn gradient_with_recomputation() {
    check_gradient(&loss(true), &arguments());
}

#[test]
fn second_derivative() {
    // d/dx of the squared norm of the gradient.
    for recompute in [false, true] {
        let wrt = vec![true; 3];
        let g = Arc::new(value_and_grad(&loss(recompute), &wrt).unwrap());
        let mut b = Builder::new("norm");
        let args: Vec<_> =
            g.parameter_types().into_iter().map(|t| b.parameter(t.clone())).collect();
        let r = b.call(&g, &args);
        let square = b.mul(r[1], r[1]);
        let n = b.sum(square, &[0, 1]);
        check_gradient(&Arc::new(b.finish(&[n]).unwrap()), &arguments());
    }
}

#[test]
fn forward_mode_agrees_with_reverse_mode() {
    let f = loss(false);
    let j = jvp(&f, &[true, true, true]).unwrap();
    let args = arguments();
    let mut both = args.clone();
    both.extend(args.clone());
    let tangent = run(&j, &both)[1].to_f64()[0];
    let grads = run(&value_and_grad(&f, &[true; 3]).unwrap(), &args);
    let inner: f64 = (0..3)
        .map(|i| -> f64 {
            grads[1 + i].to_f64().iter().zip(args[i].to_f64()).map(|(g, x)| g * x).sum()
        })
        .sum();
    assert!((tangent - inner).abs() < 1e-12, "{tangent} {inner}");
}

#[test]
fn per_example_gradients() {
    let f = loss(false);
    let g = Arc::new(value_and_grad(&f, &[true, true, false]).unwrap());
    let many = vmap(&g, &[false, false, true], 4).unwrap();
    let mut args = arguments();
    let xs: Vec<f64> = (0..24).map(|i| (i as f64 * 0.37).cos()).collect();
    args[2] = Literal::float(f64s(&[4, 2, 3]), xs.clone());
    let all = run(&many, &args);
    for n in 0..4 {
        args[2] = Literal::float(f64s(&[2, 3]), xs[n * 6..][..6].to_vec());
        let one = run(&g, &args);
        for (a, o) in all.iter().zip(&one) {
            let k = o.ty.elements();
            let (a, o) = (a.to_f64(), o.to_f64());
            for i in 0..k {
                assert!((a[n * k + i] - o[i]).abs() < 1e-12);
            }
        }
    }
}

/// An elementwise operation without a derivative.
static MYSTERY: ElementwiseOp = ElementwiseOp {
    name: "mystery",
    signature: Signature::Float(1),
    reference: Reference::Float(|x| x[0].fract()),
    derivative: Derivative::Unsupported("nobody knows it"),
    kernel: Kernel::Op(ScalarOp::Neg),
};

#[test]
fn missing_derivative_names_primitive_and_scope() {
    let mut b = Builder::new("f");
    let x = b.parameter(f64s(&[3]));
    b.set_origin(ferrata_ir::Origin { scope: "layers.3".into(), location: None });
    let y = b.apply(&MYSTERY, &[x]);
    let y = b.sum(y, &[0]);
    let f = Arc::new(b.finish(&[y]).unwrap());
    let e = value_and_grad(&f, &[true]).unwrap_err().to_string();
    assert!(e.starts_with("mystery(f64[3]): has no derivative"), "{e}");
    assert!(e.contains("in scope layers.3"), "{e}");
}
