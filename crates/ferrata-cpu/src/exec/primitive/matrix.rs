//! Factorisations of matrices and triangular systems. The algorithms are those of the reference,
//! compiled for wider vectors.

use super::batch::{Batch, each};
use crate::exec::Context;
use crate::isa::{Kernel, Level};
use ferrata_compiler::kernel::View;
use ferrata_ir::matrix::{factorize, solve_triangular, workspace};
use ferrata_ir::primitive::{Factorization, TriangularSolve};

/// Most results of a factorisation.
const RESULTS: usize = 3;

struct Factors<'a, 'b> {
    kind: Factorization,
    shape: [usize; 2],
    x: &'a mut [f64],
    results: &'a mut [&'b mut [f64]],
    work: &'a mut [f64],
}

impl Kernel for Factors<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        factorize(self.kind, self.shape, self.x, self.results, self.work);
    }
}

struct Solution<'a>(&'a TriangularSolve, &'a [f64], &'a mut [f64], usize);

impl Kernel for Solution<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        solve_triangular(self.1, self.2, self.3, self.0.lower, self.0.unit);
    }
}

/// Sizes of the matrices of a view, and how many there are.
fn matrices(view: &View) -> ([usize; 2], usize) {
    let split = view.shape.len() - 2;
    ([view.shape[split], view.shape[split + 1]], view.shape[..split].iter().product())
}

/// Runs a factorisation.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn factors(
    kind: Factorization,
    cx: &Context<'_>,
    input: &View,
    outputs: &[View],
    operands: &[*mut u8],
) {
    let (shape, count) = matrices(input);
    let leading = input.shape.len() - 2;
    let from = Batch::new(input, 2, operands);
    let to = outputs.iter().map(|v| Batch::new(v, v.shape.len() - leading, operands));
    let to: Vec<Batch> = to.collect();
    let (isa, elements) = (cx.isa, shape[0] * shape[1]);
    let made: usize = to.iter().map(|t| t.elements).sum();
    let numbers = elements + made + workspace(kind, shape[0], shape[1]);
    each(cx, count, elements, numbers, |at, room| {
        let (x, mut rest) = room.split_at_mut(elements);
        let mut results: [&mut [f64]; RESULTS] = Default::default();
        for (result, to) in results.iter_mut().zip(&to) {
            (*result, rest) = rest.split_at_mut(to.elements);
        }
        let results = &mut results[..to.len()];
        // SAFETY: passed on; every task has its own matrices.
        unsafe { from.read(at, x) };
        isa.run(Factors { kind, shape, x, results, work: rest });
        for (result, to) in results.iter().zip(&to) {
            // SAFETY: as above.
            unsafe { to.write(at, result) };
        }
    });
}

/// Runs a triangular system.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn solution(
    op: &TriangularSolve,
    cx: &Context<'_>,
    inputs: &[View],
    output: &View,
    operands: &[*mut u8],
) {
    let (([n, k], count), isa) = (matrices(output), cx.isa);
    let [t, right, to] = [&inputs[0], &inputs[1], output].map(|view| Batch::new(view, 2, operands));
    each(cx, count, n * (n + k), n * (n + k), |at, room| {
        let (factors, x) = room.split_at_mut(n * n);
        // SAFETY: passed on; every task has its own matrices.
        unsafe {
            t.read(at, factors);
            right.read(at, x);
        }
        isa.run(Solution(op, factors, x, n));
        // SAFETY: as above.
        unsafe { to.write(at, x) };
    });
}
