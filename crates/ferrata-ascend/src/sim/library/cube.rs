//! Matrix products: fractals from global memory to L1, from there to the operand buffers, sums in
//! L0C, and back to global memory.

use super::shuffle::whole;
use crate::sim::machine::Machine;
use crate::sim::memory::View;
use crate::sim::number::{decode, encode, rounded};
use crate::sim::syntax::{Kind, Pipe, Slot, Space};
use ferrata_ir::{Error, Result};

/// Rows of a fractal, and columns of one in L0C.
const ROWS: usize = 16;
/// Bytes of a row of a fractal.
const ROW_BYTES: usize = 32;
/// Bytes of each half of an operand buffer, which take turns.
const HALF: usize = 32 << 10;
/// A move into fractals steps over fewer elements than this from row to row.
const LONGEST_STEP: i64 = 1 << 16;

/// Runs such a function, if that is what the name says.
///
/// # Errors
/// When sizes or events do not fit.
pub(crate) fn call(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<bool> {
    if name.starts_with("nd2nz_") {
        to_fractals(machine, name, args)?;
    } else if name.starts_with("mma_tile_") && !name.contains("bias") && !name.contains("hf32") {
        multiply(machine, name, args)?;
    } else if name.starts_with("fixpipe_nz2nd_") && name.ends_with("_4d_to_2d") {
        from_fractals(machine, name, args)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Position of an element in fractals: `[column block][row block][row][column]`.
fn fractal(view: &View, row: usize, column: usize) -> i64 {
    let (rows, columns) = (view.sizes[2], view.sizes[3]);
    let index = [column / columns, row / rows, row % rows, column % columns];
    let steps = index.iter().zip(&view.strides).map(|(&i, s)| i as i64 * s);
    view.offset + steps.sum::<i64>()
}

/// Rows become fractals; the last column block is filled up with zeros.
fn to_fractals(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<()> {
    let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
    let (rows, columns) = (source.sizes[0], source.sizes[1]);
    if source.strides[1] != 1 || source.strides[0] >= LONGEST_STEP {
        return Err(Error::new(format!("`{name}` with strides {:?}", source.strides)));
    }
    let padded = columns.next_multiple_of(target.sizes[3]);
    if padded > target.sizes[0] * target.sizes[3] || rows > target.sizes[1] * target.sizes[2] {
        return Err(Error::new(format!("`{name}` from {:?} to {:?}", source.sizes, target.sizes)));
    }
    machine.issue(Pipe::Mte2, name, &[&source], &[&target])?;
    let values = machine.memories.read(&source);
    for row in 0..rows {
        for column in 0..padded {
            let value = if column < columns { values[row * columns + column] } else { 0 };
            machine.memories.put(&target, fractal(&target, row, column), value);
        }
    }
    Ok(())
}

/// What `mma_tile` is told.
struct Product {
    name: String,
    /// Operands in L1; whether they lie transposed.
    sides: [(View, bool); 2],
    sum: View,
    init: bool,
    k: usize,
    n: usize,
    /// The loads wait for the first two flags and set the others.
    events: [i64; 4],
    turn: i64,
    /// Flags between loads and products, if the program around sets them.
    back: [i64; 2],
}

fn multiply(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<()> {
    let int = |i: usize| -> Result<i64> { Ok(machine.number(args[i])?.as_i64()) };
    let size = |i: usize| -> Result<usize> {
        usize::try_from(int(i)?).map_err(|_| Error::new("a size below 0"))
    };
    let view = |i: usize| -> Result<View> { Ok((*machine.view(args[i])?).clone()) };
    let (ta, tb) = (name.contains("_ta"), name.ends_with("_tb"));
    let product = Product {
        name: name.to_owned(),
        sides: [(view(0)?, ta), (view(1)?, tb)],
        init: int(2)? != 0,
        k: size(4)?,
        n: size(5)?,
        sum: view(6)?,
        events: [int(7)?, int(8)?, int(9)?, int(10)?],
        turn: int(11)?,
        back: [int(12)?, int(13)?],
    };
    if int(14)? != 0 {
        return Err(Error::new(format!("`{name}` with a unit flag")));
    }
    product.run(machine)
}

impl Product {
    fn run(&self, machine: &mut Machine<'_>) -> Result<()> {
        let kind = self.sides[0].0.kind;
        let bytes = kind.bits() / 8;
        let lane = ROW_BYTES / bytes;
        let [m, n] = self.outer();
        let align = lane.max(16);
        let wide = m.max(n).next_multiple_of(align);
        let mut depth = HALF / bytes / wide / align * align;
        let halves = depth > 0;
        if !halves {
            depth = 2 * HALF / bytes / wide / align * align;
        }
        if depth == 0 || self.k == 0 {
            return Err(Error::new(format!("`{}` of {m} x {n} x {}", self.name, self.k)));
        }
        let own = |i: usize| self.back[i] == -1;
        let event = |i: usize| if own(i) { i as i64 } else { self.back[i] };
        for i in (0..2).filter(|&i| own(i)) {
            machine.set_flag(Pipe::Cube, Pipe::Mte1, event(i))?;
        }
        let turns = self.k.div_ceil(depth);
        for turn in 0..turns {
            let (first, last) = (turn == 0, turn + 1 == turns);
            let k = if last { self.k - turn * depth } else { depth };
            let before = if self.turn == -1 { 0 } else { self.turn as usize * turns };
            let half = if halves { (before + turn) % 2 } else { 0 };
            machine.wait_flag(Pipe::Cube, Pipe::Mte1, event(half))?;
            let mut operands = Vec::new();
            for side in 0..2 {
                if first && self.events[side] != -1 {
                    machine.wait_flag(Pipe::Mte2, Pipe::Mte1, self.events[side])?;
                }
                operands.push(self.load(machine, side, half * HALF, turn * depth, k)?);
                if last && self.events[2 + side] != -1 {
                    machine.set_flag(Pipe::Mte1, Pipe::Mte2, self.events[2 + side])?;
                }
            }
            machine.set_flag(Pipe::Mte1, Pipe::Cube, event(half))?;
            machine.wait_flag(Pipe::Mte1, Pipe::Cube, event(half))?;
            self.sum(machine, &operands, k, self.init && first)?;
            machine.set_flag(Pipe::Cube, Pipe::Mte1, event(half))?;
        }
        for i in (0..2).filter(|&i| own(i)) {
            machine.wait_flag(Pipe::Cube, Pipe::Mte1, event(i))?;
        }
        Ok(())
    }

    /// Rows of the left operand and columns of the right one, as the buffers hold them.
    fn outer(&self) -> [usize; 2] {
        [0, 1].map(|side| {
            let (view, turned) = &self.sides[side];
            let by_rows = (side == 0) != *turned;
            if by_rows { view.sizes[1] * view.sizes[2] } else { view.sizes[0] * view.sizes[3] }
        })
    }

    /// Position of element (outer, k) of a side in L1.
    fn staged(&self, side: usize, outer: usize, k: usize) -> i64 {
        let (view, turned) = &self.sides[side];
        let by_rows = (side == 0) != *turned;
        if by_rows { fractal(view, outer, k) } else { fractal(view, k, outer) }
    }

    /// Moves fractals of a side from L1 into its buffer: rows by rows of fractals on the left
    /// (zZ), columns by columns on the right (nZ); in each fractal `k` is the fast direction.
    fn load(
        &self,
        machine: &mut Machine<'_>,
        side: usize,
        base: usize,
        from: usize,
        k: usize,
    ) -> Result<View> {
        let (view, _) = &self.sides[side];
        let lane = ROW_BYTES / (view.kind.bits() / 8);
        let outer = if side == 0 { self.sum.sizes[1] * self.sum.sizes[2] } else { self.n };
        let (blocks, deep) = (outer.div_ceil(ROWS), k.div_ceil(lane));
        let space = if side == 0 { Space::L0A } else { Space::L0B };
        let sizes = if side == 0 { [blocks, deep] } else { [deep, blocks] };
        let sizes = vec![sizes[0], sizes[1], ROWS, lane];
        let target = whole(&View { place: (space, 0), ..view.clone() }, base, sizes);
        machine.issue(Pipe::Mte1, &self.name, &[view], &[&target])?;
        let room = self.outer()[side];
        for o in 0..blocks * ROWS {
            for i in 0..deep * lane {
                // What lies behind the staged tile is never summed.
                let inside = o < room && from + i < self.depth(side);
                let value = match inside {
                    true => machine.memories.get(view, self.staged(side, o, from + i)),
                    false => 0,
                };
                machine.memories.put(&target, buffered(&target, side, o, i), value);
            }
        }
        Ok(target)
    }

    /// How deep a side is staged.
    fn depth(&self, side: usize) -> usize {
        let (view, turned) = &self.sides[side];
        let by_rows = (side == 0) != *turned;
        if by_rows { view.sizes[0] * view.sizes[3] } else { view.sizes[1] * view.sizes[2] }
    }

    fn sum(
        &self,
        machine: &mut Machine<'_>,
        operands: &[View],
        k: usize,
        init: bool,
    ) -> Result<()> {
        let sum = &self.sum;
        machine.issue(Pipe::Cube, &self.name, &[&operands[0], &operands[1], sum], &[sum])?;
        let m = sum.sizes[1] * sum.sizes[2];
        let read = |side: usize, o: usize, i: usize| {
            let view = &operands[side];
            decode(machine.memories.get(view, buffered(view, side, o, i)), view.kind)
        };
        let right: Vec<f64> = (0..self.n * k).map(|at| read(1, at / k, at % k)).collect();
        let mut results = Vec::with_capacity(m * self.n);
        for i in 0..m {
            let left: Vec<f64> = (0..k).map(|d| read(0, i, d)).collect();
            for j in 0..self.n {
                let at = fractal(sum, i, j);
                let old = decode(machine.memories.get(sum, at), sum.kind);
                let start = if init { 0.0 } else { old };
                let line = &right[j * k..(j + 1) * k];
                let products = left.iter().zip(line).map(|(x, y)| x * y);
                // Each step of the cube adds a block of products.
                let blocks = products.collect::<Vec<f64>>();
                let total = blocks
                    .chunks(ROWS)
                    .fold(start, |sum, block| rounded(sum + block.iter().sum::<f64>(), Kind::F32));
                results.push((at, encode(total, sum.kind)));
            }
        }
        results.into_iter().for_each(|(at, bits)| machine.memories.put(sum, at, bits));
        Ok(())
    }
}

/// Position of element (outer, k) in an operand buffer.
fn buffered(view: &View, side: usize, outer: usize, k: usize) -> i64 {
    let lane = view.sizes[3];
    let (block, deep) = (outer / ROWS, k / lane);
    let blocks = if side == 0 { [block, deep] } else { [deep, block] };
    let index = [blocks[0], blocks[1], outer % ROWS, k % lane];
    index.iter().zip(&view.strides).map(|(&i, s)| i as i64 * s).sum()
}

/// Sums leave L0C as rows, each rounded.
fn from_fractals(machine: &mut Machine<'_>, name: &str, args: &[Slot]) -> Result<()> {
    let (source, target) = (machine.view(args[0])?, machine.view(args[1])?);
    let quantised = machine.number(args[2])?.as_i64();
    let plain = match target.kind {
        Kind::F32 => 0,
        Kind::F16 => 1,
        Kind::BF16 => 16,
        Kind::Int(_) => -1,
    };
    let others = args[3..].iter().map(|&a| machine.number(a)).collect::<Result<Vec<_>>>()?;
    if quantised != plain || others.iter().any(|x| x.as_i64() != 0) {
        return Err(Error::new(format!("`{name}` with quantisation, relu or flags")));
    }
    machine.issue(Pipe::Fix, name, &[&source], &[&target])?;
    let (rows, columns) = (target.sizes[0], target.sizes[1]);
    let at = |i: usize| fractal(&source, i / columns, i % columns);
    let sums = (0..rows * columns).map(|i| machine.memories.get(&source, at(i)));
    let sums: Vec<f64> = sums.map(|bits| decode(bits, source.kind)).collect();
    machine.memories.write_numbers(&target, sums);
    Ok(())
}
