use crate::{distance, normal};
use ferrata::{
    DType, Save, ScanOptions, Tensor, checkpoint, cond, custom, grad, jvp, scan, scan_with,
    value_and_grad, vjp, vmap,
};

/// A function of one matrix with a bit of everything.
fn energy(x: &Tensor) -> Tensor {
    let y = x.matmul(&x.t()).softmax(-1);
    (y.matmul(x).tanh() * x.exp()).sum(..)
}

fn by_differences(f: impl Fn(&Tensor) -> Tensor, x: &Tensor) -> Vec<f64> {
    let (values, h) = (x.to_vec::<f64>().unwrap(), 1e-6);
    let at = |i: usize, by: f64| {
        let mut moved = values.clone();
        moved[i] += by;
        f(&Tensor::from_slice(&moved, x.shape())).item::<f64>().unwrap()
    };
    (0..values.len()).map(|i| (at(i, h) - at(i, -h)) / (2.0 * h)).collect()
}

fn check(f: impl Fn(&Tensor) -> Tensor, x: &Tensor) {
    let got = grad(&f)(x).to_vec::<f64>().unwrap();
    for (g, w) in got.iter().zip(by_differences(&f, x)) {
        assert!((g - w).abs() < 1e-6 * (1.0 + w.abs()), "{g} instead of {w}");
    }
}

#[test]
fn gradients_of_first_and_second_order() {
    let x = normal(&[3, 3], 1);
    check(energy, &x);
    check(|x| grad(energy)(x).square().sum(..), &x);
    check(|x| checkpoint(energy)(x).sin(), &x);
}

#[test]
fn hessian_vector_products_agree_both_ways() {
    let (x, v) = (normal(&[3, 3], 2), normal(&[3, 3], 3));
    let (_, forward) = jvp(|x: &Tensor| grad(energy)(x), &x, &v);
    let reverse = grad(|x: &Tensor| (grad(energy)(x) * &v).sum(..))(&x);
    assert!(distance(&forward, &reverse) < 1e-9);
    let (_, pulled) = vjp(|x: &Tensor| grad(energy)(x), &x, &v);
    assert!(distance(&forward, &pulled) < 1e-9);
}

#[test]
fn per_example_gradients_are_those_of_each_example() {
    let xs = normal(&[4, 3, 3], 4);
    let all = vmap(|x: &Tensor| grad(energy)(x))(&xs);
    for i in 0..4 {
        assert!(distance(&all.at(i), &grad(energy)(&xs.at(i))) < 1e-12);
    }
    // A map inside a gradient, and a map of a map.
    let whole = grad(|xs: &Tensor| vmap(energy)(xs).sum(..))(&xs);
    assert!(distance(&all, &whole) < 1e-12);
    let outer =
        vmap(|a: &Tensor| vmap(|b: &Tensor| a * b)(&Tensor::from([1.0f64, 2.0])))(&Tensor::from([
            3.0f64, 4.0,
        ]));
    assert_eq!(outer.to_vec::<f64>().unwrap(), [3.0, 6.0, 4.0, 8.0]);
}

#[test]
fn captured_values_are_constants_of_the_inner_and_variables_of_the_outer_function() {
    let x = Tensor::from(3.0f64);
    // d/dx of x * d/dy (x y²) at y = x: d/dx of 2 x³.
    let slope = grad(|x: &Tensor| grad(|y: &Tensor| x * y.square())(x) * x)(&x);
    assert_eq!(slope.item::<f64>().unwrap(), 6.0 * 9.0);
}

#[test]
fn trees_of_many_kinds() {
    type Parts = (Vec<Tensor>, Option<Tensor>, [Tensor; 2], String, Tensor);
    let parts: Parts = (
        vec![Tensor::from(2.0f64)],
        Some(Tensor::from(3.0f64)),
        [Tensor::from(5.0f64), Tensor::from(7.0f64)],
        "setting".into(),
        Tensor::from(1i64),
    );
    let (value, slope) = value_and_grad(|p: &Parts| {
        let all = &p.0[0] * p.1.as_ref().unwrap() * &p.2[0] * &p.2[1];
        (all, p.4.clone() + 1)
    })(&parts);
    assert_eq!(value.0.item::<f64>().unwrap(), 210.0);
    assert_eq!(value.1.item::<i64>().unwrap(), 2);
    assert_eq!(slope.0[0].item::<f64>().unwrap(), 105.0);
    assert_eq!(slope.2[1].item::<f64>().unwrap(), 30.0);
    assert_eq!((slope.3, slope.4.item::<i64>().unwrap()), ("setting".into(), 0));
}

#[test]
fn the_same_tensor_twice_is_two_arguments() {
    let x = Tensor::from(3.0f64);
    let slope = grad(|(a, b): &(Tensor, Tensor)| a * a * b)(&(x.clone(), x));
    assert_eq!(slope.0.item::<f64>().unwrap(), 18.0);
    assert_eq!(slope.1.item::<f64>().unwrap(), 9.0);
}

#[test]
fn own_derivatives_stand_in_and_bodies_serve_forward_mode() {
    // A wrong factor shows which one is used.
    let f = custom(
        "twice",
        |x: &Tensor| (x * 2.0, x.clone()),
        |x: &Tensor, dy: &Tensor| dy * 10.0 + x * 0.0,
    );
    let x = Tensor::from([1.0f64, 2.0]);
    assert_eq!(f(&x).to_vec::<f64>().unwrap(), [2.0, 4.0]);
    let slope = grad(|x: &Tensor| f(x).sum(..))(&x);
    assert_eq!(slope.to_vec::<f64>().unwrap(), [10.0, 10.0]);
    let (_, forward) = jvp(|x: &Tensor| f(x), &x, &x);
    assert_eq!(forward.to_vec::<f64>().unwrap(), [2.0, 4.0]);
    let mapped = vmap(|x: &Tensor| f(x))(&x);
    assert_eq!(mapped.to_vec::<f64>().unwrap(), [2.0, 4.0]);
}

#[test]
fn scans_of_any_saving_have_one_gradient() {
    let (xs, w) = (normal(&[6, 3], 5), normal(&[3, 3], 6));
    let last = |w: &Tensor, save: Save| {
        let options = ScanOptions { save, ..ScanOptions::default() };
        let start = Tensor::zeros([3], DType::F64);
        let (state, all) = scan_with(start, &xs, options, |h: &Tensor, x: &Tensor| {
            let h = (h.matmul(w) + x).tanh();
            (h.clone(), h.sum(..))
        });
        state.sum(..) + all.sum(..)
    };
    check(|w| last(w, Save::All), &w);
    let all = grad(|w: &Tensor| last(w, Save::All))(&w);
    for save in [Save::None, Save::Every(2)] {
        assert!(distance(&all, &grad(|w: &Tensor| last(w, save))(&w)) < 1e-12);
    }
    let (_, backward) = scan_with(
        Tensor::from(0i64),
        &Tensor::from([1i64, 2, 3]),
        ScanOptions { reverse: true, ..ScanOptions::default() },
        |s: &Tensor, x: &Tensor| (s + x, s + x),
    );
    assert_eq!(backward.to_vec::<i64>().unwrap(), [6, 5, 3]);
    let bad = scan(Tensor::from(0i64), &xs, |s: &Tensor, _: &Tensor| (s.cast(DType::F64), ()));
    assert!(bad.0.eval().unwrap_err().to_string().contains("becomes f64[] from i64[]"));
}

#[test]
fn branches_are_chosen_when_the_program_runs() {
    let scale = Tensor::from(3.0f64);
    let f = |x: &Tensor| cond(&x.gt(0.0), x, |x: &Tensor| x * &scale, |x: &Tensor| x.square());
    for (x, y, slope) in [(2.0f64, 6.0, 3.0), (-2.0, 4.0, -4.0)] {
        let x = Tensor::from(x);
        assert_eq!(f(&x).item::<f64>().unwrap(), y);
        assert_eq!(grad(f)(&x).item::<f64>().unwrap(), slope);
    }
}
