//! Products with few rows or few columns: the time goes into reading the large operand, so it is
//! read once, in place and in the order of memory, and never packed.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::element::Stored;
use super::packed::Product;
use super::{Epilogue, EpilogueTile};
use crate::cache::Caches;
use crate::isa::{Kernel, Level};
use crate::pool::Pool;
use crate::simd::Simd;

/// Rows (or columns) up to which a product is skinny.
const FEW: usize = 8;
/// Tasks that the large operand is split into if its size allows.
const TASKS: usize = 32;
/// Bytes of the large operand in one task.
const TASK_BYTES: Range<usize> = 64 << 10..1 << 20;
/// Multiplications below which waking other threads costs more than it brings.
const SERIAL: usize = 1 << 16;
/// Lines that are finished by one task, at most.
const TASK_LINES: usize = 512;
/// Steps of the contracted dimension between two passes over the small operand's rows, so that
/// what they share stays in the first cache.
const DEPTH: usize = 1024;
/// Lines that a dot product reads side by side.
const ABREAST: usize = 4;
/// Steps that a sum of scaled rows takes at once: their rows may all fall on the same few lines of
/// the first cache.
const STEPS: usize = 4;

/// A product seen as `few` rows times a large matrix of `k` steps × `lines` lines.
struct Skinny<'a, In, Out, A> {
    few: usize,
    k: usize,
    lines: usize,
    /// The large operand.
    large: *const In,
    /// Elements from one line to the next, and from one step to the next; one of them is 1.
    line: isize,
    step: isize,
    /// The small operand, as the large one's layout wants it: the few rows one after the other for
    /// dot products, the few factors of one step together for sums of rows.
    small: *const A,
    /// The output; null where only the epilogue wants the result.
    c: *mut Out,
    /// Elements of the output from one of the few rows to the next, and from one line to the next.
    c_few: usize,
    c_line: usize,
    accumulate: bool,
    /// Whether the few rows are the output's columns.
    turned: bool,
    batch: usize,
    epilogue: Option<&'a Epilogue<'a>>,
}

// SAFETY: operands are only read; tasks write different lines of `c`.
unsafe impl<In, Out, A> Sync for Skinny<'_, In, Out, A> {}

/// A pointer to what tasks write different parts of.
struct Parts<A>(*mut A);

// SAFETY: as said.
unsafe impl<A> Sync for Parts<A> {}

impl<A> Parts<A> {
    fn get(&self) -> *mut A {
        self.0
    }
}

impl<In, Out, A> Product<'_, In, Out, A>
where
    A: Copy + Default + Sum + Send + Sync + 'static,
    In: Stored<A>,
    Out: Stored<A>,
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
        let left = (self.a, self.a_rows, self.a_columns);
        let right = (self.b, self.b_columns, self.b_rows);
        let (small, large) = if turned { (right, left) } else { (left, right) };
        let (large, Some(line), Some(step)) = (large.0, large.1.single(), large.2.single()) else {
            return false;
        };
        if line != 1 && step != 1 {
            return false;
        }
        let k = self.k;
        pool.with_scratch(pool.worker(), few * k * size_of::<A>(), |scratch| {
            let packed = scratch.as_mut_ptr::<A>();
            let (row, column) = if step == 1 { (k, 1) } else { (1, few) };
            for i in 0..few {
                for p in 0..k {
                    // SAFETY: within the small operand, and within the scratch.
                    unsafe {
                        let from = small.0.offset(small.1.at(i) + small.2.at(p));
                        packed.add(i * row + p * column).write(from.read().widen());
                    }
                }
            }
            let skinny = Skinny {
                few,
                k,
                lines,
                large,
                line,
                step,
                small: packed.cast_const(),
                c: self.c,
                c_few: if turned { 1 } else { self.c_row },
                c_line: if turned { self.c_row } else { 1 },
                accumulate: self.accumulate,
                turned,
                batch: self.batch,
                epilogue: self.epilogue,
            };
            // SAFETY: passed on.
            unsafe {
                if step == 1 {
                    skinny.by_lines::<L, V>(pool);
                } else {
                    skinny.by_steps::<L, V>(pool);
                }
            }
        });
        true
    }
}

impl<In, Out, A> Skinny<'_, In, Out, A>
where
    A: Copy + Default + Sum + Send + Sync + 'static,
    In: Stored<A>,
    Out: Stored<A>,
{
    fn each(&self, pool: &Pool, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if self.few * self.lines * self.k <= SERIAL {
            (0..tasks).for_each(|index| task(index, pool.worker()));
        } else {
            pool.run(tasks, task);
        }
    }

    /// Bytes of the large operand in one task.
    fn task_bytes(&self) -> usize {
        let all = self.lines * self.k * size_of::<In>();
        (all / TASKS).clamp(TASK_BYTES.start, TASK_BYTES.end)
    }

    /// Every task takes some lines, whose steps are neighbours in memory.
    unsafe fn by_lines<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool) {
        let most = self.task_bytes() / (self.k * size_of::<In>());
        let most = most.next_multiple_of(ABREAST).clamp(ABREAST, TASK_LINES);
        self.each(pool, self.lines.div_ceil(most), &|task, worker| {
            let lines = task * most..((task + 1) * most).min(self.lines);
            let bytes = self.few * most * size_of::<A>();
            pool.with_scratch(worker, bytes, |scratch| {
                let sums = scratch.as_mut_ptr::<A>();
                // SAFETY: `multiply_skinny`'s contract; the scratch holds `few` rows of sums.
                unsafe {
                    sums.write_bytes(0, self.few * most);
                    L::call(Dots::<In, Out, A, V> {
                        skinny: self,
                        lines: lines.clone(),
                        sums,
                        row: most,
                        vector: PhantomData,
                    });
                    let sums = Sums { data: sums.cast_const(), parts: 1, row: most };
                    self.finish::<L>(pool, worker, sums, lines);
                }
            });
        });
    }

    /// Every task takes some steps, whose lines are neighbours in memory, and adds up sums of its
    /// own; these are added in order.
    unsafe fn by_steps<L: Level, V: Simd<Elem = A>>(&self, pool: &Pool) {
        // What a task adds to stays in the first cache.
        let columns = (Caches::get().l1 / 2 / (self.few * size_of::<A>())).max(TASK_LINES);
        let columns = columns.next_multiple_of(V::LANES).min(self.lines);
        let across = self.lines.div_ceil(columns);
        let steps = (self.task_bytes() / (columns * size_of::<In>())).next_multiple_of(STEPS);
        let down = self.k.div_ceil(steps);
        let (row, whole) = (self.lines, self.few * self.lines);
        pool.with_scratch(pool.worker(), down * whole * size_of::<A>(), |scratch| {
            let sums = Parts(scratch.as_mut_ptr::<A>());
            self.each(pool, down * across, &|task, _| {
                let (part, column) = (task / across, task % across * columns);
                let lines = column..(column + columns).min(self.lines);
                let steps = part * steps..((part + 1) * steps).min(self.k);
                // SAFETY: `multiply_skinny`'s contract; parts of the scratch are disjoint.
                unsafe {
                    let sums = sums.get().add(part * whole);
                    for i in 0..self.few {
                        sums.add(i * row + lines.start).write_bytes(0, lines.len());
                    }
                    let vector = PhantomData::<V>;
                    L::call(Rows { skinny: self, lines, steps, sums, row, vector });
                }
            });
            self.each(pool, self.lines.div_ceil(TASK_LINES), &|task, worker| {
                let lines = task * TASK_LINES..((task + 1) * TASK_LINES).min(self.lines);
                // SAFETY: as above; tasks finish different lines.
                unsafe {
                    let data = sums.get().add(lines.start).cast_const();
                    self.finish::<L>(pool, worker, Sums { data, parts: down, row }, lines);
                }
            });
        });
    }

    /// Adds up some lines' sums of `parts` parts, and what the output holds, shows them to the
    /// epilogue and writes them to the output.
    unsafe fn finish<L: Level>(
        &self,
        pool: &Pool,
        worker: usize,
        sums: Sums<A>,
        lines: Range<usize>,
    ) {
        // The epilogue may count on an output of the accumulators' type to hold the sums itself.
        let direct = !self.c.is_null() && TypeId::of::<Out>() == TypeId::of::<A>();
        let bytes = if direct { 0 } else { self.few * lines.len() * size_of::<A>() };
        pool.with_scratch(worker, bytes, |scratch| {
            let out = self.c.wrapping_add(lines.start * self.c_line);
            let few = 0..self.few;
            let (rows, columns) =
                if self.turned { (lines.clone(), few) } else { (few, lines.clone()) };
            let (data, to_few, to_line) = match (direct, self.turned) {
                (true, _) => (out.cast::<A>(), self.c_few, self.c_line),
                (false, true) => (scratch.as_mut_ptr(), 1, columns.len()),
                (false, false) => (scratch.as_mut_ptr(), columns.len(), 1),
            };
            let row_stride = if self.turned { to_line } else { to_few };
            let count = lines.len();
            // SAFETY: within the sums, the scratch and the output.
            unsafe {
                L::call(Total { skinny: self, sums, count, out, to: data, to_few, to_line });
                if let Some(epilogue) = self.epilogue {
                    let (batch, data) = (self.batch, data.cast());
                    epilogue(&EpilogueTile { batch, rows, columns, data, row_stride });
                }
                if !direct && !self.c.is_null() {
                    let from = data.cast_const();
                    L::call(Write { skinny: self, count, from, to_few, to_line, out });
                }
            }
        });
    }
}

/// Sums of every one of the few rows, in parts that are to be added.
struct Sums<A> {
    data: *const A,
    parts: usize,
    /// Elements from one of the few rows to the next.
    row: usize,
}

/// Adds up sums to `to[few, line]`.
struct Total<'a, In, Out, A> {
    skinny: &'a Skinny<'a, In, Out, A>,
    sums: Sums<A>,
    /// Lines.
    count: usize,
    out: *const Out,
    to: *mut A,
    to_few: usize,
    to_line: usize,
}

impl<In, Out: Stored<A>, A: Copy + Default + Sum> Kernel for Total<'_, In, Out, A> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (s, sums) = (self.skinny, &self.sums);
        for i in 0..s.few {
            for j in 0..self.count {
                // SAFETY: `finish`'s contract.
                unsafe {
                    let at = i * self.to_few + j * self.to_line;
                    let mut total = sums.data.add(i * sums.row + j).read();
                    for part in 1..sums.parts {
                        total = total.plus(*sums.data.add((part * s.few + i) * sums.row + j));
                    }
                    if s.accumulate {
                        total = total.plus(self.out.add(i * s.c_few + j * s.c_line).read().widen());
                    }
                    self.to.add(at).write(total);
                }
            }
        }
    }
}

/// Addition in the rounding or wrapping of the type.
pub(super) trait Sum {
    fn plus(self, other: Self) -> Self;
}

macro_rules! sum {
    ($($t:ty: |$a:ident, $b:ident| $sum:expr),*) => {$(
        impl Sum for $t {
            #[inline(always)]
            fn plus(self, other: $t) -> $t {
                let ($a, $b) = (self, other);
                $sum
            }
        }
    )*};
}
sum!(f32: |a, b| a + b, f64: |a, b| a + b);
sum!(i32: |a, b| a.wrapping_add(b), i64: |a, b| a.wrapping_add(b));

/// Writes what is finished to the output.
struct Write<'a, In, Out, A> {
    skinny: &'a Skinny<'a, In, Out, A>,
    /// Lines.
    count: usize,
    from: *const A,
    to_few: usize,
    to_line: usize,
    out: *mut Out,
}

impl<In, Out: Stored<A>, A: Copy> Kernel for Write<'_, In, Out, A> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let s = self.skinny;
        for i in 0..s.few {
            for j in 0..self.count {
                // SAFETY: `finish`'s contract.
                unsafe {
                    let x = self.from.add(i * self.to_few + j * self.to_line).read();
                    self.out.add(i * s.c_few + j * s.c_line).write(Out::narrow(x));
                }
            }
        }
    }
}

/// As many numbers as a vector has, widened.
#[inline(always)]
unsafe fn load<V: Simd<Elem: Default>, In: Stored<V::Elem>>(from: *const In) -> V {
    const { assert!(V::LANES <= 16) };
    // SAFETY: the caller gives the numbers.
    unsafe {
        if TypeId::of::<In>() == TypeId::of::<V::Elem>() {
            return V::load(from.cast());
        }
        if TypeId::of::<In>() == TypeId::of::<bf16>() {
            return V::load_high(from.cast());
        }
        let mut wide = [V::Elem::default(); 16];
        for (i, x) in wide.iter_mut().enumerate().take(V::LANES) {
            *x = from.add(i).read().widen();
        }
        V::load(wide.as_ptr())
    }
}

/// The first `n` numbers of a vector, widened, then zeros.
#[inline(always)]
unsafe fn load_first<V: Simd<Elem: Default>, In: Stored<V::Elem>>(from: *const In, n: usize) -> V {
    // SAFETY: the caller gives the numbers.
    unsafe {
        let mut wide = [V::Elem::default(); 16];
        for (i, x) in wide.iter_mut().enumerate().take(n) {
            *x = from.add(i).read().widen();
        }
        V::load(wide.as_ptr())
    }
}

/// Adds some steps of some lines, which are neighbours in memory, to the lines' sums.
struct Rows<'a, In, Out, A, V> {
    skinny: &'a Skinny<'a, In, Out, A>,
    lines: Range<usize>,
    steps: Range<usize>,
    /// Sums of all lines.
    sums: *mut A,
    /// Elements from one of the few rows' sums to the next.
    row: usize,
    vector: PhantomData<V>,
}

impl<In: Stored<A>, Out, A, V: Simd<Elem = A>> Kernel for Rows<'_, In, Out, A, V>
where
    A: Copy + Default,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let whole = self.steps.start + self.steps.len() / STEPS * STEPS;
        // SAFETY: `multiply_skinny`'s contract; every access lies within the operands' sizes.
        unsafe {
            for p in (self.steps.start..whole).step_by(STEPS) {
                self.add::<STEPS>(p);
            }
            for p in whole..self.steps.end {
                self.add::<1>(p);
            }
        }
    }
}

impl<In: Stored<A>, Out, A: Copy + Default, V: Simd<Elem = A>> Rows<'_, In, Out, A, V> {
    /// Adds `K` steps to every sum.
    #[inline(always)]
    unsafe fn add<const K: usize>(&self, p: usize) {
        let s = self.skinny;
        let count = self.lines.len();
        // SAFETY: `multiply_skinny`'s contract.
        unsafe {
            let sums = self.sums.add(self.lines.start);
            let rows: [*const In; K] = std::array::from_fn(|u| {
                s.large.offset((p + u) as isize * s.step).add(self.lines.start)
            });
            let whole = count / V::LANES * V::LANES;
            for j in (0..whole).step_by(V::LANES) {
                let x: [V; K] = std::array::from_fn(|u| load(rows[u].add(j)));
                for i in 0..s.few {
                    let to = sums.add(i * self.row + j);
                    self.scale(i, p, V::load(to), x).store(to);
                }
            }
            let left = count - whole;
            if left > 0 {
                let x: [V; K] = std::array::from_fn(|u| load_first(rows[u].add(whole), left));
                for i in 0..s.few {
                    let to = sums.add(i * self.row + whole);
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
                let factor = *self.skinny.small.add((p + u) * self.skinny.few + i);
                sum = sum.mul_add(V::splat(factor), x);
            }
        }
        sum
    }
}

/// Adds the dot products of some lines to their sums.
struct Dots<'a, In, Out, A, V> {
    skinny: &'a Skinny<'a, In, Out, A>,
    lines: Range<usize>,
    /// Sums of these lines.
    sums: *mut A,
    /// Elements from one of the few rows' sums to the next.
    row: usize,
    vector: PhantomData<V>,
}

impl<In: Stored<A>, Out, A, V: Simd<Elem = A>> Kernel for Dots<'_, In, Out, A, V>
where
    A: Copy + Default,
{
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let (k, count) = (self.skinny.k, self.lines.len());
        let whole = count / ABREAST * ABREAST;
        // A single row shares nothing between lines, so that each is read to its end.
        let depth = if self.skinny.few == 1 { k } else { DEPTH };
        for start in (0..k).step_by(depth) {
            let steps = start..(start + depth).min(k);
            // SAFETY: `multiply_skinny`'s contract; every access lies within the operands' sizes.
            unsafe {
                for j in (0..whole).step_by(ABREAST) {
                    self.dots_of_lines::<ABREAST>(j, &steps);
                }
                for j in whole..count {
                    self.dots_of_lines::<1>(j, &steps);
                }
            }
        }
    }
}

impl<In: Stored<A>, Out, A: Copy + Default, V: Simd<Elem = A>> Dots<'_, In, Out, A, V> {
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
            let large: [*const In; J] = std::array::from_fn(|u| line(j + u).add(steps.start));
            let small: [*const A; R] =
                std::array::from_fn(|u| s.small.add((i + u) * s.k + steps.start));
            let mut acc = [[V::splat(A::default()); J]; R];
            let whole = depth / V::LANES * V::LANES;
            for p in (0..whole).step_by(V::LANES) {
                let x: [V; J] = std::array::from_fn(|u| load(large[u].add(p)));
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
                        *acc = acc.mul_add(y, load_first(large.add(whole), left));
                    }
                }
            }
            for (u, row) in acc.iter().enumerate() {
                for (w, x) in row.iter().enumerate() {
                    let to = self.sums.add((i + u) * self.row + j + w);
                    // The vector's own addition, for the rounding or wrapping of its type.
                    let sum = V::splat(x.sum()).add(V::splat(to.read()));
                    sum.store_first(to, 1);
                }
            }
        }
    }
}
