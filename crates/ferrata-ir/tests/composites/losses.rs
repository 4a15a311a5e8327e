//! Losses, embeddings, dropout and rotary positions.

use crate::check::{build, check, f64s, ints, random, run};
use ferrata_ir::composite::*;
use ferrata_ir::{Builder, DType, Literal, Type};

const REDUCTIONS: [Reduction; 3] = [Reduction::None, Reduction::Sum, Reduction::Mean];

#[test]
fn losses_of_elements() {
    let args = [random(1, &[3, 4]), random(2, &[3, 4])];
    let p = |seed: usize| {
        let v = random(seed, &[3, 4]).to_f64().iter().map(|x| 0.5 + 0.18 * x).collect();
        Literal::float(f64s(&[3, 4]), v)
    };
    let probabilities = [p(1), p(2), p(3)];
    for r in REDUCTIONS {
        check(&args, |b, x| vec![mse(b, x[0], x[1], r)]);
        check(&args, |b, x| vec![l1(b, x[0], x[1], r)]);
        check(&args, |b, x| vec![huber(b, x[0], x[1], 0.7, r)]);
        check(&args, |b, x| vec![smooth_l1(b, x[0], x[1], 0.7, r)]);
        check(&args, |b, x| vec![bce_with_logits(b, x[0], x[1], None, r)]);
        check(&probabilities[..2], |b, x| vec![bce(b, x[0], x[1], r)]);
        check(&probabilities, |b, x| vec![bce_with_logits(b, x[0], x[1], Some(x[2]), r)]);
        check(&probabilities[..2], |b, x| vec![kl_div(b, x[0], x[1], r)]);
    }
    check(&probabilities[..2], |b, x| vec![kl_div(b, x[0], x[1], Reduction::BatchMean)]);
}

#[test]
fn cross_entropy_of_ids() {
    let logits = random(1, &[2, 3, 4]);
    for (dim, ids) in [(2, ints(&[2, 3], &[0, 3, 9, 1, 1, 2])), (1, ints(&[2, 4], &[0; 8]))] {
        for reduction in REDUCTIONS {
            for label_smoothing in [0.0, 0.2] {
                let s = CrossEntropy { dim, ignore_index: Some(9), label_smoothing, reduction };
                let args = [logits.clone(), ids.clone()];
                check(&args, |b, x| vec![cross_entropy(b, x[0], x[1], None, &s)]);
                let w = Literal::float(f64s(&[4]), vec![0.5, 1.0, 2.0, 1.5]);
                if dim == 2 {
                    let args = [logits.clone(), ids.clone(), w];
                    check(&args, |b, x| vec![cross_entropy(b, x[0], x[1], Some(x[2]), &s)]);
                    check(&args, |b, x| vec![nll(b, x[0], x[1], Some(x[2]), &s)]);
                }
            }
        }
    }
}

#[test]
fn cross_entropy_of_probabilities() {
    let args = [random(1, &[3, 4]), random(2, &[3, 4]), random(3, &[4])];
    let s = CrossEntropy { label_smoothing: 0.1, ..CrossEntropy::new(1) };
    check(&args[..2], |b, x| vec![cross_entropy(b, x[0], x[1], None, &s)]);
    check(&args, |b, x| vec![cross_entropy(b, x[0], x[1], Some(x[2]), &s)]);
}

/// Both paths, with and without weights, against the definition.
#[test]
fn cross_entropy_meaning() {
    let (x, t, e) = (random(4, &[3, 4]), [2i64, -1, 0], 0.2);
    let w = [0.5, 1.0, 2.0, 1.5];
    let s = CrossEntropy { ignore_index: Some(-1), label_smoothing: e, ..CrossEntropy::new(1) };
    let expected = |w: &[f64; 4]| {
        let (mut sum, mut total) = (0.0, 0.0);
        for (row, &t) in x.to_f64().chunks(4).zip(&t).filter(|(_, t)| **t >= 0) {
            let lse = row.iter().map(|v| v.exp()).sum::<f64>().ln();
            let p = |c: usize| row[c] - lse;
            let spread: f64 = (0..4).map(|c| w[c] * p(c)).sum();
            let t = t as usize;
            sum += -(1.0 - e) * w[t] * p(t) - e / 4.0 * spread;
            total += w[t];
        }
        sum / total
    };
    let ids = ints(&[3], &t);
    let args = [x.clone(), ids, Literal::float(f64s(&[4]), w.to_vec())];
    let f = build(&args, |b, x| {
        let plain = cross_entropy(b, x[0], x[1], None, &s);
        vec![plain, cross_entropy(b, x[0], x[1], Some(x[2]), &s)]
    });
    let got: Vec<f64> = run(&f, &args).iter().map(|y| y.to_f64()[0]).collect();
    assert!((got[0] - expected(&[1.0; 4])).abs() < 1e-14, "{got:?}");
    assert!((got[1] - expected(&w)).abs() < 1e-14, "{got:?}");
}

#[test]
fn cross_entropy_of_unknown_ids_is_nan_and_of_none_too() {
    let logits = Literal::float(f64s(&[1, 3]), vec![0.0; 3]);
    for id in [3, -1, -100] {
        let s = CrossEntropy { ignore_index: Some(-100), ..CrossEntropy::new(1) };
        let args = [logits.clone(), ints(&[1], &[id])];
        let f = build(&args, |b, x| vec![cross_entropy(b, x[0], x[1], None, &s)]);
        assert!(run(&f, &args)[0].to_f64()[0].is_nan(), "{id}");
    }
}

#[test]
fn embeddings() {
    let args = [random(1, &[4, 3]), ints(&[2, 2], &[3, 0, 3, 1])];
    check(&args, |b, x| vec![embedding(b, x[0], x[1], None)]);
    let f = build(&args, |b, x| vec![embedding(b, x[0], x[1], None)]);
    let (got, table) = (run(&f, &args)[0].to_f64(), args[0].to_f64());
    assert_eq!(got[..3], table[9..]);
    assert_eq!(got[9..], table[3..6]);
    let padded = build(&args, |b, x| {
        let y = embedding(b, x[0], x[1], Some(3));
        vec![b.sum(y, &[0, 1, 2])]
    });
    let g = ferrata_ir::transform::value_and_grad(&padded, &[true, false]).unwrap();
    let rows: Vec<f64> = run(&g, &args)[1].to_f64().chunks(3).map(|r| r[0]).collect();
    assert_eq!(rows, [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn dropout_keeps_the_mean_and_repeats_its_bits() {
    let key = Literal::int(Type::new(DType::U32, [2]), vec![7, 9]);
    check(&[random(1, &[3, 5]), key.clone()], |b, x| vec![dropout(b, x[0], x[1], 0.4)]);
    let args = [Literal::float(f64s(&[10_000]), vec![1.0; 10_000]), key];
    let f = build(&args, |b, x| vec![dropout(b, x[0], x[1], 0.25)]);
    let y = run(&f, &args)[0].to_f64();
    let kept = y.iter().filter(|&&v| v != 0.0).count();
    assert!(y.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-15));
    assert!((7_300..7_700).contains(&kept), "{kept}");
    let all = build(&args, |b, x| vec![dropout(b, x[0], x[1], 1.0), dropout(b, x[0], x[1], 0.0)]);
    let y = run(&all, &args);
    assert!(y[0].to_f64().iter().all(|&v| v == 0.0));
    assert!(y[1].to_f64().iter().all(|&v| v == 1.0));
}

#[test]
fn rotary_positions() {
    let (t, d) = (3, 4);
    for pairing in [Pairing::Half, Pairing::Interleaved] {
        let x = [random(1, &[2, t, d]), random(2, &[t, d / 2]), random(3, &[2, 1, d / 2])];
        check(&x, |b, x| vec![rope(b, x[0], x[1], x[2], pairing)]);
        let args = [random(1, &[2, t, d]), ints(&[t], &[11, 12, 13])];
        let f = build(&args, |b, x| {
            let frequencies = rope_frequencies(500.0, d);
            let (cos, sin) = rope_table(b, x[1], &frequencies, DType::F64);
            vec![rope(b, x[0], cos, sin, pairing)]
        });
        let (got, x) = (run(&f, &args)[0].to_f64(), args[0].to_f64());
        for row in 0..2 * t {
            for j in 0..d / 2 {
                let (p, q) = match pairing {
                    Pairing::Half => (j, j + d / 2),
                    Pairing::Interleaved => (2 * j, 2 * j + 1),
                };
                let angle = (11 + row % t) as f64 * 500f64.powf(-2.0 * j as f64 / d as f64);
                let (p, q) = (row * d + p, row * d + q);
                let want = x[p] * angle.cos() - x[q] * angle.sin();
                assert!((got[p] - want).abs() < 1e-14);
                let want = x[q] * angle.cos() + x[p] * angle.sin();
                assert!((got[q] - want).abs() < 1e-14);
            }
        }
    }
}

#[test]
fn wrong_operands_are_errors() {
    let mut b = Builder::new("f");
    let logits = b.parameter(Type::new(DType::F32, [4, 5]));
    let ids = b.parameter(Type::new(DType::I64, [5]));
    let y = cross_entropy(&mut b, logits, ids, None, &CrossEntropy::new(1));
    let e = b.finish(&[y]).unwrap_err().to_string();
    let want = "cross_entropy(f32[4,5], i64[5]): the target is i64[5], but must have shape [4]";
    assert_eq!(e, want);
    let mut b = Builder::new("f");
    let x = b.parameter(Type::new(DType::F32, [4, 5]));
    let y = rope(&mut b, x, x, x, Pairing::Half);
    assert!(b.finish(&[y]).unwrap_err().to_string().contains("is not even"));
}
