//! Products of few rows and columns and long sums, such as gradients of weights: the sums are cut
//! into parts by sizes alone, each part is a product of its own, whose operands stay in the second
//! cache, and the parts are added up in order.

use super::EpilogueTile;
use super::element::{Pack, Stored};
use super::packed::{Narrow, Product, share};
use super::skinny::Sum;
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::{Dot, Simd};

/// Elements of the result, at most.
const ELEMENTS: usize = 1 << 18;
/// Steps for each row and each column, at least.
const RATIO: usize = 4;
/// Steps of a part, at least.
const STEPS: usize = 512;
/// Parts, at least and at most.
const PARTS: [usize; 2] = [4, 16];
/// Elements of all parts, wanted at most.
const SUMS: usize = 1 << 20;
/// Tasks that add up the parts.
const TASKS: usize = 8;

impl<In, Out, A> Product<'_, In, Out, A>
where
    A: Stored<A> + Default + Sum,
    In: Stored<A>,
    Out: Stored<A>,
{
    /// Computes the product if its sums are long compared with its result, and says so.
    ///
    /// # Safety
    /// As [`Product::multiply`].
    pub unsafe fn multiply_deep<L, D>(&self, pool: &Pool) -> bool
    where
        L: Level,
        D: Dot<Acc: Simd<Elem = A>, Left: Pack<In>, Right: Pack<In>>,
    {
        let elements = self.m * self.n;
        let most = (SUMS / elements).clamp(PARTS[0], PARTS[1]);
        let parts = (self.k / STEPS).min(most);
        let deep = self.k >= RATIO * self.m.max(self.n) && elements <= ELEMENTS;
        if !deep || parts < PARTS[0] {
            return false;
        }
        pool.with_scratch(pool.worker(), parts * elements * size_of::<A>(), |scratch| {
            let sums = Parts(scratch.as_mut_ptr::<A>());
            pool.run(parts, &|part, _| {
                let steps = share(&(0..self.k), parts, D::GROUP, part);
                let product = Product::<In, A, A> {
                    m: self.m,
                    n: self.n,
                    k: steps.len(),
                    a: self.a,
                    a_rows: self.a_rows,
                    a_columns: self.a_columns,
                    b: self.b,
                    b_rows: self.b_rows,
                    b_columns: self.b_columns,
                    first: self.first + steps.start,
                    c: sums.at(part * elements),
                    c_row: self.n,
                    accumulate: false,
                    batch: self.batch,
                    epilogue: None,
                    marker: self.marker,
                };
                // SAFETY: passed on; every part has room of its own.
                unsafe { product.multiply::<L, D>(pool) };
            });
            pool.run(TASKS.min(self.m), &|task, worker| {
                // SAFETY: passed on; tasks finish different rows.
                unsafe { self.finish::<L>(pool, worker, sums.at(0), parts, task) };
            });
        });
        true
    }

    /// Adds up the parts of a task's rows, and what the output holds, shows them to the epilogue and
    /// writes them to the output.
    unsafe fn finish<L: Level>(
        &self,
        pool: &Pool,
        worker: usize,
        sums: *mut A,
        parts: usize,
        task: usize,
    ) {
        let rows = share(&(0..self.m), TASKS.min(self.m), 1, task);
        let buffered = self.buffered();
        let bytes = if buffered { rows.len() * self.n * size_of::<A>() } else { 0 };
        pool.with_scratch(worker, bytes, |scratch| {
            let out = self.c.wrapping_add(rows.start * self.c_row);
            let (data, row) = if buffered {
                (scratch.as_mut_ptr::<A>(), self.n)
            } else {
                (out.cast::<A>(), self.c_row)
            };
            let size = [rows.len(), self.n];
            // SAFETY: within the parts, the scratch and the output.
            unsafe {
                let from = sums.add(rows.start * self.n).cast_const();
                let total = Total {
                    size,
                    from,
                    parts,
                    part: self.m * self.n,
                    held: self.accumulate.then_some((out.cast_const(), self.c_row)),
                    to: data,
                    row,
                };
                L::call(total);
                if let Some(epilogue) = self.epilogue {
                    let (batch, columns, data) = (self.batch, 0..self.n, data.cast());
                    epilogue(&EpilogueTile { batch, rows, columns, data, row_stride: row });
                }
                if buffered && !self.c.is_null() {
                    let (from, to_row) = (data.cast_const(), self.c_row);
                    L::call(Narrow { size, from, from_row: row, to: out, to_row });
                }
            }
        });
    }
}

/// Sums of all parts, one behind the other.
struct Parts<A>(*mut A);

// SAFETY: tasks write different elements.
unsafe impl<A> Sync for Parts<A> {}

impl<A> Parts<A> {
    fn at(&self, element: usize) -> *mut A {
        self.0.wrapping_add(element)
    }
}

/// Adds up parts, and what is held.
struct Total<Out, A> {
    size: [usize; 2],
    /// Rows of all columns.
    from: *const A,
    parts: usize,
    /// Elements from one part to the next.
    part: usize,
    /// What the result holds, and the elements between its rows.
    held: Option<(*const Out, usize)>,
    to: *mut A,
    row: usize,
}

impl<Out: Stored<A>, A: Copy + Sum> Kernel for Total<Out, A> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let [rows, columns] = self.size;
        for i in 0..rows {
            // SAFETY: whoever makes this gives parts, what is held, and room of this size.
            unsafe {
                let (from, to) = (self.from.add(i * columns), self.to.add(i * self.row));
                for j in 0..columns {
                    let held = self.held.map(|(held, row)| held.add(i * row + j).read().widen());
                    let first = from.add(j).read();
                    to.add(j).write(held.map_or(first, |held| first.plus(held)));
                }
                for part in 1..self.parts {
                    let from = from.add(part * self.part);
                    for j in 0..columns {
                        to.add(j).write(to.add(j).read().plus(from.add(j).read()));
                    }
                }
            }
        }
    }
}
