//! Runs a compiled program: control flow and addresses in the scalar unit, everything else by
//! instructions of the pipes.

use super::affine::Map;
use super::memory::{Memories, View};
use super::order::{Access, Order};
use super::scalar;
use super::syntax::{Array, Kind, Module, Operand, Operation, Pipe, Slot, Space, Statement};
use super::{Argument, library, number};
use crate::target::Target;
use ferrata_ir::{Error, Result, Scalar};
use std::rc::Rc;

/// A value of the scalar unit: a number, or where an array lies.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(Scalar),
    View(Rc<View>),
}

/// Bytes that addresses in the unified buffer and in L1 are multiples of.
const BLOCK: i64 = 32;

/// One program of a launch.
pub(crate) struct Machine<'a> {
    maps: &'a [Map],
    values: Vec<Option<Value>>,
    pub memories: Memories<'a>,
    pub order: Order,
    block: usize,
    line: usize,
    name: String,
    /// What was read and written in global memory.
    pub touched: Vec<Access>,
}

impl<'a> Machine<'a> {
    /// The program at a place of the grid, with its pointers.
    ///
    /// # Errors
    /// When the parameters are not those that were written.
    pub fn new(
        module: &Module,
        maps: &'a [Map],
        target: &Target,
        global: &'a mut [Vec<u8>],
        pointers: &[Argument],
        (block, grid): (usize, usize),
    ) -> Result<Self> {
        let mut values = vec![None; module.slots];
        let mut pointers = pointers.iter();
        let mut grids = [grid as i64, 1, 1].into_iter();
        for (slot, ty) in &module.parameters {
            values[*slot] = Some(if ty.starts_with("memref<") {
                let Array { kind, .. } = super::syntax::array(ty)?;
                let &(buffer, base) =
                    pointers.next().ok_or("a program takes more pointers than it is given")?;
                let (place, sizes, strides) = ((Space::Global, buffer), vec![1], vec![1]);
                Value::View(Rc::new(View { place, kind, base, offset: 0, sizes, strides }))
            } else if ty == "i64" {
                // The address of the synchronisation of cores, which only mixed programs use.
                Value::Number(Scalar::Int(0))
            } else {
                let size = grids.next().ok_or("a program takes more numbers than it is given")?;
                Value::Number(Scalar::Int(size))
            });
        }
        Ok(Machine {
            maps,
            values,
            memories: Memories::new(target, global),
            order: Order::default(),
            block,
            line: 0,
            name: String::new(),
            touched: Vec::new(),
        })
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// Names the operation that does what the hardware must not.
    pub fn run(&mut self, body: &[Statement]) -> Result<()> {
        self.block(body)?;
        self.order.end()
    }

    fn block(&mut self, body: &[Statement]) -> Result<Vec<Value>> {
        for statement in body {
            self.line = statement.line;
            if let Operation::Yield { values } = &statement.operation {
                return values.iter().map(|&v| self.value(v)).collect();
            }
            let done = self.statement(&statement.operation);
            done.map_err(|e| {
                let known = e.message().contains("line ");
                let name = if self.name.is_empty() { "a scalar operation" } else { &self.name };
                if known {
                    e
                } else {
                    Error::new(format!("line {} (`{name}`): {}", statement.line, e.message()))
                }
            })?;
        }
        Ok(Vec::new())
    }

    fn value(&self, slot: Slot) -> Result<Value> {
        self.values[slot].clone().ok_or_else(|| Error::new("a value is used before it is made"))
    }

    pub fn number(&self, slot: Slot) -> Result<Scalar> {
        match self.value(slot)? {
            Value::Number(x) => Ok(x),
            Value::View(_) => Err(Error::new("an array stands where a number belongs")),
        }
    }

    pub fn view(&self, slot: Slot) -> Result<Rc<View>> {
        match self.value(slot)? {
            Value::View(view) => Ok(view),
            Value::Number(_) => Err(Error::new("a number stands where an array belongs")),
        }
    }

    fn operand(&self, operand: Operand) -> Result<i64> {
        match operand {
            Operand::Number(n) => Ok(n),
            Operand::Value(slot) => Ok(self.number(slot)?.as_i64()),
        }
    }

    fn operands(&self, operands: &[Operand]) -> Result<Vec<i64>> {
        operands.iter().map(|&o| self.operand(o)).collect()
    }

    fn set(&mut self, slot: Slot, value: Value) {
        self.values[slot] = Some(value);
    }

    fn set_int(&mut self, slot: Slot, x: i64) {
        self.set(slot, Value::Number(Scalar::Int(x)));
    }

    fn set_view(&mut self, slot: Slot, view: View) {
        self.set(slot, Value::View(Rc::new(view)));
    }

    /// An instruction of a pipe starts: its arrays must lie in their memories, at addresses that
    /// the pipe can reach, and nothing unordered may touch the same bytes.
    ///
    /// # Errors
    /// When one of these is not so.
    pub fn issue(
        &mut self,
        pipe: Pipe,
        name: &str,
        reads: &[&View],
        writes: &[&View],
    ) -> Result<()> {
        name.clone_into(&mut self.name);
        for view in reads.iter().chain(writes) {
            self.memories.check(view)?;
            let at = view.base as i64 + view.offset * view.kind.bits() as i64 / 8;
            let local = matches!(view.place.0, Space::Unified | Space::L1);
            if local && pipe != Pipe::Scalar && view.elements() > 0 && at % BLOCK != 0 {
                let memory = view.place.0;
                return Err(Error::new(format!(
                    "byte {at} of {memory:?} is not at a multiple of {BLOCK}"
                )));
            }
        }
        let reads = reads.iter().map(|v| v.access(false));
        let accesses: Vec<Access> = reads.chain(writes.iter().map(|v| v.access(true))).collect();
        let global = accesses.iter().filter(|a| a.place.0 == Space::Global);
        self.touched.extend(global.cloned());
        self.order.issue(pipe, name, self.line, accesses)
    }

    pub fn set_flag(&mut self, from: Pipe, to: Pipe, event: i64) -> Result<()> {
        self.order.set(from, to, event, self.line)
    }

    pub fn wait_flag(&mut self, from: Pipe, to: Pipe, event: i64) -> Result<()> {
        self.order.wait(from, to, event, self.line)
    }

    fn statement(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Nothing | Operation::Yield { .. } => {}
            Operation::Float { result, value } => {
                self.set(*result, Value::Number(Scalar::Float(*value)));
            }
            Operation::Integer { result, value } => self.set_int(*result, *value),
            Operation::Block { result } => self.set_int(*result, self.block as i64),
            Operation::Arithmetic { result, name, args, from, to } => {
                self.arithmetic(*result, name, args, *from, *to)?;
            }
            Operation::Affine { result, map, args, largest } => {
                let args = args.iter().map(|&a| Ok(self.number(a)?.as_i64()));
                let args = args.collect::<Result<Vec<i64>>>()?;
                self.set_int(*result, self.maps[*map].extreme(&args, *largest));
            }
            Operation::Set { from, to, event } => {
                let event = self.operand(*event)?;
                self.set_flag(*from, *to, event)?;
            }
            Operation::Wait { from, to, event } => {
                let event = self.operand(*event)?;
                self.wait_flag(*from, *to, event)?;
            }
            Operation::Barrier { pipe } => self.order.barrier(*pipe),
            Operation::Load { result, source, indices } => {
                let element = self.element(*source, indices)?;
                self.issue(Pipe::Scalar, "memref.load", &[&element], &[])?;
                let bits = self.memories.get(&element, element.offset);
                self.set(*result, Value::Number(number::scalar(bits, element.kind)));
            }
            Operation::Store { value, target, indices } => {
                let element = self.element(*target, indices)?;
                self.issue(Pipe::Scalar, "memref.store", &[], &[&element])?;
                let bits = number::bits(self.number(*value)?, element.kind);
                self.memories.put(&element, element.offset, bits);
            }
            Operation::For { index, bounds, carried, results, body } => {
                self.for_loop(*index, bounds, carried, results, body)?;
            }
            Operation::If { condition, results, branches } => {
                let branch = usize::from(self.number(*condition)?.as_i64() == 0);
                let values = self.block(&branches[branch])?;
                results.iter().zip(values).for_each(|(&r, v)| self.set(r, v));
            }
            Operation::Call { name, args } => library::call(self, name, args)?,
            _ => self.reshape(operation)?,
        }
        Ok(())
    }

    fn arithmetic(
        &mut self,
        result: Slot,
        name: &str,
        args: &[Slot],
        from: Option<Kind>,
        to: Option<Kind>,
    ) -> Result<()> {
        if name == "select" {
            let chosen = if self.number(args[0])?.as_i64() != 0 { args[1] } else { args[2] };
            let value = self.value(chosen)?;
            self.set(result, value);
            return Ok(());
        }
        let args = args.iter().map(|&a| self.number(a)).collect::<Result<Vec<_>>>()?;
        let value = scalar::apply(name, &args, from, to)?;
        self.set(result, Value::Number(value));
        Ok(())
    }

    fn for_loop(
        &mut self,
        index: Slot,
        bounds: &[Slot; 3],
        carried: &[(Slot, Slot)],
        results: &[Slot],
        body: &[Statement],
    ) -> Result<()> {
        let [from, to, step] = *bounds;
        let (from, to) = (self.number(from)?.as_i64(), self.number(to)?.as_i64());
        let step = self.number(step)?.as_i64();
        if step <= 0 {
            return Err(Error::new("a loop does not step forward"));
        }
        let mut values = carried.iter().map(|&(_, o)| self.value(o)).collect::<Result<Vec<_>>>()?;
        let mut i = from;
        while i < to {
            self.set_int(index, i);
            carried.iter().zip(values).for_each(|(&(inner, _), v)| self.set(inner, v));
            values = self.block(body)?;
            i += step;
        }
        results.iter().zip(values).for_each(|(&r, v)| self.set(r, v));
        Ok(())
    }

    /// One element of an array.
    fn element(&self, source: Slot, indices: &[Slot]) -> Result<View> {
        let view = self.view(source)?;
        let mut offset = view.offset;
        for (&i, (&stride, &size)) in indices.iter().zip(view.strides.iter().zip(&view.sizes)) {
            let i = self.number(i)?.as_i64();
            // The size of a pointer is not known; its end is found when the element is read.
            if i < 0 || (view.place.0 != Space::Global && i >= size as i64) {
                return Err(Error::new(format!("index {i} of {size} elements")));
            }
            offset += i * stride;
        }
        Ok(View { offset, sizes: Vec::new(), strides: Vec::new(), ..(*view).clone() })
    }

    /// Operations that only say where an array lies.
    fn reshape(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Pointer { result, address, array } => {
                let base = self.number(*address)?.as_i64() as usize;
                let sizes = array.shape.iter().map(|n| n.ok_or("a buffer without a size"));
                let sizes = sizes.collect::<Result<Vec<usize>, _>>()?;
                let strides = dense(&sizes);
                let place = (array.space, 0);
                let view = View { place, kind: array.kind, base, offset: 0, sizes, strides };
                self.set_view(*result, view);
            }
            Operation::Reinterpret { result, source, offset, sizes, strides } => {
                let mut view = (*self.view(*source)?).clone();
                view.offset = self.operand(*offset)?;
                view.sizes = unsigned(self.operands(sizes)?)?;
                view.strides = self.operands(strides)?;
                self.set_view(*result, view);
            }
            Operation::Subview { result, source, offsets, sizes, strides, to } => {
                let source = self.view(*source)?;
                let [offsets, sizes, steps] =
                    [offsets, sizes, strides].map(|list| self.operands(list));
                let (offsets, sizes, steps) = (offsets?, unsigned(sizes?)?, steps?);
                let view = subview(&source, &offsets, &sizes, &steps, to)?;
                self.set_view(*result, view);
            }
            Operation::Same { result, source } => {
                let value = self.value(*source)?;
                self.set(*result, value);
            }
            Operation::Bitcast { result, source, kind } => {
                let mut view = (*self.view(*source)?).clone();
                if view.kind.bits() != kind.bits() {
                    return Err(Error::new("a view as elements of another size"));
                }
                view.kind = *kind;
                self.set_view(*result, view);
            }
            Operation::Collapse { result, source, groups } => {
                let source = self.view(*source)?;
                let (mut sizes, mut strides) = (Vec::new(), Vec::new());
                for group in groups {
                    sizes.push(group.iter().map(|&d| source.sizes[d]).product());
                    let long = group.iter().rev().find(|&&d| source.sizes[d] > 1);
                    let last = long.or(group.last()).ok_or("an empty group")?;
                    strides.push(source.strides[*last]);
                }
                self.set_view(*result, View { sizes, strides, ..(*source).clone() });
            }
            Operation::Expand { result, source, groups, shape } => {
                let source = self.view(*source)?;
                let sizes = unsigned(self.operands(shape)?)?;
                let mut strides = vec![0; sizes.len()];
                for (group, &stride) in groups.iter().zip(&source.strides) {
                    let mut step = stride;
                    for &d in group.iter().rev() {
                        strides[d] = step;
                        step *= sizes[d] as i64;
                    }
                }
                self.set_view(*result, View { sizes, strides, ..(*source).clone() });
            }
            _ => return Err(Error::new("an operation that is no view")),
        }
        Ok(())
    }
}

/// Row-major strides.
pub(crate) fn dense(sizes: &[usize]) -> Vec<i64> {
    ferrata_ir::row_major_strides(sizes).iter().map(|&s| s as i64).collect()
}

fn unsigned(sizes: Vec<i64>) -> Result<Vec<usize>> {
    let size = |n| usize::try_from(n).map_err(|_| Error::new(format!("an array of {n} elements")));
    sizes.into_iter().map(size).collect()
}

/// Part of an array; dimensions of size 1 that the type lacks disappear.
fn subview(
    source: &View,
    offsets: &[i64],
    sizes: &[usize],
    steps: &[i64],
    to: &Array,
) -> Result<View> {
    let mut view = source.clone();
    for (d, &offset) in offsets.iter().enumerate() {
        view.offset += offset * source.strides[d];
        if source.place.0 != Space::Global && offset + sizes[d] as i64 > source.sizes[d] as i64 {
            let (from, size) = (offset, sizes[d]);
            return Err(Error::new(format!(
                "{size} from {from} on of {} elements",
                source.sizes[d]
            )));
        }
    }
    let strides: Vec<i64> = source.strides.iter().zip(steps).map(|(a, b)| a * b).collect();
    let gone = sizes.len() - to.shape.len().min(sizes.len());
    let fits = |keep: &[usize]| {
        keep.iter().enumerate().all(|(i, &d)| {
            let stride = to.strides.as_ref().and_then(|s| s[i]);
            to.shape[i].is_none_or(|n| n == sizes[d])
                && stride.is_none_or(|s| s as i64 == strides[d] || sizes[d] == 1)
        })
    };
    let ones: Vec<usize> = (0..sizes.len()).filter(|&d| sizes[d] == 1).collect();
    let kept = choices(&ones, gone)
        .into_iter()
        .map(|out| (0..sizes.len()).filter(|d| !out.contains(d)).collect::<Vec<_>>())
        .find(|keep| fits(keep))
        .ok_or("a part of an array whose type does not fit")?;
    view.sizes = kept.iter().map(|&d| sizes[d]).collect();
    view.strides = kept.iter().map(|&d| strides[d]).collect();
    Ok(view)
}

/// All ways to take `n` of a list.
fn choices(list: &[usize], n: usize) -> Vec<Vec<usize>> {
    let Some((&last, rest)) = list.split_last() else {
        return if n == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    if n == 0 {
        return vec![Vec::new()];
    }
    // Trailing dimensions go first: padding is put behind.
    let mut with = choices(rest, n - 1);
    with.iter_mut().for_each(|c| c.push(last));
    with.extend(choices(rest, n));
    with
}
