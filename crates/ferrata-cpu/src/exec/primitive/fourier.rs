//! Fourier transforms: a Stockham transform with radices 4, 2, 3, 5 and other small primes; lengths
//! with a large prime factor by a convolution (Bluestein 1970). In f64.

use super::batch::{Batch, each};
use crate::exec::Context;
use crate::isa::{Kernel, Level};
use ferrata_compiler::kernel::View;
use ferrata_ir::primitive::Dft;
use ferrata_ir::primitive::dft::root_of_unity;

/// The largest radix.
const LARGEST: usize = 13;

/// What a length needs: made once, when a kernel is prepared.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    n: usize,
    radices: Vec<usize>,
    /// `e^(-2πi k/n)`: cosines, and negative sines.
    roots: Numbers,
    chirp: Option<Box<Chirp>>,
}

/// Complex numbers: real parts and imaginary parts.
#[derive(Clone, Debug)]
struct Numbers {
    re: Vec<f64>,
    im: Vec<f64>,
}

impl Numbers {
    fn new(n: usize, f: impl Fn(usize) -> [f64; 2]) -> Numbers {
        let (re, im) = (0..n).map(|i| f(i).into()).unzip();
        Numbers { re, im }
    }
}

/// A transform as a convolution of a power-of-two length with `e^(πi k²/n)`.
#[derive(Clone, Debug)]
struct Chirp {
    inner: Plan,
    /// `e^(-πi k²/n)`.
    factors: Numbers,
    /// The transform of the conjugated factors, over the length.
    kernel: Numbers,
}

impl Plan {
    pub fn new(n: usize) -> Plan {
        let mut radices = Vec::new();
        let mut rest = n.max(1);
        for radix in [4, 2, 3].into_iter().chain((5..=LARGEST).step_by(2)) {
            while rest.is_multiple_of(radix) {
                radices.push(radix);
                rest /= radix;
            }
        }
        let root = |k| {
            let [cos, sin] = root_of_unity(k, n);
            [cos, -sin]
        };
        let chirp = (rest > 1).then(|| Box::new(Chirp::new(n)));
        Plan { n, radices, roots: Numbers::new(if chirp.is_some() { 0 } else { n }, root), chirp }
    }

    /// Numbers that a transform needs beside the operand.
    fn workspace(&self) -> usize {
        self.chirp.as_ref().map_or(2 * self.n, |c| 4 * c.inner.n)
    }

    /// Transforms `re + i im` in place.
    #[inline(always)]
    fn run(&self, re: &mut [f64], im: &mut [f64], work: &mut [f64]) {
        match &self.chirp {
            Some(chirp) => chirp.run(re, im, work),
            None => self.stockham(re, im, work),
        }
    }

    #[inline(always)]
    fn stockham(&self, re: &mut [f64], im: &mut [f64], work: &mut [f64]) {
        let (other_re, rest) = work.split_at_mut(self.n);
        let other_im = &mut rest[..self.n];
        let (mut length, mut stride, mut there) = (self.n, 1, false);
        for &radix in &self.radices {
            let stage = Stage { radix, parts: length / radix, stride };
            let (own, other) = ([&mut *re, &mut *im], [&mut *other_re, &mut *other_im]);
            let (from, to) = if there { (other, own) } else { (own, other) };
            stage.run(&self.roots, from, to);
            (length, stride, there) = (length / radix, stride * radix, !there);
        }
        if there {
            re.copy_from_slice(other_re);
            im.copy_from_slice(other_im);
        }
    }
}

/// One pass: element `q + stride (p + parts k)` of the operand goes into elements
/// `q + stride (radix p + j)` of the result.
struct Stage {
    radix: usize,
    parts: usize,
    stride: usize,
}

impl Stage {
    #[inline(always)]
    fn run(&self, roots: &Numbers, from: [&mut [f64]; 2], to: [&mut [f64]; 2]) {
        let from = from.map(|x| &*x);
        match self.radix {
            2 => self.pass::<2>(roots, from, to, two),
            3 => self.pass::<3>(roots, from, to, |x| odd(roots, x)),
            4 => self.pass::<4>(roots, from, to, four),
            5 => self.pass::<5>(roots, from, to, |x| odd(roots, x)),
            7 => self.pass::<7>(roots, from, to, |x| odd(roots, x)),
            11 => self.pass::<11>(roots, from, to, |x| odd(roots, x)),
            _ => self.pass::<13>(roots, from, to, |x| odd(roots, x)),
        }
    }

    #[inline(always)]
    fn pass<const R: usize>(
        &self,
        roots: &Numbers,
        [re, im]: [&[f64]; 2],
        [to_re, to_im]: [&mut [f64]; 2],
        butterfly: impl Fn([[f64; 2]; R]) -> [[f64; 2]; R],
    ) {
        let (parts, stride) = (self.parts, self.stride);
        let blocks = to_re.chunks_exact_mut(R * stride).zip(to_im.chunks_exact_mut(R * stride));
        for (p, (to_re, to_im)) in blocks.enumerate() {
            let turns: [[f64; 2]; R] =
                std::array::from_fn(|j| [roots.re[p * j * stride], roots.im[p * j * stride]]);
            let first = |k: usize| stride * (p + parts * k);
            let re: [&[f64]; R] = std::array::from_fn(|k| &re[first(k)..first(k) + stride]);
            let im: [&[f64]; R] = std::array::from_fn(|k| &im[first(k)..first(k) + stride]);
            for q in 0..stride {
                let y = butterfly(std::array::from_fn(|k| [re[k][q], im[k][q]]));
                for j in 0..R {
                    let at = q + stride * j;
                    [to_re[at], to_im[at]] = multiplied(y[j], turns[j]);
                }
            }
        }
    }
}

#[inline(always)]
fn multiplied(x: [f64; 2], y: [f64; 2]) -> [f64; 2] {
    [x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]]
}

#[inline(always)]
fn two([a, b]: [[f64; 2]; 2]) -> [[f64; 2]; 2] {
    [[a[0] + b[0], a[1] + b[1]], [a[0] - b[0], a[1] - b[1]]]
}

#[inline(always)]
fn four([a, b, c, d]: [[f64; 2]; 4]) -> [[f64; 2]; 4] {
    let ([even, turned], [odd, skew]) = (two([a, c]), two([b, d]));
    // -i times the skew part.
    let skew = [skew[1], -skew[0]];
    let ([y0, y2], [y1, y3]) = (two([even, odd]), two([turned, skew]));
    [y0, y1, y2, y3]
}

/// A transform of odd length `R`, pairing what is at equal distances from the first element.
#[inline(always)]
fn odd<const R: usize>(roots: &Numbers, x: [[f64; 2]; R]) -> [[f64; 2]; R] {
    let step = roots.re.len() / R;
    let mut y = [x[0]; R];
    for k in 1..=R / 2 {
        y[0][0] += x[k][0] + x[R - k][0];
        y[0][1] += x[k][1] + x[R - k][1];
    }
    for j in 1..=R / 2 {
        let (mut even, mut odd) = (x[0], [0.0; 2]);
        for k in 1..=R / 2 {
            let root = j * k % R * step;
            let (cos, sin) = (roots.re[root], roots.im[root]);
            for c in 0..2 {
                even[c] += cos * (x[k][c] + x[R - k][c]);
                odd[c] += sin * (x[k][c] - x[R - k][c]);
            }
        }
        y[j] = [even[0] - odd[1], even[1] + odd[0]];
        y[R - j] = [even[0] + odd[1], even[1] - odd[0]];
    }
    y
}

impl Chirp {
    fn new(n: usize) -> Chirp {
        let inner = Plan::new((2 * n - 1).next_power_of_two());
        // The square modulo the period of the chirp.
        let factors = Numbers::new(n, |k| {
            let square = (k as u128 * k as u128 % (2 * n as u128)) as usize;
            let [cos, sin] = root_of_unity(square, 2 * n);
            [cos, -sin]
        });
        let length = inner.n;
        let mut kernel = Numbers::new(length, |i| {
            let k = i.min(length - i);
            if k < n { [factors.re[k], -factors.im[k]] } else { [0.0, 0.0] }
        });
        let mut work = vec![0.0; inner.workspace()];
        inner.run(&mut kernel.re, &mut kernel.im, &mut work);
        for x in kernel.re.iter_mut().chain(&mut kernel.im) {
            *x /= length as f64;
        }
        Chirp { inner, factors, kernel }
    }

    #[inline(always)]
    fn run(&self, re: &mut [f64], im: &mut [f64], work: &mut [f64]) {
        let (n, length) = (re.len(), self.inner.n);
        let (x, rest) = work.split_at_mut(length);
        let (y, rest) = rest.split_at_mut(length);
        let factor = |i: usize| [self.factors.re[i], self.factors.im[i]];
        x[n..].fill(0.0);
        y[n..].fill(0.0);
        for i in 0..n {
            [x[i], y[i]] = multiplied([re[i], im[i]], factor(i));
        }
        self.inner.stockham(x, y, rest);
        for i in 0..length {
            // Conjugated, so that the transform forward is that back.
            let [a, b] = multiplied([x[i], y[i]], [self.kernel.re[i], self.kernel.im[i]]);
            (x[i], y[i]) = (a, -b);
        }
        self.inner.stockham(x, y, rest);
        for i in 0..n {
            [re[i], im[i]] = multiplied([x[i], -y[i]], factor(i));
        }
    }
}

struct Transform<'a>(&'a Plan, [&'a mut [f64]; 2], &'a mut [f64]);

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let [re, im] = self.1;
        self.0.run(re, im, self.2);
    }
}

/// Runs a transform.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn transform(
    op: &Dft,
    plan: &Plan,
    cx: &Context<'_>,
    [x, y]: [&View; 2],
    operands: &[*mut u8],
) {
    let (n, isa) = (plan.n, cx.isa);
    let count: usize = x.shape[..x.shape.len() - 2].iter().product();
    let (from, to) = (Batch::new(x, 2, operands), Batch::new(y, 2, operands));
    each(cx, count, 2 * n, 4 * n + plan.workspace(), |at, room| {
        let (pairs, rest) = room.split_at_mut(2 * n);
        let (re, rest) = rest.split_at_mut(n);
        let (im, work) = rest.split_at_mut(n);
        // SAFETY: passed on; every task has its own lines.
        unsafe { from.read(at, pairs) };
        // Forward with the parts exchanged is back.
        let [real, imaginary] = [usize::from(op.inverse), usize::from(!op.inverse)];
        for (i, pair) in pairs.chunks_exact(2).enumerate() {
            (re[i], im[i]) = (pair[real], pair[imaginary]);
        }
        isa.run(Transform(plan, [re, im], work));
        for (i, pair) in pairs.chunks_exact_mut(2).enumerate() {
            (pair[real], pair[imaginary]) = (re[i], im[i]);
        }
        // SAFETY: as above.
        unsafe { to.write(at, pairs) };
    });
}
