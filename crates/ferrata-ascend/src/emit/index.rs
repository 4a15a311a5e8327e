//! Gather and scatter: slices at indices that the scalar unit reads.

use super::arithmetic::Body;
use super::lower::{Lowering, access};
use super::memory::{Arguments, Region};
use super::mlir::{Affine, Text};
use super::plan::Tiles;
use super::register::{Element, Form, Register, spread};
use super::{Core, Launch};
use ferrata_compiler::kernel::{Access, View};
use ferrata_compiler::row_major;
use ferrata_ir::primitive::{BadIndex, Gather, ScalarOp, Scatter, ScatterKind};
use ferrata_ir::{Error, Result, Scalar};

/// Elements of a slice that are moved at once.
const PIECE: usize = 4096;

/// The sizes that gather and scatter are made of.
struct Sizes {
    batch: Vec<usize>,
    /// Sizes of the dimensions that are indexed.
    inside: Vec<usize>,
    /// Positions of indices in each batch element.
    positions: Vec<usize>,
    slice: usize,
    bad: BadIndex,
}

impl Sizes {
    fn of(batch: usize, indexed: usize, bad: BadIndex, operand: &View, indices: &View) -> Sizes {
        let rank = indices.shape.len();
        Sizes {
            batch: operand.shape[..batch].to_vec(),
            inside: operand.shape[batch..batch + indexed].to_vec(),
            positions: indices.shape[batch..rank - 1].to_vec(),
            slice: operand.shape[batch + indexed..].iter().product(),
            bad,
        }
    }

    /// Tiles of a slice: the first loop counts elements before it, the second one those in it.
    fn tiles(&self) -> Tiles {
        Tiles {
            counts: vec![1, self.slice],
            axes: [None, Some(1)],
            size: [1, self.slice.min(PIECE)],
            sequential: vec![false; 2],
        }
    }
}

/// The view, or a dense copy of it, as an access in row-major order.
fn dense(view: &View, lowering: &mut Lowering<'_>) -> Result<Access> {
    let strides = row_major(&view.shape);
    let long = |(&n, (a, b)): (&usize, (&isize, &isize))| n <= 1 || a == b;
    if view.shape.iter().zip(view.strides.iter().zip(&strides)).all(long) {
        return Ok(Access { strides, ..access(view) });
    }
    lowering.packed(&access(view), &view.shape)
}

/// A program under construction.
struct Emitter {
    text: Text,
    arguments: Arguments,
    tiles: Tiles,
}

/// Appends the launch of a gather.
///
/// # Errors
/// For dtypes that the cores do not compute with.
pub(crate) fn gather(
    op: &Gather,
    inputs: &[View],
    outputs: &[View],
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    let sizes = Sizes::of(op.batch, op.indexed, op.bad, &inputs[0], &inputs[1]);
    let operand = dense(&inputs[0], lowering)?;
    let (indices, out) = (access(&inputs[1]), access(&outputs[0]));
    let tiles = sizes.tiles();
    let counts = [&sizes.batch[..], &sizes.positions, &[tiles.along(1)]].concat();
    let count: usize = counts.iter().product();
    let grid = count.min(lowering.target.vector_cores);
    let mut e = Emitter { text: Text::default(), arguments: Arguments::default(), tiles };
    let (tile, regions) = super::tile_loop(&mut e.text, count, grid);
    let mut steps = super::unravel(&mut e.text, &tile, &counts);
    let (piece, valid) = e.piece(&steps.pop().unwrap_or_default());
    let position = linear(&steps, &counts[..steps.len()]);
    let (target, inside) = e.target(&sizes, &indices, &steps)?;
    if let Some(inside) = &inside {
        e.text.open(format_args!("scf.if {inside}"));
    }
    let slice = e.load(&operand, &Affine::times(&target, sizes.slice), &piece, &valid)?;
    e.store(&out, &position.scaled(sizes.slice), &piece, &valid, &slice)?;
    if inside.is_some() {
        e.text.close_with("else {");
        let zero = Register { form: Form::Constant(Scalar::of(out.dtype, 0.0)), ..slice };
        e.store(&out, &position.scaled(sizes.slice), &piece, &valid, &zero)?;
        e.text.line("}");
    }
    (0..regions).for_each(|_| e.text.close());
    lowering.launch(Launch::new(Core::Vector, e.text, e.arguments, grid));
    Ok(())
}

/// Appends the launches of a scatter: a copy of the operand, then updates in their order.
///
/// # Errors
/// For dtypes that the cores do not compute with.
pub(crate) fn scatter(
    op: &Scatter,
    inputs: &[View],
    outputs: &[View],
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    let sizes = Sizes::of(op.batch, op.indexed, op.bad, &inputs[0], &inputs[1]);
    let (indices, out) = (access(&inputs[1]), access(&outputs[0]));
    let updates = dense(&inputs[2], lowering)?;
    lowering.copy(&inputs[0].shape, access(&inputs[0]), out.clone())?;
    if sizes.positions.contains(&0) {
        return Ok(());
    }
    let tiles = sizes.tiles();
    let counts = [&sizes.batch[..], &[tiles.along(1)]].concat();
    let count: usize = counts.iter().product();
    let grid = count.min(lowering.target.vector_cores);
    let mut e = Emitter { text: Text::default(), arguments: Arguments::default(), tiles };
    let (tile, regions) = super::tile_loop(&mut e.text, count, grid);
    let mut steps = super::unravel(&mut e.text, &tile, &counts);
    let (piece, valid) = e.piece(&steps.pop().unwrap_or_default());
    let [zero, one, end] = [0, 1, sizes.positions.iter().product()].map(|n| e.text.index(n));
    let turn = e.text.name();
    e.text.open(format_args!("scf.for {turn} = {zero} to {end} step {one}"));
    steps.extend(super::unravel(&mut e.text, &turn, &sizes.positions));
    let position = linear(&steps, &[&sizes.batch[..], &sizes.positions].concat());
    let (target, inside) = e.target(&sizes, &indices, &steps)?;
    if let Some(inside) = &inside {
        e.text.open(format_args!("scf.if {inside}"));
    }
    let update = e.load(&updates, &position.scaled(sizes.slice), &piece, &valid)?;
    let at = Affine::times(&target, sizes.slice);
    let kind = match op.kind {
        ScatterKind::Set => None,
        ScatterKind::Add => Some(ScalarOp::Add),
        ScatterKind::Max => Some(ScalarOp::Max),
        ScatterKind::Min => Some(ScalarOp::Min),
    };
    let result = match kind {
        None => update,
        Some(kind) => {
            let old = e.load(&out, &at, &piece, &valid)?;
            let size = e.tiles.size;
            Body { text: &mut e.text, size }.apply(kind, &[old, update])?
        }
    };
    e.store(&out, &at, &piece, &valid, &result)?;
    if inside.is_some() {
        e.text.close();
    }
    (0..=regions).for_each(|_| e.text.close());
    lowering.launch(Launch::new(Core::Vector, e.text, e.arguments, grid));
    Ok(())
}

/// The row-major number of steps of nested loops.
fn linear(steps: &[Affine], counts: &[usize]) -> Affine {
    Affine::sum(0, steps, &row_major(counts))
}

/// How many elements of a piece count, where that is known at run time only.
type Valid = [Option<String>; 2];

impl Emitter {
    /// The first element of a piece of the slice, and how many count.
    fn piece(&mut self, step: &Affine) -> (Affine, Valid) {
        let (count, size) = (self.tiles.counts[1], self.tiles.size[1]);
        let first = step.scaled(size);
        if count % size == 0 {
            return (first, [None, None]);
        }
        let valid = first.left(&mut self.text, count, size);
        (first, [None, Some(valid)])
    }

    /// Which slice of the operand the indices at a position name, and, if that may be none,
    /// whether there is one.
    fn target(
        &mut self,
        sizes: &Sizes,
        indices: &Access,
        position: &[Affine],
    ) -> Result<(String, Option<String>)> {
        let last = indices.strides.len() - 1;
        let mut target = linear(&position[..sizes.batch.len()], &sizes.batch);
        let mut all: Option<String> = None;
        for (d, &size) in sizes.inside.iter().enumerate() {
            let mut offset = Affine::sum(indices.offset, position, &indices.strides);
            offset.constant += d as isize * indices.strides[last];
            let element = super::memory::stored(indices.dtype)?;
            let pointer = self.arguments.pointer(indices.operand, element);
            let text = &mut self.text;
            let offset = offset.write(text);
            let index =
                text.value(format_args!("memref.load {pointer}[{offset}] : memref<?x{element}>"));
            let index = text.value(format_args!("arith.index_cast {index} : {element} to index"));
            let (zero, end) = (text.index(0), text.index(size.saturating_sub(1)));
            let above = text.value(format_args!("arith.maxsi {index}, {zero} : index"));
            let near = text.value(format_args!("arith.minsi {above}, {end} : index"));
            if sizes.bad == BadIndex::Drop {
                let same = text.value(format_args!("arith.cmpi eq, {near}, {index} : index"));
                all = Some(match all {
                    None => same,
                    Some(all) => text.value(format_args!("arith.andi {all}, {same} : i1")),
                });
            }
            target = target.scaled(size);
            target.add(&Affine::times(&near, 1), 1);
        }
        Ok((target.write(&mut self.text), all))
    }

    fn load(
        &mut self,
        access: &Access,
        before: &Affine,
        piece: &Affine,
        valid: &Valid,
    ) -> Result<Register> {
        let access = &Access { strides: vec![1, 1], ..access.clone() };
        let region = Region { access, mask: [false, true], size: self.tiles.size, valid };
        let base = [before.clone(), piece.clone()];
        let register = region.load(&mut self.text, &mut self.arguments, &self.tiles, &base)?;
        if register.element == Element::I64 && access.dtype != ferrata_ir::DType::I64 {
            return Err(Error::new(format!("no kernel moves {}", access.dtype)));
        }
        Ok(register)
    }

    fn store(
        &mut self,
        access: &Access,
        before: &Affine,
        piece: &Affine,
        valid: &Valid,
        value: &Register,
    ) -> Result<()> {
        let access = &Access { strides: vec![1, 1], ..access.clone() };
        let (mask, size) = ([false, true], self.tiles.size);
        let name = spread(&mut self.text, value, mask, size);
        let region = Region { access, mask, size, valid };
        let base = [before.clone(), piece.clone()];
        let (text, arguments) = (&mut self.text, &mut self.arguments);
        region.store(text, arguments, &self.tiles, &base, (&name, value.element))
    }
}
