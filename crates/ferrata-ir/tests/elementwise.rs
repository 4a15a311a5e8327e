//! Elementwise operations against values computed with 40 digits, and their gradients where
//! PyTorch has made a choice.

use ferrata_ir::primitive::elementwise;
use ferrata_ir::testing::{evaluate, function_of};
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Evaluator, Literal, Precision, Type};

/// Operation, then pairs of argument and value.
#[rustfmt::skip]
const KNOWN: &[(&str, &[(f64, f64)])] = &[
    ("expm1", &[(-3.0, -0.950212931632136), (1e-09, 1.0000000005000001e-09), (0.7, 1.0137527074704764)]),
    ("log1p", &[(-0.8, -1.6094379124341005), (1e-09, 9.999999995e-10), (3.0, 1.3862943611198906)]),
    ("tan", &[(-1.3, -3.6021024479679786), (0.2, 0.2027100355086725)]),
    ("asin", &[(-0.99, -1.4292568534704693), (0.3, 0.3046926540153975)]),
    ("acos", &[(-0.99, 3.000053180265366), (0.3, 1.2661036727794992)]),
    ("atan", &[(-40.0, -1.5458015331759765), (0.3, 0.2914567944778671)]),
    ("sinh", &[(-3.0, -10.017874927409903), (1e-05, 1.0000000000166668e-05)]),
    ("cosh", &[(-3.0, 10.067661995777765), (0.2, 1.020066755619076)]),
    ("asinh", &[(-1000000000.0, -21.416413017506358), (1e-09, 1e-09), (0.4, 0.3900353197707153)]),
    ("acosh", &[(1.00000001, 0.0001414213556897163), (7.0, 2.6339157938496336)]),
    ("atanh", &[(-0.999, -3.8002011672501994), (1e-09, 1e-09)]),
    ("erf", &[(-2.0, -0.9953222650189527), (1e-09, 1.1283791670955127e-09), (0.4, 0.42839235504666845)]),
    ("erfc", &[(-2.0, 1.9953222650189528), (0.4, 0.5716076449533315), (9.0, 4.13703174651381e-37)]),
    ("erf_inv", &[(-0.999999999, -4.320005388105362), (-0.7, -0.7328690779592167), (1e-12, 8.86226925452758e-13), (0.0001, 8.862269277728948e-05), (0.49, 0.46586860023505733), (0.51, 0.4881220505159588), (0.95, 1.3859038243496777)]),
    ("lgamma", &[(-2.3, 0.36956666345500805), (0.1, 2.252712651734206), (3.5, 1.2009736023470743), (100.0, 359.1342053695754)]),
    ("digamma", &[(-7.3, 4.33730730551005), (-0.1, 9.245073050052948), (0.1, -10.423754940411076), (3.5, 1.103156640645243), (100.0, 4.600161852738087)]),
];

#[test]
fn special_functions_are_accurate() {
    for &(name, pairs) in KNOWN {
        let op = elementwise::find(name).unwrap();
        for &(x, want) in pairs {
            let mut b = Builder::new(name);
            let p = b.parameter(Type::scalar(DType::F64));
            let y = b.apply(op, &[p]);
            let f = b.finish(&[y]).unwrap();
            let x = Literal::float(Type::scalar(DType::F64), vec![x]);
            let got = Evaluator::new(Precision::Exact).call(&f, &[&x]).unwrap()[0].to_f64()[0];
            let error = (got - want).abs() / want.abs();
            assert!(error < 1e-13, "{name}({x:?}) = {got:?}, not {want:?}: {error:e}");
        }
    }
}

/// Operation, operands, and the gradient in each.
#[test]
fn gradients_at_kinks_and_ties() {
    let nan = f64::NAN;
    let cases: &[(&str, &[f64], &[f64])] = &[
        ("abs", &[0.0], &[0.0]),
        ("abs", &[nan], &[0.0]),
        ("max", &[2.0, 2.0], &[0.5, 0.5]),
        ("max", &[nan, 2.0], &[1.0, 1.0]),
        ("max", &[3.0, 2.0], &[1.0, 0.0]),
        ("min", &[2.0, 2.0], &[0.5, 0.5]),
        ("min", &[3.0, 2.0], &[0.0, 1.0]),
        ("clamp", &[0.5, 0.0, 1.0], &[1.0, 0.0, 0.0]),
        ("clamp", &[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0]),
        ("clamp", &[1.0, 0.0, 1.0], &[0.0, 0.0, 1.0]),
        ("clamp", &[1.0, 1.0, 1.0], &[0.0, 1.0, 0.0]),
        ("clamp", &[0.5, 2.0, 1.0], &[0.0, 0.0, 1.0]),
        ("clamp", &[nan, 0.0, 1.0], &[0.0, 0.0, 0.0]),
        ("pow", &[0.0, 0.0], &[0.0, 0.0]),
        ("pow", &[0.0, 2.0], &[0.0, 0.0]),
        ("pow", &[-2.0, 3.0], &[12.0, nan]),
        ("floor", &[1.0], &[0.0]),
    ];
    for &(name, x, want) in cases {
        let args: Vec<Literal> =
            x.iter().map(|&x| Literal::float(Type::scalar(DType::F64), vec![x])).collect();
        let op = elementwise::find(name).unwrap();
        let f = function_of(&args, |b, x| vec![b.apply(op, x)]).unwrap();
        let gradient = value_and_grad(&f, &vec![true; x.len()]).unwrap();
        let got = &evaluate(&gradient, &args).unwrap()[1..];
        let got: Vec<f64> = got.iter().map(|g| g.to_f64()[0]).collect();
        let same = got.iter().zip(want).all(|(g, w)| g == w || (g.is_nan() && w.is_nan()));
        assert!(same, "{name}{x:?}: {got:?}, not {want:?}");
    }
}
