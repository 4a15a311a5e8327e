//! A loop nest as one program for vector cores.

use super::arithmetic::Body;
use super::memory::{Arguments, Region};
use super::mlir::{Affine, Text, list, tensor};
use super::plan::{Tiles, combined};
use super::register::{Element, Form, Mask, Register, fill, shape, spread};
use super::{Core, Launch};
use ferrata_compiler::kernel::{Instruction, Loop, Store};
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::{DType, Error, Result, Scalar};

/// Where in the loops a tile lies.
#[derive(Clone)]
struct Turn {
    /// First step of each loop.
    base: Vec<Affine>,
    /// The sizes that tensors have along the axes.
    size: [usize; 2],
    /// How many of them count, where that is known at run time only.
    valid: [Option<String>; 2],
}

/// The program of a nest whose rows fit its tiles.
///
/// # Errors
/// For operations and dtypes that the device does not compute with.
pub(crate) fn emit(nest: &Loop, tiles: &Tiles, cores: usize) -> Result<Launch> {
    let dtypes = register_dtypes(nest);
    let (text, arguments) = (Text::default(), Arguments::default());
    Emitter { nest, tiles, dtypes, text, arguments }.program(cores)
}

struct Emitter<'a> {
    nest: &'a Loop,
    tiles: &'a Tiles,
    /// Of all registers.
    dtypes: Vec<DType>,
    text: Text,
    arguments: Arguments,
}

impl Emitter<'_> {
    fn program(&mut self, cores: usize) -> Result<Launch> {
        let tiles = self.tiles;
        let parallel: Vec<usize> =
            (0..tiles.counts.len()).filter(|&l| !tiles.sequential[l]).collect();
        let count: usize = parallel.iter().map(|&l| tiles.along(l)).product();
        let grid = count.min(cores);
        let (tile, regions) = super::tile_loop(&mut self.text, count, grid);
        let mut turn = Turn {
            base: vec![Affine::default(); tiles.counts.len()],
            size: tiles.size,
            valid: [None, None],
        };
        let along: Vec<usize> = parallel.iter().map(|&l| tiles.along(l)).collect();
        let steps = super::unravel(&mut self.text, &tile, &along);
        for (&l, step) in parallel.iter().zip(&steps) {
            turn.base[l].add(step, tiles.step(l) as isize);
            self.tail(&mut turn, l);
        }
        let sums = self.identities(&turn)?;
        let order: Vec<usize> = (0..tiles.counts.len())
            .filter(|&l| tiles.sequential[l] && !tiles.axes.contains(&Some(l)))
            .chain(tiles.axes.into_iter().flatten().filter(|&l| tiles.sequential[l]))
            .collect();
        let sums = self.sequence(&order, &turn, sums)?;
        self.store_sums(&turn, &sums)?;
        (0..regions).for_each(|_| self.text.close());
        let (text, arguments) =
            (std::mem::take(&mut self.text), std::mem::take(&mut self.arguments));
        Ok(Launch::new(Core::Vector, text, arguments, grid))
    }

    /// How much of the last tile along a loop counts.
    fn tail(&mut self, turn: &mut Turn, l: usize) {
        let (count, step) = (self.tiles.counts[l], self.tiles.step(l));
        let axis = (0..2).find(|&a| self.tiles.axes[a] == Some(l));
        if let Some(axis) = axis.filter(|_| count % step != 0) {
            turn.valid[axis] = Some(turn.base[l].left(&mut self.text, count, step));
        }
    }

    /// Runs through the sequential loops that are left; returns the sums.
    fn sequence(&mut self, order: &[usize], turn: &Turn, sums: Vec<String>) -> Result<Vec<String>> {
        let Some((&l, inner)) = order.split_first() else {
            return self.body(turn, sums);
        };
        let (count, step) = (self.tiles.counts[l], self.tiles.step(l));
        let (full, rest) = (count / step, count % step);
        let axis = (0..2).find(|&a| self.tiles.axes[a] == Some(l));
        let mut sums = sums;
        let types = self.sum_types();
        if full == 1 {
            sums = self.sequence(inner, turn, sums)?;
        } else {
            let [zero, one, full] = [0, 1, full].map(|n| self.text.index(n));
            let i = self.text.name();
            let carried: Vec<String> = sums.iter().map(|_| self.text.name()).collect();
            let pairs: Vec<String> =
                carried.iter().zip(&sums).map(|(c, s)| format!("{c} = {s}")).collect();
            let head = format!("scf.for {i} = {zero} to {full} step {one}");
            let result = self.text.name();
            if sums.is_empty() {
                self.text.open(head);
            } else {
                let (pairs, types, n) = (list(&pairs), list(&types), sums.len());
                let names = if n == 1 { result.clone() } else { format!("{result}:{n}") };
                self.text.open(format_args!("{names} = {head} iter_args({pairs}) -> ({types})"));
            }
            let mut turn = turn.clone();
            turn.base[l] = Affine::times(&i, step);
            let next = self.sequence(inner, &turn, carried)?;
            if !next.is_empty() {
                self.text.line(format_args!("scf.yield {} : {}", list(&next), list(&types)));
            }
            self.text.close();
            let name =
                |n: usize| if next.len() == 1 { result.clone() } else { format!("{result}#{n}") };
            sums = (0..next.len()).map(name).collect();
        }
        if let Some(axis) = axis.filter(|_| rest > 0) {
            let mut turn = turn.clone();
            turn.base[l] = Affine::number(count - rest);
            turn.size[axis] = rest;
            sums = self.sequence(inner, &turn, sums)?;
        }
        Ok(sums)
    }

    /// The stores that combine, each with its sum's axes.
    fn combining(&self) -> Vec<(usize, Mask)> {
        let stores = self.nest.stores.iter().enumerate();
        stores.filter(|(_, s)| s.combine.is_some()).map(|(i, s)| (i, self.mask(s))).collect()
    }

    fn mask(&self, store: &Store) -> Mask {
        super::memory::mask(&store.access.strides, self.tiles)
    }

    fn element(&self, store: &Store) -> Result<Element> {
        let dtype = self.dtypes[store.register];
        let element = Element::of(dtype);
        let element = element.ok_or_else(|| Error::new(format!("no kernel combines {dtype}")))?;
        // Truth values are combined as numbers.
        Ok(if element == Element::I1 { Element::F32 } else { element })
    }

    fn sum_types(&self) -> Vec<String> {
        let ty = |(s, mask): (usize, Mask)| {
            let element = self.element(&self.nest.stores[s]).unwrap_or(Element::F32);
            tensor(&shape(mask, self.tiles.size), element.name())
        };
        self.combining().into_iter().map(ty).collect()
    }

    fn identities(&mut self, turn: &Turn) -> Result<Vec<String>> {
        let mut sums = Vec::new();
        for (s, mask) in self.combining() {
            let store = &self.nest.stores[s];
            let element = self.element(store)?;
            let kind = store.combine.unwrap_or(ReduceKind::Sum);
            sums.push(identity(&mut self.text, kind, element, &shape(mask, turn.size)));
        }
        Ok(sums)
    }

    fn store_sums(&mut self, turn: &Turn, sums: &[String]) -> Result<()> {
        for ((s, mask), sum) in self.combining().into_iter().zip(sums) {
            let store = self.nest.stores[s].clone();
            let element = self.element(&store)?;
            let mut sum = Register::tensor(sum.clone(), mask, element);
            if store.access.dtype == DType::Bool {
                sum = truth(&mut self.text, &sum, turn.size);
            }
            self.store(&store, &sum, turn)?;
        }
        Ok(())
    }

    /// One tile: loads, arithmetic, stores; returns the sums with its share.
    fn body(&mut self, turn: &Turn, sums: Vec<String>) -> Result<Vec<String>> {
        let mut registers: Vec<Register> = Vec::new();
        for (i, instruction) in self.nest.body.iter().enumerate() {
            let register = self.instruction(instruction, self.dtypes[i], &registers, turn)?;
            registers.push(register);
        }
        let mut sums = sums.into_iter();
        let mut next = Vec::new();
        for (s, store) in self.nest.stores.iter().enumerate() {
            let register = &registers[store.register];
            let Some(kind) = store.combine else {
                self.store(store, register, turn)?;
                continue;
            };
            let over = combined(self.nest, s);
            let axis = |a: usize| self.tiles.axes[a].is_some_and(|l| over[l]);
            let over = [axis(0), axis(1)];
            let partial = self.reduce(kind, register, over, turn);
            let sum = sums.next().ok_or("a sum is missing")?;
            let mask = self.mask(store);
            next.push(combine(&mut self.text, kind, &sum, &partial, turn.size, mask));
        }
        Ok(next)
    }

    fn store(&mut self, store: &Store, register: &Register, turn: &Turn) -> Result<()> {
        let mask = self.mask(store);
        let name = spread(&mut self.text, register, mask, turn.size);
        let region = Region { access: &store.access, mask, size: turn.size, valid: &turn.valid };
        let value = (name.as_str(), register.element);
        let (text, tiles) = (&mut self.text, self.tiles);
        region.store(text, &mut self.arguments, tiles, &turn.base, value)
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        dtype: DType,
        registers: &[Register],
        turn: &Turn,
    ) -> Result<Register> {
        let known = |d: DType| {
            Element::of(d).ok_or_else(|| Error::new(format!("no kernel computes with {d}")))
        };
        match instruction {
            Instruction::Load(i) => {
                let access = &self.nest.loads[*i];
                let mask = super::memory::mask(&access.strides, self.tiles);
                let region = Region { access, mask, size: turn.size, valid: &turn.valid };
                region.load(&mut self.text, &mut self.arguments, self.tiles, &turn.base)
            }
            Instruction::Constant { dtype, value } => {
                Ok(Register { form: Form::Constant(*value), element: known(*dtype)? })
            }
            Instruction::Index { dim, dtype } => {
                let index = self.position(*dim, turn);
                match dtype {
                    // Narrower than said, until something else is beside it.
                    DType::I64 => Ok(index),
                    _ => self.body_of(turn).cast(&index, DType::I32, *dtype),
                }
            }
            Instruction::Apply { op, args, .. } => {
                let args: Vec<Register> = args.iter().map(|&a| registers[a].clone()).collect();
                self.body_of(turn).apply(*op, &args)
            }
            Instruction::Cast { from, to, arg } => {
                let index = registers[*arg].element == Element::I32 && *to == DType::I64;
                if index {
                    return Ok(registers[*arg].clone());
                }
                self.body_of(turn).cast(&registers[*arg], *from, *to)
            }
            Instruction::ReduceColumns { kind, arg, .. } => {
                if self.tiles.axes[1].is_none() {
                    return Ok(registers[*arg].clone());
                }
                let sum = self.reduce(*kind, &registers[*arg], [false, true], turn);
                Ok(if dtype == DType::Bool { truth(&mut self.text, &sum, turn.size) } else { sum })
            }
            Instruction::Product => Err(Error::new("a product outside of a contraction")),
        }
    }

    fn body_of(&mut self, turn: &Turn) -> Body<'_> {
        Body { text: &mut self.text, size: turn.size }
    }

    /// The index of a loop, in 32 bits.
    fn position(&mut self, l: usize, turn: &Turn) -> Register {
        let base = turn.base[l].write(&mut self.text);
        let base = self.text.value(format_args!("arith.index_cast {base} : index to i32"));
        let base = Register { form: Form::Scalar(base), element: Element::I32 };
        let Some(axis) = (0..2).find(|&a| self.tiles.axes[a] == Some(l)) else {
            return base;
        };
        let (mut mask, n) = ([false; 2], turn.size[axis]);
        mask[axis] = true;
        let ty = tensor(&[n], "i32");
        let empty = self.text.value(format_args!("tensor.empty() : {ty}"));
        let counted = self.text.name();
        self.text.open(format_args!(
            "{counted} = linalg.generic {{indexing_maps = [affine_map<(d0) -> (d0)>], iterator_types \
             = [\"parallel\"]}} outs({empty} : {ty})"
        ));
        self.text.line("^bb0(%out: i32):");
        let index = self.text.value("linalg.index 0 : index");
        let index = self.text.value(format_args!("arith.index_cast {index} : index to i32"));
        self.text.line(format_args!("linalg.yield {index} : i32"));
        self.text.close_with(format_args!("-> {ty}"));
        let counted = Register::tensor(counted, mask, Element::I32);
        if turn.base[l] == Affine::default() {
            return counted;
        }
        let base = spread(&mut self.text, &base, mask, turn.size);
        let Form::Tensor(counted, _) = counted.form else { return counted };
        let sum = self.text.value(format_args!("arith.addi {counted}, {base} : {ty}"));
        Register::tensor(sum, mask, Element::I32)
    }

    /// Combines along axes.
    fn reduce(&mut self, kind: ReduceKind, x: &Register, over: Mask, turn: &Turn) -> Register {
        let x = &self.countable(x, turn);
        let mut mask = super::register::either(x.mask(), over);
        let mut name = spread(&mut self.text, x, mask, turn.size);
        for axis in 0..2 {
            if over[axis] {
                name = self.reduce_axis(kind, &name, x.element, mask, axis, turn.size);
                mask[axis] = false;
            }
        }
        Register::tensor(name, mask, x.element)
    }

    /// Truth values as numbers, whose smallest is "all" and whose largest is "any".
    fn countable(&mut self, x: &Register, turn: &Turn) -> Register {
        if x.element != Element::I1 {
            return x.clone();
        }
        let cast = self.body_of(turn).cast(x, DType::Bool, DType::F32);
        cast.unwrap_or_else(|_| x.clone())
    }

    fn reduce_axis(
        &mut self,
        kind: ReduceKind,
        name: &str,
        element: Element,
        mask: Mask,
        axis: usize,
        size: [usize; 2],
    ) -> String {
        let text = &mut self.text;
        let (mut name, mut from) = (name.to_owned(), shape(mask, size));
        let mut dimension = if mask[0] { axis } else { 0 };
        if from.len() == 1 {
            // No tensor has fewer than one dimension.
            let (n, e) = (from[0], element.name());
            let (one, two) = (tensor(&from, e), tensor(&[1, n], e));
            name = text.value(format_args!(
                "tensor.expand_shape {name} [[0, 1]] output_shape [1, {n}] : {one} into {two}"
            ));
            (from, dimension) = (vec![1, n], 1);
        }
        let mut to = from.clone();
        to.remove(dimension);
        let identity = identity(text, kind, element, &to);
        let (from, to) = (tensor(&from, element.name()), tensor(&to, element.name()));
        let result = text.name();
        text.line(format_args!(
            "{result} = linalg.reduce ins({name} : {from}) outs({identity} : {to}) dimensions = \
             [{dimension}]"
        ));
        let (element, operation) = (element.name(), operation(kind, element));
        text.open(format_args!("  (%in: {element}, %init: {element})"));
        let sum = text.value(format_args!("{operation} %in, %init : {element}"));
        text.line(format_args!("linalg.yield {sum} : {element}"));
        text.close();
        result
    }
}

/// Numbers that stand for truth values, as truth values.
fn truth(text: &mut Text, x: &Register, size: [usize; 2]) -> Register {
    let mask = x.mask();
    let numbers = tensor(&shape(mask, size), "f32");
    let zero = text.value(format_args!("arith.constant dense<0.0> : {numbers}"));
    let name = spread(text, x, mask, size);
    let name = text.value(format_args!("arith.cmpf une, {name}, {zero} : {numbers}"));
    Register::tensor(name, mask, Element::I1)
}

/// The operation that combines two values.
fn operation(kind: ReduceKind, element: Element) -> &'static str {
    let float = element == Element::F32;
    match kind {
        ReduceKind::Sum if float => "arith.addf",
        ReduceKind::Sum => "arith.addi",
        ReduceKind::Product if float => "arith.mulf",
        ReduceKind::Product => "arith.muli",
        ReduceKind::Max | ReduceKind::Or if float => "arith.maximumf",
        ReduceKind::Min | ReduceKind::And if float => "arith.minimumf",
        ReduceKind::Max => "arith.maxsi",
        ReduceKind::Min => "arith.minsi",
        ReduceKind::And => "arith.andi",
        ReduceKind::Or => "arith.ori",
    }
}

/// A tensor of what changes nothing.
fn identity(text: &mut Text, kind: ReduceKind, element: Element, shape: &[usize]) -> String {
    let x = match (element, kind) {
        (Element::F32, ReduceKind::And) => Scalar::Float(1.0),
        (Element::F32, ReduceKind::Or) => Scalar::Float(0.0),
        (Element::F32, kind) => kind.identity(DType::F32),
        (Element::I64, kind) => kind.identity(DType::I64),
        (_, kind) => kind.identity(DType::I32),
    };
    let (name, x) = (element.name(), element.attribute(x));
    let x = text.value(format_args!("arith.constant {x} : {name}"));
    fill(text, &x, name, &tensor(shape, name))
}

fn combine(
    text: &mut Text,
    kind: ReduceKind,
    sum: &str,
    partial: &Register,
    size: [usize; 2],
    mask: Mask,
) -> String {
    let partial_name = spread(text, partial, mask, size);
    let ty = tensor(&shape(mask, size), partial.element.name());
    let operation = operation(kind, partial.element);
    text.value(format_args!("{operation} {sum}, {partial_name} : {ty}"))
}

/// The dtype of every register of a body.
pub(crate) fn register_dtypes(nest: &Loop) -> Vec<DType> {
    let mut dtypes: Vec<DType> = Vec::new();
    for instruction in &nest.body {
        dtypes.push(match instruction {
            Instruction::Load(i) => match nest.loads[*i].dtype {
                DType::F16 | DType::BF16 => DType::F32,
                dtype => dtype,
            },
            Instruction::Product => DType::F32,
            Instruction::Constant { dtype, .. } | Instruction::Index { dtype, .. } => *dtype,
            Instruction::Apply { op, dtype, .. } => {
                if is_truth(*op) {
                    DType::Bool
                } else {
                    *dtype
                }
            }
            Instruction::Cast { to: DType::F16 | DType::BF16, .. } => DType::F32,
            Instruction::Cast { to, .. } => *to,
            Instruction::ReduceColumns { dtype, .. } => *dtype,
        });
    }
    dtypes
}

fn is_truth(op: ferrata_ir::primitive::ScalarOp) -> bool {
    use ferrata_ir::primitive::ScalarOp::{Eq, Ge, Gt, IsFinite, Le, Lt, Ne};
    matches!(op, Eq | Ne | Lt | Le | Gt | Ge | IsFinite)
}
