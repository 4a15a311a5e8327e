//! A matrix product on cube cores; the work behind it on vector cores.

use super::lower::Lowering;
use super::memory::{Arguments, stored, transpose};
use super::mlir::{Affine, Text, memref, tensor, tensor_of};
use super::{Core, Launch};
use crate::target::Target;
use ferrata_compiler::kernel::{Access, Contract, Instruction, Loop, Store};
use ferrata_ir::{DType, Error, Result};

/// Sides of the square blocks that cube cores multiply.
const BLOCK: usize = 16;
/// A move from global memory into blocks steps over fewer elements than this from row to row.
const LONGEST_STEP: isize = 1 << 16;

/// Appends the launches of a contraction.
///
/// # Errors
/// For dtypes that the cores do not multiply.
pub(crate) fn lower(contract: &Contract, lowering: &mut Lowering<'_>) -> Result<()> {
    let dtype = contract.left.dtype;
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) || contract.right.dtype != dtype {
        let (left, right) = (dtype, contract.right.dtype);
        let error = Error::new(format!("the cores do not multiply {left} by {right}"));
        return Err(error.help("cast to f32, f16 or bf16"));
    }
    let c = &contract.clone();
    let (batch, m, n, k) = (&c.batch[..], &c.m[..], &c.n[..], &c.k[..]);
    let mut product = Product {
        batch: batch.to_vec(),
        m: m.to_vec(),
        n: n.to_vec(),
        k: k.to_vec(),
        left: c.left.clone(),
        right: c.right.clone(),
        out: c.out.clone(),
    };
    if !moves(&c.left, [batch.len() + m.len(), batch.len() + m.len() + k.len()], [m, k]) {
        product.left = lowering.packed(&c.left, &[batch, m, k].concat())?;
    }
    if !moves(&c.right, [batch.len() + k.len(), batch.len() + k.len() + n.len()], [k, n]) {
        product.right = lowering.packed(&c.right, &[batch, k, n].concat())?;
    }
    let counts = [batch, m, n].concat();
    let rows_are_lines = c.out.strides.last().is_none_or(|&s| s == 1) && !n.is_empty();
    if c.epilogue.is_none() && rows_are_lines {
        let launch = product.emit(lowering.target)?;
        lowering.launch(launch);
        return Ok(());
    }
    product.out = lowering.dense(DType::F32, &counts);
    let launch = product.emit(lowering.target)?;
    lowering.launch(launch);
    lowering.nest(&behind(c, &counts, &product.out))
}

/// The epilogue as a loop nest that reads the product from memory.
pub(crate) fn behind(contract: &Contract, counts: &[usize], product: &Access) -> Loop {
    let (mut loads, mut body, mut stores) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(epilogue) = &contract.epilogue {
        loads.clone_from(&epilogue.loads);
        body.clone_from(&epilogue.body);
        stores.clone_from(&epilogue.stores);
    } else {
        body.push(Instruction::Product);
    }
    for x in body.iter_mut().filter(|x| **x == Instruction::Product) {
        *x = Instruction::Load(loads.len());
    }
    loads.push(product.clone());
    let register = body.len() - 1;
    stores.push(Store { register, access: contract.out.clone(), combine: None });
    Loop { rows: counts.to_vec(), columns: Vec::new(), loads, body, stores }
}

/// The strides of the innermost loops of two groups that end at `ends`.
fn inner(access: &Access, ends: [usize; 2], groups: [&[usize]; 2]) -> [isize; 2] {
    [0, 1].map(|i| match groups[i].last() {
        Some(n) if *n > 1 => access.strides[ends[i] - 1],
        _ => 0,
    })
}

/// Whether cube cores can read tiles as they lie in memory: one of the two directions has no gaps.
fn moves(access: &Access, ends: [usize; 2], groups: [&[usize]; 2]) -> bool {
    let long = |i: usize| groups[i].last().is_some_and(|&n| n > 1);
    let strides = inner(access, ends, groups);
    let line = |along: usize, across: usize| {
        (strides[along] == 1 || !long(along))
            && (!long(across) || (strides[across] > 0 && strides[across] < LONGEST_STEP))
    };
    access.strides.iter().all(|&s| s >= 0) && (line(1, 0) || line(0, 1))
}

struct Product {
    batch: Vec<usize>,
    m: Vec<usize>,
    n: Vec<usize>,
    k: Vec<usize>,
    left: Access,
    right: Access,
    out: Access,
}

/// A tile of one operand or of the result.
struct Tile<'a> {
    access: &'a Access,
    /// First step of each loop of the access.
    base: Vec<Affine>,
    /// Strides of rows and columns.
    strides: [isize; 2],
    size: [usize; 2],
    valid: [String; 2],
}

/// Tile sizes of rows, columns and sums: the largest that fit the buffers, none larger than the
/// product.
fn sizes(target: &Target, bytes: usize, [m, n, k]: [usize; 3]) -> [usize; 3] {
    let up = |n: usize, most: usize| n.next_multiple_of(BLOCK).min(most);
    let (m, n) = (up(m, 128), up(n, 256));
    // Each operand has two buffers in L1, and half of the rest is left free.
    let most = target.l1 * 3 / 4 / (2 * bytes * (m + n)) / 64 * 64;
    debug_assert!(4 * m * n <= target.l0c);
    [m, n, up(k, most.clamp(64, 512))]
}

impl Product {
    fn emit(&self, target: &Target) -> Result<Launch> {
        let last = |group: &[usize]| group.last().copied().unwrap_or(1);
        let (m, n, k) = (last(&self.m), last(&self.n), last(&self.k));
        let [tm, tn, tk] = sizes(target, self.left.dtype.size(), [m, n, k]);
        let outer = |group: &[usize]| group[..group.len().saturating_sub(1)].to_vec();
        let (outer_m, outer_n, outer_k) = (outer(&self.m), outer(&self.n), outer(&self.k));
        let tiles =
            [&self.batch[..], &outer_m, &outer_n, &[m.div_ceil(tm), n.div_ceil(tn)]].concat();
        let count: usize = tiles.iter().product();
        let grid = count.min(target.cube_cores);
        let text = &mut Text::default();
        let arguments = &mut Arguments::default();
        let (tile, regions) = super::tile_loop(text, count, grid);
        let mut steps = super::unravel(text, &tile, &tiles).into_iter();
        let mut take = |n: usize| -> Vec<Affine> { steps.by_ref().take(n).collect() };
        let batch = take(self.batch.len());
        let (mut rows, mut columns) = (take(outer_m.len()), take(outer_n.len()));
        let ends = take(2);
        let (row, column) = (ends[0].scaled(tm), ends[1].scaled(tn));
        let (row_count, column_count) = (left(text, &row, m, tm), left(text, &column, n, tn));
        rows.extend((!self.m.is_empty()).then_some(row));
        columns.extend((!self.n.is_empty()).then_some(column));

        let sum = tensor(&[tm, tn], "f32");
        let zero = text.value("arith.constant 0.0 : f32");
        let start = super::register::fill(text, &zero, "f32", &sum);
        // One loop over all sums: the outer ones and the tiles of the innermost.
        let turns = [&outer_k[..], &[k.div_ceil(tk)]].concat();
        let [begin, one, end] = [0, 1, turns.iter().product()].map(|n| text.index(n));
        let (turn, carried, total) = (text.name(), text.name(), text.name());
        text.open(format_args!(
            "{total} = scf.for {turn} = {begin} to {end} step {one} iter_args({carried} = {start}) -> \
             ({sum})"
        ));
        let mut sums = super::unravel(text, &turn, &turns);
        let depth = sums.pop().unwrap_or_default().scaled(tk);
        let depth_count = left(text, &depth, k, tk);
        sums.extend((!self.k.is_empty()).then_some(depth));
        let (b, ms, ks, ns) = (self.batch.len(), self.m.len(), self.k.len(), self.n.len());
        let tile = Tile {
            access: &self.left,
            base: [&batch[..], &rows, &sums].concat(),
            strides: inner(&self.left, [b + ms, b + ms + ks], [&self.m, &self.k]),
            size: [tm, tk],
            valid: [row_count.clone(), depth_count.clone()],
        };
        let x = tile.load(text, arguments)?;
        let tile = Tile {
            access: &self.right,
            base: [&batch[..], &sums, &columns].concat(),
            strides: inner(&self.right, [b + ks, b + ks + ns], [&self.k, &self.n]),
            size: [tk, tn],
            valid: [depth_count, column_count.clone()],
        };
        let y = tile.load(text, arguments)?;
        let element = stored(self.left.dtype)?;
        let (left, right) = (tensor(&[tm, tk], element), tensor(&[tk, tn], element));
        let next = text.value(format_args!(
            "linalg.matmul {{input_precison = \"ieee\"}} ins({x}, {y} : {left}, {right}) \
             outs({carried} : {sum}) -> {sum}"
        ));
        text.line(format_args!("scf.yield {next} : {sum}"));
        text.close();
        let tile = Tile {
            access: &self.out,
            base: [&batch[..], &rows, &columns].concat(),
            strides: inner(&self.out, [b + ms, b + ms + ns], [&self.m, &self.n]),
            size: [tm, tn],
            valid: [row_count, column_count],
        };
        tile.store(text, arguments, &total)?;
        (0..regions).for_each(|_| text.close());
        Ok(Launch::new(Core::Cube, std::mem::take(text), std::mem::take(arguments), grid))
    }
}

/// How many of `size` steps from `first` on are below `count`.
fn left(text: &mut Text, first: &Affine, count: usize, size: usize) -> String {
    if count.is_multiple_of(size) {
        return size.to_string();
    }
    if *first == Affine::default() && count < size {
        return count.to_string();
    }
    first.left(text, count, size)
}

impl Tile<'_> {
    /// The window on memory, cut to what counts: its name, its type, and whether rows and columns
    /// have changed places.
    fn place(&self, text: &mut Text, arguments: &mut Arguments) -> Result<(Place, bool)> {
        let element = stored(self.access.dtype)?;
        let pointer = arguments.pointer(self.access.operand, element);
        let access = self.access;
        let offset = Affine::sum(access.offset, &self.base, &access.strides).write(text);
        let ([mut rows, mut columns], mut strides) = (self.size, self.strides);
        let mut valid = self.valid.clone();
        // A side of one element has no stride; it counts as one without gaps.
        let turned = strides[1] > 1;
        if turned {
            (rows, columns) = (columns, rows);
            strides.reverse();
            valid.reverse();
        }
        let step = if strides[0] == 0 { columns as isize } else { strides[0] };
        let strides = [step, 1];
        let whole = memref(&[Some(rows), Some(columns)], &strides, true, element);
        let name = text.value(format_args!(
            "memref.reinterpret_cast {pointer} to offset: [{offset}], sizes: [{rows}, {columns}], \
             strides: [{step}, 1] : memref<?x{element}> to {whole}"
        ));
        let shape: Vec<Option<usize>> = valid.iter().map(|v| v.parse().ok()).collect();
        let ty = memref(&shape, &strides, true, element);
        let counts = valid.join(", ");
        let name = text
            .value(format_args!("memref.subview {name}[0, 0] [{counts}] [1, 1] : {whole} to {ty}"));
        Ok((Place { name, ty, element, shape, counts, size: [rows, columns] }, turned))
    }

    fn load(&self, text: &mut Text, arguments: &mut Arguments) -> Result<String> {
        let (from, turned) = self.place(text, arguments)?;
        let Place { name, ty, element, shape, counts, size: [rows, columns] } = from;
        let whole = format!("memref<{rows}x{columns}x{element}>");
        let part = memref(&shape, &[columns as isize, 1], false, element);
        let buffer = text.value(format_args!("memref.alloc() : {whole}"));
        let to = text.value(format_args!(
            "memref.subview {buffer}[0, 0] [{counts}] [1, 1] : {whole} to {part}"
        ));
        text.line(format_args!("memref.copy {name}, {to} : {ty} to {part}"));
        let name = text
            .value(format_args!("bufferization.to_tensor {buffer} restrict writable : {whole}"));
        Ok(if turned { transpose(text, &name, &[rows, columns], element) } else { name })
    }

    fn store(&self, text: &mut Text, arguments: &mut Arguments, sum: &str) -> Result<()> {
        let (to, turned) = self.place(text, arguments)?;
        debug_assert!(!turned);
        let wide = tensor(&self.size, "f32");
        let ty = tensor(&self.size, to.element);
        let name = match to.element {
            "f32" => sum.to_owned(),
            _ => text.value(format_args!("arith.truncf {sum} : {wide} to {ty}")),
        };
        let part = tensor_of(&to.shape, to.element);
        let counts = &to.counts;
        let name = text.value(format_args!(
            "tensor.extract_slice {name}[0, 0] [{counts}] [1, 1] : {ty} to {part}"
        ));
        let (to, to_ty) = (to.name, to.ty);
        text.line(format_args!(
            "bufferization.materialize_in_destination {name} in writable {to} : ({part}, {to_ty}) -> ()"
        ));
        Ok(())
    }
}

/// A window on global memory.
struct Place {
    name: String,
    ty: String,
    element: &'static str,
    /// What counts of each side, where that is known.
    shape: Vec<Option<usize>>,
    counts: String,
    size: [usize; 2],
}
