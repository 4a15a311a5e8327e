//! Linear algebra.

use super::attributes::Attributes;
use ferrata::{MatrixNorm, Tensor, Triangular};

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    several(op, x).or_else(|| one(op, a, x).map(|y| vec![y]))
}

fn several(op: &str, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let first = x.first()?;
    let pair = |(first, second)| vec![first, second];
    Some(match op {
        "qr" => pair(first.qr()),
        "eigh" => pair(first.eigh()),
        "slogdet" => pair(first.slogdet()),
        "svd" => {
            let (u, s, vt) = first.svd();
            vec![u, s, vt]
        }
        _ => return None,
    })
}

fn one(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    let first = x.first()?;
    Some(match op {
        "cholesky" => first.cholesky(),
        "eigvalsh" => first.eigvalsh(),
        "svdvals" => first.svdvals(),
        "pinv" => first.pinv(a.some_f64("rtol")),
        "matrix_rank" => first.matrix_rank(a.some_f64("rtol")),
        "solve" => first.solve(&x[1]),
        "inv" => first.inv(),
        "det" => first.det(),
        "lstsq" => first.lstsq(&x[1]),
        "cholesky_solve" => first.cholesky_solve(&x[1]),
        "matrix_power" => first.matrix_power(a.i64("power")),
        "matrix_norm" => first.matrix_norm(match a.text("norm") {
            "frobenius" => MatrixNorm::Frobenius,
            "nuclear" => MatrixNorm::Nuclear,
            _ => MatrixNorm::Spectral,
        }),
        "solve_triangular" => {
            let how = Triangular {
                lower: a.bool("lower"),
                unit: a.bool("unit"),
                transposed: a.bool("transposed"),
                right: a.bool("right"),
            };
            first.solve_triangular(&x[1], how)
        }
        _ => return None,
    })
}
