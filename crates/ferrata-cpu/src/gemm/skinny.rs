//! Products with few rows or few columns: the time goes into reading the large operand, so it is
//! read once, in place, and never packed.

use std::marker::PhantomData;
use std::ops::Range;

use super::packed::Product;
use super::{Epilogue, EpilogueTile};
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::Simd;

/// Rows (or columns) up to which a product is skinny.
const FEW: usize = 8;
/// Lines of the large operand in one task.
const TASK_LINES: usize = 512;
/// Steps of the contracted dimension between two passes over the small operand's rows, so that
/// what they share stays in the first-level cache.
const DEPTH: usize = 1024;
/// Lines that a dot product reads side by side.
const ABREAST: usize = 4;
/// Steps that a sum of scaled rows takes at once.
const STEPS: usize = 8;

/// A product seen as `few` rows times a large matrix of `k` steps × `lines` lines.
struct Skinny<'a, A> {
    few: usize,
    k: usize,
    /// The large operand.
    large: *const A,
    /// Elements from one line to the next, and from one step to the next; one of them is 1.
    line: isize,
    step: isize,
    /// The output; null where only the epilogue wants the result.
    c: *mut A,
    /// Elements of the output (or, without one, of what the epilogue sees) from one of the few rows to the next, and from one line to the next.
    c_few: usize,
    c_line: usize,
    accumulate: bool,
    /// Whether the few rows are the output's columns.
    turned: bool,
    batch: usize,
    epilogue: Option<&'a Epilogue<'a>>,
}

// SAFETY: operands are only read; tasks write different lines of `c`.
unsafe impl<A> Sync for Skinny<'_, A> {}

/// A pointer to what tasks only read.
struct Shared<A>(*const A);

// SAFETY: as said.
unsafe impl<A> Sync for Shared<A> {}

impl<A> Product<'_, A, A, A>
where
    A: Copy + Default + Send + Sync + 'static,
{
    /// Computes the product if it is skinny and its large operand's layout allows, and says so.
    ///
    /// # Safety
    /// As [`Product::multiply`].
    pub unsafe fn multiply_skinny<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool) -> bool {
        let turned = self.m > FEW;
        if self.k == 0 || (turned && self.n > FEW) {
            return false;
        }
        let (few, lines) = if turned { (self.n, self.m) } else { (self.m, self.n) };
        let (small, small_row, small_step) = if turned {
            (self.b, self.b_col, self.b_row)
        } else {
            (self.a, self.a_row, self.a_col)
        };
        let (large, line, step) = if turned {
            (self.a, self.a_row, self.a_col)
        } else {
            (self.b, self.b_col, self.b_row)
        };
        if line != 1 && step != 1 {
            return false;
        }
        let (c_few, c_line) = match (self.c.is_null(), turned) {
            (false, false) => (self.c_row, 1),
            (false, true) => (1, self.c_row),
            (true, false) => (TASK_LINES, 1),
            (true, true) => (1, few),
        };
        let (c, accumulate, batch, epilogue) = (self.c, self.accumulate, self.batch, self.epilogue);
        let k = self.k;
        let skinny = Skinny {
            few,
            k,
            large,
            line,
            step,
            c,
            c_few,
            c_line,
            accumulate,
            turned,
            batch,
            epilogue,
        };
        pool.with_scratch(pool.worker(), few * k * size_of::<A>(), |scratch| {
            let packed = scratch.as_mut_ptr::<A>();
            // Dot products want the small rows one after the other, sums of rows want the few
            // factors of one step together.
            let (row, column) = if step == 1 { (k, 1) } else { (1, few) };
            for i in 0..few {
                for p in 0..k {
                    // SAFETY: within the small operand, and within the scratch.
                    unsafe {
                        let from = i as isize * small_row + p as isize * small_step;
                        packed.add(i * row + p * column).write(small.offset(from).read());
                    }
                }
            }
            let packed = Shared(packed.cast_const());
            let tasks = lines.div_ceil(TASK_LINES);
            pool.run(tasks, &|task, worker| {
                let packed = &packed;
                let lines = task * TASK_LINES..((task + 1) * TASK_LINES).min(lines);
                let bytes = 2 * few * TASK_LINES * size_of::<A>();
                pool.with_scratch(worker, bytes, |scratch| {
                    let sums = scratch.as_mut_ptr::<A>();
                    // SAFETY: `multiply`'s contract; the scratch holds `few` rows of sums twice.
                    unsafe {
                        let out = if skinny.c.is_null() {
                            sums.add(few * TASK_LINES)
                        } else {
                            skinny.c.add(lines.start * c_line)
                        };
                        skinny.start(sums, out, lines.len());
                        L::call(Task::<A, V> {
                            skinny: &skinny,
                            small: packed.0,
                            lines: lines.clone(),
                            sums,
                            vector: PhantomData,
                        });
                        skinny.finish(sums, out, lines);
                    }
                });
            });
        });
        true
    }
}

impl<A: Copy + Default> Skinny<'_, A> {
    /// Fills the sums of some lines with what the output at `out` holds, or zeros.
    unsafe fn start(&self, sums: *mut A, out: *const A, lines: usize) {
        for i in 0..self.few {
            for j in 0..lines {
                // SAFETY: within the output, and within the scratch.
                unsafe {
                    let at = out.add(i * self.c_few + j * self.c_line);
                    let x = if self.accumulate { at.read() } else { A::default() };
                    sums.add(i * TASK_LINES + j).write(x);
                }
            }
        }
    }

    /// Writes the sums of some lines to `out` and lets the epilogue see them.
    unsafe fn finish(&self, sums: *const A, out: *mut A, lines: Range<usize>) {
        for i in 0..self.few {
            for j in 0..lines.len() {
                // SAFETY: within the output, and within the scratch.
                unsafe {
                    let x = sums.add(i * TASK_LINES + j).read();
                    out.add(i * self.c_few + j * self.c_line).write(x);
                }
            }
        }
        let Some(epilogue) = self.epilogue else { return };
        let few = 0..self.few;
        let (rows, columns) = if self.turned { (lines, few) } else { (few, lines) };
        let row_stride = if self.turned { self.c_line } else { self.c_few };
        let (batch, data) = (self.batch, out.cast());
        epilogue(&EpilogueTile { batch, rows, columns, data, row_stride });
    }
}

/// Some lines of a skinny product: adds to their sums.
struct Task<'a, A, V> {
    skinny: &'a Skinny<'a, A>,
    /// The small operand, packed as the large one's layout wants it.
    small: *const A,
    lines: Range<usize>,
    /// Rows of `TASK_LINES` sums.
    sums: *mut A,
    vector: PhantomData<V>,
}

impl<A: Copy, V: Simd<Elem = A>> Kernel for Task<'_, A, V> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let k = self.skinny.k;
        // SAFETY: `multiply_skinny`'s contract; every access lies within the operands' sizes.
        unsafe {
            if self.skinny.step == 1 {
                for start in (0..k).step_by(DEPTH) {
                    self.dots(start..(start + DEPTH).min(k));
                }
            } else {
                let whole = k / STEPS * STEPS;
                for p in (0..whole).step_by(STEPS) {
                    self.add_rows::<STEPS>(p);
                }
                for p in whole..k {
                    self.add_rows::<1>(p);
                }
            }
        }
    }
}

impl<A: Copy, V: Simd<Elem = A>> Task<'_, A, V> {
    /// Adds `K` steps, whose lines are neighbours in memory, to every sum.
    #[inline(always)]
    unsafe fn add_rows<const K: usize>(&self, p: usize) {
        let s = self.skinny;
        let count = self.lines.len();
        // SAFETY: `multiply_skinny`'s contract.
        unsafe {
            let rows: [*const A; K] = std::array::from_fn(|u| {
                s.large.offset((p + u) as isize * s.step).add(self.lines.start)
            });
            let whole = count / V::LANES * V::LANES;
            for j in (0..whole).step_by(V::LANES) {
                let x: [V; K] = std::array::from_fn(|u| V::load(rows[u].add(j)));
                for i in 0..s.few {
                    let to = self.sums.add(i * TASK_LINES + j);
                    self.scale(i, p, V::load(to), x).store(to);
                }
            }
            let left = count - whole;
            if left > 0 {
                let x: [V; K] = std::array::from_fn(|u| V::load_first(rows[u].add(whole), left));
                for i in 0..s.few {
                    let to = self.sums.add(i * TASK_LINES + whole);
                    self.scale(i, p, V::load_first(to, left), x).store_first(to, left);
                }
            }
        }
    }

    /// `sum` plus `K` steps' vectors, scaled by row `i` of the small operand.
    #[inline(always)]
    unsafe fn scale<const K: usize>(&self, i: usize, p: usize, sum: V, x: [V; K]) -> V {
        let mut sum = sum;
        for (u, &x) in x.iter().enumerate() {
            // SAFETY: within the small operand.
            unsafe {
                sum = sum.mul_add(V::splat(*self.small.add((p + u) * self.skinny.few + i)), x)
            };
        }
        sum
    }

    /// Adds some steps, which are neighbours in memory, to every sum.
    #[inline(always)]
    unsafe fn dots(&self, steps: Range<usize>) {
        let count = self.lines.len();
        let whole = count / ABREAST * ABREAST;
        // SAFETY: `multiply_skinny`'s contract.
        unsafe {
            for j in (0..whole).step_by(ABREAST) {
                self.dots_of_lines::<ABREAST>(j, &steps);
            }
            for j in whole..count {
                self.dots_of_lines::<1>(j, &steps);
            }
        }
    }

    #[inline(always)]
    unsafe fn dots_of_lines<const J: usize>(&self, j: usize, steps: &Range<usize>) {
        let mut i = 0;
        // SAFETY: passed on.
        unsafe {
            while i + 2 <= self.skinny.few {
                self.dot::<2, J>(i, j, steps);
                i += 2;
            }
            if i < self.skinny.few {
                self.dot::<1, J>(i, j, steps);
            }
        }
    }

    /// Adds the dot products of rows `i..i + R` and lines `j..j + J` over some steps.
    #[inline(always)]
    unsafe fn dot<const R: usize, const J: usize>(&self, i: usize, j: usize, steps: &Range<usize>) {
        let s = self.skinny;
        let depth = steps.len();
        // SAFETY: `multiply_skinny`'s contract.
        unsafe {
            let line = |j: usize| s.large.offset((self.lines.start + j) as isize * s.line);
            let large: [*const A; J] = std::array::from_fn(|u| line(j + u).add(steps.start));
            let small: [*const A; R] =
                std::array::from_fn(|u| self.small.add((i + u) * s.k + steps.start));
            let mut acc = [[V::splat(zero::<V>()); J]; R];
            let whole = depth / V::LANES * V::LANES;
            for p in (0..whole).step_by(V::LANES) {
                let x: [V; J] = std::array::from_fn(|u| V::load(large[u].add(p)));
                for (row, small) in acc.iter_mut().zip(small) {
                    let y = V::load(small.add(p));
                    for (acc, &x) in row.iter_mut().zip(&x) {
                        *acc = acc.mul_add(y, x);
                    }
                }
            }
            let left = depth - whole;
            if left > 0 {
                for (row, small) in acc.iter_mut().zip(small) {
                    let y = V::load_first(small.add(whole), left);
                    for (acc, large) in row.iter_mut().zip(large) {
                        *acc = acc.mul_add(y, V::load_first(large.add(whole), left));
                    }
                }
            }
            for (u, row) in acc.iter().enumerate() {
                for (w, x) in row.iter().enumerate() {
                    let to = self.sums.add((i + u) * TASK_LINES + j + w);
                    // The vector's own addition, for the rounding or wrapping of its type.
                    let sum = V::splat(x.sum()).add(V::splat(to.read()));
                    sum.store_first(to, 1);
                }
            }
        }
    }
}

/// Zero as the vector's element.
#[inline(always)]
fn zero<V: Simd>() -> V::Elem {
    V::Elem::default()
}
