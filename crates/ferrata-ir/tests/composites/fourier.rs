//! Fourier transforms of real values.

use crate::check::{build, check, f64s, random, run};
use ferrata_ir::Literal;
use ferrata_ir::composite::{complex_mul, irfft, rfft};
use std::f64::consts::TAU;

#[test]
fn half_spectra_are_sums_of_waves() {
    for n in [1, 2, 3, 4, 5, 8, 12, 15] {
        let args = [random(n, &[2, n])];
        let x = args[0].to_f64();
        let f = build(&args, |b, x| {
            let y = rfft(b, x[0]);
            vec![y, irfft(b, y, n)]
        });
        let [y, back] = run(&f, &args).try_into().unwrap();
        assert_eq!(y.ty, f64s(&[2, n / 2 + 1, 2]));
        let y = y.to_f64();
        for line in 0..2 {
            for k in 0..=n / 2 {
                let angle = |j: usize| -TAU * (j * k % n) as f64 / n as f64;
                let sum = |f: fn(f64) -> f64| (0..n).map(|j| x[line * n + j] * f(angle(j))).sum();
                let at = 2 * (line * (n / 2 + 1) + k);
                let want: [f64; 2] = [sum(f64::cos), sum(f64::sin)];
                for part in 0..2 {
                    assert!((y[at + part] - want[part]).abs() < 1e-13, "{n} {k} {part}");
                }
            }
        }
        let off = back
            .to_f64()
            .iter()
            .zip(&x)
            .fold(0.0, |m: f64, (y, x)| m.max((y / n as f64 - x).abs()));
        assert!(off < 1e-14, "{n}: {off:e}");
    }
}

#[test]
fn half_spectra_and_their_derivatives() {
    for n in [1, 2, 5, 6] {
        check(&[random(1, &[2, n])], |b, x| vec![rfft(b, x[0])]);
        // Imaginary parts that a real value cannot have are not read.
        check(&[random(2, &[n / 2 + 1, 2])], |b, x| vec![irfft(b, x[0], n)]);
    }
    check(&[random(1, &[3, 2]), random(2, &[3, 2])], |b, x| vec![complex_mul(b, x[0], x[1])]);
}

#[test]
fn imaginary_parts_at_the_ends_are_not_read() {
    let args = [Literal::float(f64s(&[3, 2]), vec![1.0, 9.0, 2.0, -1.0, 3.0, 9.0])];
    let f = build(&args, |b, x| vec![irfft(b, x[0], 4)]);
    assert_eq!(run(&f, &args)[0].to_f64(), [8.0, 0.0, 0.0, -4.0]);
}
