//! A product and the work behind it become a [`Contract`].
//!
//! Every loop is a batch, row, column or summed loop of the product. Neighbouring loops of a class
//! are merged where all accesses allow it.

use super::instructions::Emitter;
use super::{Lowering, Operands, access};
use crate::body::{Kind, Op, Operand};
use crate::fragment::Source;
use crate::kernel::{Access, Contract, Epilogue, Instruction, Kernel, Register, Store};
use crate::nest::{Nest, Output};
use crate::strided::{LONG, Map, Refusal, Strided, coalesce};
use ferrata_ir::primitive::Dot;
use ferrata_ir::{DType, Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Batch,
    M,
    N,
    K,
}

/// An operand in memory.
struct Side {
    source: Source,
    dtype: DType,
    window: Strided,
}

impl Lowering<'_> {
    pub(super) fn product(&mut self, at: usize, nest: &Nest) -> Result<()> {
        let op = &self.body.ops[at];
        let Kind::Dot(dot) = &op.kind else { return Err(Error::new("not a product")) };
        let dot = sorted_by_stride(dot, &op.inputs[0].window);
        let (left, right) = (self.side(&op.inputs[0])?, self.side(&op.inputs[1])?);
        let mut nest = nest.clone();
        self.place_parts(&mut nest, Some(op.outputs[0]))?;
        let summed: Vec<usize> = dot.left_contract.iter().map(|&d| left.window.shape[d]).collect();
        let first = nest.loops.len();
        nest.append_loops(&summed.iter().copied().filter(|&n| n > 1).collect::<Vec<_>>());
        nest.columns = Some((0..nest.loops.len()).map(|l| l >= first).collect());
        let shape = &self.body.values[op.outputs[0]].ty.shape;
        let nested = nest.splitting(|nest| {
            nest_of_product(nest, op, &dot, [&left.window, &right.window], shape, &summed)
        });
        let (classes, maps) = nested.map_err(|_| Error::new("a product without a loop nest"))?;
        self.emit_product(op, nest, classes, maps, left, right)
    }

    fn side(&mut self, operand: &Operand) -> Result<Side> {
        let (source, splat) = self.memory(operand.value)?;
        let mut window = self.placed(operand.value, &operand.window)?;
        if splat {
            window.offset = 0;
            window.strides.fill(0);
        }
        Ok(Side { source, dtype: self.body.dtype(operand.value), window })
    }

    fn emit_product(
        &mut self,
        op: &Op,
        mut nest: Nest,
        classes: Vec<Class>,
        [mut left, mut right]: [Map; 2],
        mut left_side: Side,
        mut right_side: Side,
    ) -> Result<()> {
        let product = op.outputs[0];
        // Bring the loops into the order of the classes, then merge them.
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by_key(|&l| classes[l]);
        for (class, side) in [(Class::M, &left), (Class::N, &right)] {
            in_rows(&mut order, &classes, class, side, &nest.loops);
        }
        let mut loops: Vec<usize> = order.iter().map(|&l| nest.loops[l]).collect();
        let mut classes: Vec<Class> = order.iter().map(|&l| classes[l]).collect();
        nest.select_loops(&order, loops.clone());
        for side in [&mut left, &mut right] {
            side.strides = order.iter().map(|&l| side.strides[l]).collect();
        }
        let mut strides = vec![left.strides.clone(), right.strides.clone()];
        strides.extend(nest.outputs.iter().map(|o| o.map.strides.clone()));
        strides.extend(nest.demands.values().flatten().map(|m| m.strides.clone()));
        let kept = coalesce(&mut loops, &mut strides, |i, j| classes[i] == classes[j]);
        classes = kept.iter().map(|&l| classes[l]).collect();
        nest.select_loops(&kept, loops.clone());
        for side in [&mut left, &mut right] {
            side.strides = kept.iter().map(|&l| side.strides[l]).collect();
        }
        let of = |class| (0..loops.len()).filter(|&l| classes[l] == class).collect::<Vec<usize>>();
        let (batch, mut m, mut n, k) = (of(Class::Batch), of(Class::M), of(Class::N), of(Class::K));
        // Rows of the result should lie in a row: x y is the transpose of yᵀ xᵀ.
        let step = |of: &[usize]| of.last().map_or(1, |&l| nest.outputs[0].map.strides[l]);
        if !m.is_empty() && step(&m) == 1 && step(&n) != 1 {
            std::mem::swap(&mut m, &mut n);
            std::mem::swap(&mut left, &mut right);
            std::mem::swap(&mut left_side, &mut right_side);
        }
        let pick = |map: &Map, rest: [&[usize]; 2]| -> Vec<isize> {
            let all = batch.iter().chain(rest[0]).chain(rest[1]);
            all.map(|&l| map.strides[l]).collect()
        };
        let counts = |of: &[usize]| -> Vec<usize> { of.iter().map(|&l| loops[l]).collect() };

        let mut operands = Operands::default();
        let (left_operand, right_operand) =
            (operands.load(left_side.source), operands.load(right_side.source));
        let side = |operand, side: &Side, map: &Map, rest: [&[usize]; 2]| Access {
            operand,
            dtype: side.dtype,
            offset: map.offset as usize,
            strides: pick(map, rest),
        };
        let left = side(left_operand, &left_side, &left, [&m, &k]);
        let right = side(right_operand, &right_side, &right, [&k, &n]);
        let mut loads = Vec::new();
        let mut emitter = Emitter::new(self.body);
        for (&id, maps) in &nest.demands {
            for map in maps {
                let instruction = if id == product {
                    Instruction::Product
                } else {
                    let strides = pick(map, [&m, &n]);
                    let operand = operands.load(self.source(id)?);
                    loads.push(Access { operand, strides, ..access(self.body, id, map.clone()) });
                    Instruction::Load(loads.len() - 1)
                };
                emitter.define(id, map.clone(), instruction);
            }
        }
        emitter.aliases(&nest.aliases);
        emitter.members(&nest.members);
        let register = |o: &Output| emitter.register(o.source.0, &o.source.1);
        let mut registers: Vec<Register> = nest.outputs.iter().map(register).collect();
        let body = emitter.finish(&mut registers);
        // The result's last operation comes last in the program, and so in the body.
        if registers[0] + 1 != body.len() {
            return Err(Error::new("the work behind a product does not end in its result"));
        }
        let mut stores = nest.outputs.iter().zip(&registers).map(|(output, &register)| {
            let operand = operands.store(self.allocate(output.value));
            let strides = pick(&output.map, [&m, &n]);
            let whole = access(self.body, output.value, output.map.clone());
            Store { register, access: Access { operand, strides, ..whole }, combine: None }
        });
        let out = stores.next().map(|s| s.access).ok_or("a product without a result")?;
        let stores: Vec<Store> = stores.collect();
        let plain = body == [Instruction::Product] && stores.is_empty();
        let epilogue = (!plain).then_some(Epilogue { loads, body, stores });
        let [batch, m, n, k] = [&batch, &m, &n, &k].map(|of| counts(of));
        let kernel = Contract { batch, m, n, k, left, right, out, epilogue };
        self.run(Kernel::Contract(kernel), operands, &op.origin);
        Ok(())
    }
}

/// The class of every loop, and the maps of both operands. The summed loops are the columns.
fn nest_of_product(
    nest: &Nest,
    op: &Op,
    dot: &Dot,
    windows: [&Strided; 2],
    shape: &[usize],
    summed: &[usize],
) -> Result<(Vec<Class>, [Map; 2]), Refusal> {
    let n = nest.loops.len();
    let map = nest.demands.get(&op.outputs[0]).and_then(|m| m.first()).ok_or(Refusal::Never)?;
    let result = map.indices(&nest.loops, shape)?;
    let sums = nest.column_map().indices(&nest.loops, summed)?;
    let batch = dot.left_batch.len();
    let rows = batch + dot.left_free(windows[0].shape.len()).len();
    let classes = (0..n)
        .map(|l| match result.iter().position(|index| index.strides[l] != 0) {
            Some(d) if d < batch => Class::Batch,
            Some(d) if d < rows => Class::M,
            Some(_) => Class::N,
            None => Class::K,
        })
        .collect();
    let side = |window: &Strided, batches: &[usize], contract: &[usize], from: usize| {
        let mut free = from..;
        let indices: Vec<Map> = (0..window.shape.len())
            .map(|d| {
                if let Some(i) = batches.iter().position(|&b| b == d) {
                    return result[i].clone();
                }
                match contract.iter().position(|&c| c == d) {
                    Some(i) => sums[i].clone(),
                    None => free.next().map_or(Map::zero(n), |i| result[i].clone()),
                }
            })
            .collect();
        Map::compose(window, &indices, n)
    };
    let left = side(windows[0], &dot.left_batch, &dot.left_contract, batch);
    let right = side(windows[1], &dot.right_batch, &dot.right_contract, rows);
    Ok((classes, [left, right]))
}

/// Lets the loops of a class step through memory as an operand lies there, if it lies in long rows
/// along one of them: products read whole rows.
fn in_rows(order: &mut [usize], classes: &[Class], class: Class, side: &Map, loops: &[usize]) {
    let first = order.iter().position(|&l| classes[l] == class).unwrap_or(0);
    let count = order.iter().filter(|&&l| classes[l] == class).count();
    let of = &mut order[first..first + count];
    if of.iter().any(|&l| side.strides[l].abs() == 1 && loops[l] >= LONG) {
        of.sort_by_key(|&l| std::cmp::Reverse(side.strides[l].abs()));
    }
}

/// The product with its contracted dimensions in the order of falling strides of the left operand.
fn sorted_by_stride(dot: &Dot, left: &Strided) -> Dot {
    let mut pairs: Vec<(usize, usize)> =
        dot.left_contract.iter().copied().zip(dot.right_contract.iter().copied()).collect();
    pairs.sort_by_key(|&(l, _)| std::cmp::Reverse(left.strides[l]));
    let (left_contract, right_contract) = pairs.into_iter().unzip();
    Dot { left_contract, right_contract, ..dot.clone() }
}
