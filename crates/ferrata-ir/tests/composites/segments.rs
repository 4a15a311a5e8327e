//! Segments and searches.

use crate::check::{bools, build, check, f64s, ints, random, run};
use ferrata_ir::Literal;
use ferrata_ir::composite::{Segment, nonzero, searchsorted, segment};

const ALL: [Segment; 5] =
    [Segment::Sum, Segment::Mean, Segment::Product, Segment::Max, Segment::Min];

#[test]
fn segments_and_their_derivatives() {
    let args = [random(1, &[6, 2]), ints(&[6], &[0, 3, 3, 9, 0, 3])];
    let empty = [0.0, 0.0, 1.0, f64::NEG_INFINITY, f64::INFINITY];
    for (how, none) in ALL.into_iter().zip(empty) {
        // Segments 1 and 2 are empty: a bound keeps the infinities out of the sums.
        let values = build(&args, |b, x| vec![segment(b, x[0], x[1], 4, how)]);
        let got = run(&values, &args)[0].to_f64();
        assert_eq!(got[2..6], [none; 4], "{how:?}");
        check(&args, |b, x| {
            let y = segment(b, x[0], x[1], 4, how);
            vec![b.slice_dim(y, 0, 0, 1), b.slice_dim(y, 0, 3, 4)]
        });
    }
    let x = args[0].to_f64();
    let sum = build(&args, |b, x| vec![segment(b, x[0], x[1], 4, Segment::Sum)]);
    assert_eq!(run(&sum, &args)[0].to_f64()[..2], [x[0] + x[8], x[1] + x[9]]);
}

#[test]
fn products_with_zeros_have_derivatives() {
    let mut x = random(2, &[5]).to_f64();
    x[1] = 0.0;
    let args = [Literal::float(f64s(&[5]), x), ints(&[5], &[0, 0, 1, 0, 1])];
    check(&args, |b, x| vec![segment(b, x[0], x[1], 2, Segment::Product)]);
}

#[test]
fn places_in_order() {
    for n in [0, 1, 2, 3, 4, 7, 8, 9] {
        let sorted: Vec<f64> = (0..n).map(|i| (i / 2) as f64).collect();
        let values: Vec<f64> = (0..22).map(|i| i as f64 / 4.0 - 0.5).collect();
        let args = [
            Literal::float(f64s(&[n]), sorted.clone()),
            Literal::float(f64s(&[22]), values.clone()),
        ];
        let f = build(&args, |b, x| {
            vec![searchsorted(b, x[0], x[1], false), searchsorted(b, x[0], x[1], true)]
        });
        let got = run(&f, &args);
        for (i, v) in values.iter().enumerate() {
            let below = |keep: &dyn Fn(f64) -> bool| sorted.iter().filter(|&&s| keep(s)).count();
            assert_eq!(got[0].to_i64()[i] as usize, below(&|s| s < *v), "{n} {v}");
            assert_eq!(got[1].to_i64()[i] as usize, below(&|s| s <= *v), "{n} {v}");
        }
    }
}

#[test]
fn places_of_true_elements() {
    let args = [bools(&[2, 3], &[0, 1, 1, 0, 0, 1])];
    for (count, want) in [(2, vec![0, 1, 0, 2]), (4, vec![0, 1, 0, 2, 1, 2, 2, 3]), (0, vec![])] {
        let f = build(&args, |b, x| {
            let (places, found) = nonzero(b, x[0], count);
            vec![places, found]
        });
        let got = run(&f, &args);
        assert_eq!(got[0].to_i64(), want);
        assert_eq!(got[1].to_i64(), [3]);
    }
}
