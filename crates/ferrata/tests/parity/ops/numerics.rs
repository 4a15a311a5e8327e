//! Linear algebra, Fourier transforms, segments, recurrent nets.

use super::attributes::Attributes;
use ferrata::nn::{Cell, Context, Gru, Lstm, Recurrent, Stack};
use ferrata::{DType, FftNorm, Key, MatrixNorm, Tensor, Triangular, tree};

/// The results of the operator `op`, if it is one of these.
pub fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
    let made = || several(op, a, x).or_else(|| one(op, a, x).map(|y| vec![y]));
    frequencies(op, a).or_else(made)
}

fn several(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Vec<Tensor>> {
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
        "lstm" => {
            let net: Lstm = net(a, first.size(-1), &x[3..]);
            let (y, (h, c)) = net.forward(first, Some((&x[1], &x[2])), &mut Context::eval());
            vec![y, h, c]
        }
        "gru" => {
            let net: Gru = net(a, first.size(-1), &x[2..]);
            pair(net.forward(first, Some(&x[1]), &mut Context::eval()))
        }
        _ => return None,
    })
}

/// A recurrent net with these parameters, in the order of the attribute `names`.
fn net<C: Cell>(a: &Attributes, inputs: usize, parameters: &[Tensor]) -> Recurrent<C> {
    let how = Stack {
        layers: a.usize("layers"),
        bidirectional: a.bool("bidirectional"),
        bias: a.bool("bias"),
        batch_first: a.bool("batch_first"),
        dropout: 0.0,
    };
    let names: Vec<&str> =
        a.0["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let net = Recurrent::new(inputs, a.usize("hidden"), how, &Key::new(0));
    assert_eq!(tree::leaves(&net).len(), names.len());
    tree::map_named(&net, |name, _| {
        let at = names.iter().position(|n| *n == name);
        parameters[at.unwrap_or_else(|| panic!("no parameter {name}"))].clone()
    })
}

fn norm(a: &Attributes) -> FftNorm {
    match a.text("norm") {
        "ortho" => FftNorm::Ortho,
        "forward" => FftNorm::Forward,
        _ => FftNorm::Backward,
    }
}

fn frequencies(op: &str, a: &Attributes) -> Option<Vec<Tensor>> {
    let f = match op {
        "fftfreq" => Tensor::fftfreq,
        "rfftfreq" => Tensor::rfftfreq,
        _ => return None,
    };
    Some(vec![f(a.usize("n"), a.f64("spacing"), DType::F64)])
}

fn one(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
    let first = x.first()?;
    let n = || a.some_i64("n").map(|n| n as usize);
    Some(match op {
        "fft" => first.fft(n(), a.i64("dim"), norm(a)),
        "ifft" => first.ifft(n(), a.i64("dim"), norm(a)),
        "rfft" => first.rfft(n(), a.i64("dim"), norm(a)),
        "irfft" => first.irfft(n(), a.i64("dim"), norm(a)),
        "fft2" => first.fft2(norm(a)),
        "ifft2" => first.ifft2(norm(a)),
        "fftn" => first.fftn(a.dims(), norm(a)),
        "ifftn" => first.ifftn(a.dims(), norm(a)),
        "rfft2" => first.rfft2(norm(a)),
        "irfft2" => first.irfft2(n(), norm(a)),
        "fftshift" => first.fftshift(a.dims()),
        "ifftshift" => first.ifftshift(a.dims()),
        "segment_sum" => first.segment_sum(&x[1], a.usize("count")),
        "segment_mean" => first.segment_mean(&x[1], a.usize("count")),
        "segment_prod" => first.segment_prod(&x[1], a.usize("count")),
        "segment_amax" => first.segment_max(&x[1], a.usize("count")),
        "segment_amin" => first.segment_min(&x[1], a.usize("count")),
        "searchsorted" => first.searchsorted(&x[1], a.bool("right")),
        "bucketize" => first.bucketize(&x[1], a.bool("right")),
        _ => return matrix(op, a, x),
    })
}

fn matrix(op: &str, a: &Attributes, x: &[Tensor]) -> Option<Tensor> {
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
