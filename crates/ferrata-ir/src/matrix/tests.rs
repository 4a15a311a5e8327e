use super::{factorize, solve_triangular, workspace};
use crate::primitive::Factorization::{self, Cholesky, Eigh, Lu, Qr, Svd};
use crate::testing::Random;

fn run(kind: Factorization, shape: [usize; 2], x: &[f64]) -> Vec<Vec<f64>> {
    let [m, n] = shape;
    let k = m.min(n);
    let sizes = match kind {
        Cholesky => vec![n * n],
        Lu => vec![n * n, n],
        Qr => vec![m * k, k * n],
        Eigh => vec![n, n * n],
        Svd => vec![m * k, k, k * n],
    };
    let mut results: Vec<Vec<f64>> = sizes.into_iter().map(|n| vec![0.0; n]).collect();
    let mut slices: Vec<&mut [f64]> = results.iter_mut().map(|r| &mut r[..]).collect();
    factorize(kind, shape, &mut x.to_vec(), &mut slices, &mut vec![0.0; workspace(kind, m, n)]);
    results
}

fn product(x: &[f64], y: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
    let at = |i: usize, j: usize| (0..k).map(|l| x[i * k + l] * y[l * n + j]).sum();
    (0..m * n).map(|i| at(i / n, i % n)).collect()
}

fn transposed(x: &[f64], [m, n]: [usize; 2]) -> Vec<f64> {
    (0..m * n).map(|i| x[i % m * n + i / m]).collect()
}

fn close(what: &str, x: &[f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    let scale = y.iter().fold(1e-300, |m: f64, y| m.max(y.abs()));
    let off = x.iter().zip(y).fold(0.0, |m: f64, (x, y)| m.max((x - y).abs()));
    assert!(off <= 1e-13 * scale, "{what} is off by {off:e} of {scale:e}");
}

/// Orthonormal columns.
fn orthonormal(what: &str, q: &[f64], [m, k]: [usize; 2]) {
    let square = product(&transposed(q, [m, k]), q, [k, m, k]);
    let identity: Vec<f64> = (0..k * k).map(|i| f64::from(u8::from(i / k == i % k))).collect();
    close(what, &square, &identity);
}

/// Matrices that are hard in different ways.
fn matrices([m, n]: [usize; 2]) -> Vec<(&'static str, Vec<f64>)> {
    let random = &mut Random::new((m * 100 + n) as u64);
    let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| random.float(-1.0, 1.0)).collect() };
    let full = draw(m * n);
    let (left, right) = (draw(m * 2), draw(2 * n));
    let graded = |x: &[f64]| (0..m * n).map(|i| x[i] * 1e-4f64.powi((i % n) as i32)).collect();
    let identity = (0..m * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    vec![
        ("graded", graded(&full)),
        ("of rank 2", product(&left, &right, [m, 2, n])),
        ("zero", vec![0.0; m * n]),
        ("one", vec![1.0; m * n]),
        ("the identity", identity),
        ("huge", full.iter().map(|x| x * 1e300).collect()),
        ("tiny", full.iter().map(|x| x * 1e-300).collect()),
        ("full", full),
    ]
}

const SHAPES: [[usize; 2]; 9] =
    [[0, 0], [1, 1], [2, 2], [3, 3], [20, 20], [33, 33], [1, 5], [40, 17], [17, 40]];

#[test]
fn qr_and_singular_values_rebuild_the_matrix() {
    for shape in SHAPES.into_iter().chain([[0, 3], [3, 0]]) {
        for (name, x) in matrices(shape) {
            let what = format!("{name} {shape:?}");
            let [m, n] = shape;
            let k = m.min(n);
            let [q, r] = run(Qr, shape, &x).try_into().unwrap();
            orthonormal(&format!("Q of {what}"), &q, [m, k]);
            close(&format!("QR of {what}"), &product(&q, &r, [m, k, n]), &x);
            assert!((0..k * n).all(|i| i / n <= i % n || r[i] == 0.0), "{what}");
            let [u, s, vt] = run(Svd, shape, &x).try_into().unwrap();
            orthonormal(&format!("U of {what}"), &u, [m, k]);
            orthonormal(&format!("V of {what}"), &transposed(&vt, [k, n]), [n, k]);
            let us: Vec<f64> = (0..m * k).map(|i| u[i] * s[i % k]).collect();
            close(&format!("USV of {what}"), &product(&us, &vt, [m, k, n]), &x);
            assert!(s.windows(2).all(|w| w[0] >= w[1]) && s.iter().all(|&s| s >= 0.0), "{what}");
        }
    }
}

#[test]
fn eigenvectors_rebuild_the_matrix() {
    for [n, _] in SHAPES.into_iter().filter(|s| s[0] == s[1]) {
        for (name, x) in matrices([n, n]) {
            let what = format!("{name} {n}");
            let symmetric: Vec<f64> =
                (0..n * n).map(|i| x[i] / 2.0 + x[i % n * n + i / n] / 2.0).collect();
            let [w, v] = run(Eigh, [n, n], &x).try_into().unwrap();
            orthonormal(&format!("V of {what}"), &v, [n, n]);
            assert!(w.windows(2).all(|w| w[0] <= w[1]), "{what}");
            let vw: Vec<f64> = (0..n * n).map(|i| v[i] * w[i % n]).collect();
            let rebuilt = product(&vw, &transposed(&v, [n, n]), [n, n, n]);
            close(&format!("VWV of {what}"), &rebuilt, &symmetric);
        }
    }
}

#[test]
fn small_singular_values_are_relatively_exact() {
    // Singular values of a graded matrix, scaled column by column, are those of it times a number.
    let n = 6;
    let (_, x) = matrices([n, n]).remove(0);
    let s = &run(Svd, [n, n], &x)[1];
    assert!(s[n - 1] < 1e-19 * s[0]);
    let determinant: f64 = {
        let lu = &run(Lu, [n, n], &x)[0];
        (0..n).map(|i| lu[i * n + i]).product()
    };
    let of_s: f64 = s.iter().product();
    assert!((of_s / determinant.abs() - 1.0).abs() < 1e-13, "{of_s:e}, not {determinant:e}");
}

#[test]
fn elimination_rebuilds_the_matrix() {
    for [n, _] in SHAPES.into_iter().filter(|s| s[0] == s[1]) {
        for (name, x) in matrices([n, n]) {
            let [lu, order] = run(Lu, [n, n], &x).try_into().unwrap();
            let part = |lower: bool| -> Vec<f64> {
                let at = |i: usize, j: usize| match (lower, i > j) {
                    (true, _) if i == j => 1.0,
                    (true, true) | (false, false) => lu[i * n + j],
                    _ => 0.0,
                };
                (0..n * n).map(|i| at(i / n, i % n)).collect()
            };
            let moved: Vec<f64> =
                (0..n * n).map(|i| x[order[i / n] as usize * n + i % n]).collect();
            let rebuilt = product(&part(true), &part(false), [n, n, n]);
            close(&format!("LU of {name} {n}"), &rebuilt, &moved);
            // Solving with the two factors brings the identity back.
            if name == "full" {
                let mut solved = moved;
                solve_triangular(&lu, &mut solved, n, true, true);
                close("U", &solved, &part(false));
                let mut ones: Vec<f64> = (0..n).map(|i| lu[i * n..][i..n].iter().sum()).collect();
                solve_triangular(&lu, &mut ones, n, false, false);
                let off = ones.iter().fold(0.0, |m: f64, x| m.max((x - 1.0).abs()));
                assert!(off < 1e-10, "{off:e}");
            }
            let square = product(&x, &transposed(&x, [n, n]), [n, n, n]);
            if name == "full" {
                let l = run(Cholesky, [n, n], &square).remove(0);
                let rebuilt = product(&l, &transposed(&l, [n, n]), [n, n, n]);
                close("LLᵀ", &rebuilt, &square);
            }
        }
    }
}

#[test]
fn what_has_no_factors_is_nan() {
    let l = run(Cholesky, [3, 3], &[4.0, 2.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0]).remove(0);
    assert_eq!(l[..3], [2.0, 0.0, 0.0]);
    assert!(l[3].is_nan() && l[4].is_nan() && l[5] == 0.0 && l[8].is_nan());
    for kind in [Eigh, Svd] {
        let results = run(kind, [2, 2], &[1.0, f64::INFINITY, 0.0, 1.0]);
        assert!(results.iter().flatten().all(|x| x.is_nan()));
    }
}
