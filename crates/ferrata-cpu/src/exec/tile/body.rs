//! A kernel body, prepared: every decision that does not depend on the data is made here, once.

use super::ops::{self, Kind, Loop, Reduction};
use crate::isa::Isa;
use crate::steps::Steps;
use ferrata_compiler::kernel::Instruction;
use ferrata_ir::primitive::{ReduceKind, ScalarOp};
use ferrata_ir::{DType, Error, Result};

/// How an operand is read or written, over flattened rows and columns.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub operand: usize,
    pub dtype: DType,
    /// Element at row 0, column 0.
    pub offset: isize,
    pub row: Steps,
    pub column: Steps,
}

/// A register that is written to memory.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub register: usize,
    pub reach: Reach,
    pub combine: Option<ReduceKind>,
}

/// What a body is prepared from.
pub(crate) struct Source<'a> {
    pub loads: Vec<Reach>,
    pub code: &'a [Instruction],
    /// For each loop that an instruction may ask for its index: how the index follows from
    /// flattened rows and columns.
    pub indices: Vec<(Steps, Steps)>,
    /// Dtype of the accumulated product, in an epilogue.
    pub product: Option<DType>,
    pub outputs: Vec<Output>,
}

/// The meaning of an elementwise loop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// An operation on registers of a kind.
    Op(ScalarOp, Kind),
    Cast(Kind, DType),
    Copy,
}

/// What defines a register.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Load(usize),
    Product,
    Constant(u64),
    Index(Steps, Steps),
    Apply { run: Loop, what: What, args: [usize; 3], count: usize },
    Reduce { reduction: Reduction, arg: usize, entry: usize },
}

/// A register of the prepared body.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub kind: Kind,
    pub work: Work,
    /// Whether it differs between rows, and between columns.
    pub by_row: bool,
    pub by_column: bool,
    /// How many reductions along columns stand one behind the other before it.
    pub level: usize,
    /// What its computation costs beyond reading memory, per element.
    pub cost: usize,
    /// Where its elements are kept: an index into the slots.
    pub slot: usize,
    /// The output that it may be computed into.
    pub direct: Option<usize>,
}

/// A store of the prepared body.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub register: usize,
    pub reach: Reach,
    /// One element for each row.
    pub per_row: bool,
    /// How rows are combined.
    pub combine: Option<Reduction>,
    /// Rounds registers to the dtype in memory, where that is a half.
    pub narrow: Option<Loop>,
}

/// A load of the prepared body.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub reach: Reach,
    pub widen: Option<Loop>,
}

/// Space for registers that are never needed at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub by_row: bool,
    pub by_column: bool,
    /// Bytes of an element.
    pub size: usize,
}

/// One walk over the columns: registers computed once for each row, then those computed for each
/// block of columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    pub once: Vec<usize>,
    pub block: Vec<usize>,
}

/// All walks over the columns of a row.
#[derive(Clone, Debug)]
pub(crate) struct Walks {
    pub phases: Vec<Phase>,
    /// Registers that a walk leaves for later ones, element by element.
    pub kept: Vec<usize>,
}

/// A prepared body.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub registers: Vec<Register>,
    pub loads: Vec<Load>,
    pub stores: Vec<Store>,
    pub slots: Vec<Slot>,
    /// Registers in order, for rows that are walked once.
    pub order: Vec<usize>,
    /// How many reductions along columns there are.
    pub reductions: usize,
}

/// Operations that cost about as much as reading and writing memory, or more.
fn weight(op: ScalarOp) -> usize {
    use ScalarOp::*;
    match op {
        Div | Sqrt | Rsqrt | Rem => 3,
        Exp | Expm1 | Log | Log1p | Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Asinh
        | Acosh | Atanh | Tanh | Logistic | Erf | Erfc | ErfInv | Lgamma | Digamma | Pow
        | Atan2 => 10,
        _ => 1,
    }
}

struct Lowering<'a> {
    isa: Isa,
    source: &'a Source<'a>,
    registers: Vec<Register>,
    /// The register that holds the value of each instruction.
    values: Vec<usize>,
    reductions: usize,
}

impl Body {
    /// Prepares a body.
    ///
    /// # Errors
    /// An instruction without meaning on its dtype, or one that refers to what is not there.
    pub fn new(isa: Isa, source: &Source) -> Result<Body> {
        let mut lowering =
            Lowering { isa, source, registers: Vec::new(), values: Vec::new(), reductions: 0 };
        for instruction in source.code {
            let value = lowering.instruction(instruction)?;
            lowering.values.push(value);
        }
        let stores =
            source.outputs.iter().map(|o| lowering.store(o)).collect::<Result<Vec<_>>>()?;
        let loads = source.loads.iter().map(|reach| Load {
            reach: reach.clone(),
            widen: is_half(reach.dtype).then(|| ops::widen(reach.dtype)),
        });
        let mut body = Body {
            loads: loads.collect(),
            stores,
            slots: Vec::new(),
            order: Vec::new(),
            reductions: lowering.reductions,
            registers: lowering.registers,
        };
        body.order = body.reached();
        body.find_direct();
        Ok(body)
    }

    /// Registers that some store needs, in order.
    fn reached(&self) -> Vec<usize> {
        let mut wanted = vec![false; self.registers.len()];
        self.stores.iter().for_each(|s| wanted[s.register] = true);
        for i in (0..self.registers.len()).rev() {
            if wanted[i] {
                self.registers[i].args().iter().for_each(|&a| wanted[a] = true);
            }
        }
        (0..wanted.len()).filter(|&i| wanted[i]).collect()
    }

    /// Finds the registers that can be computed straight into the memory they are stored to.
    fn find_direct(&mut self) {
        for (i, store) in self.stores.iter().enumerate() {
            let register = &mut self.registers[store.register];
            let ok = store.combine.is_none()
                && store.narrow.is_none()
                && !store.per_row
                && store.reach.column.single() == Some(1)
                && register.by_row
                && register.by_column
                && !matches!(register.work, Work::Product);
            if ok && register.direct.is_none() {
                register.direct = Some(i);
            }
        }
    }

    /// Gives registers their slots. With `reuse`, registers that are walked in order share them
    /// when they are never needed together; stored ones live to the end.
    pub fn assign_slots(&mut self, reuse: bool) {
        let mut last = vec![0; self.registers.len()];
        for (at, &i) in self.order.iter().enumerate() {
            self.registers[i].args().iter().for_each(|&a| last[a] = at);
        }
        self.stores.iter().for_each(|s| last[s.register] = usize::MAX);
        let mut free: Vec<usize> = Vec::new();
        for (at, &i) in self.order.iter().enumerate() {
            let r = &self.registers[i];
            let want = Slot { by_row: r.by_row, by_column: r.by_column, size: r.kind.size() };
            let found = free.iter().position(|&s| self.slots[s] == want).filter(|_| reuse);
            let slot = match found {
                Some(f) => free.swap_remove(f),
                None => {
                    self.slots.push(want);
                    self.slots.len() - 1
                }
            };
            self.registers[i].slot = slot;
            // After the choice, so that a result never lies over its own operands.
            let mut args = self.registers[i].args().to_vec();
            args.dedup();
            args.retain(|&a| last[a] == at);
            args.sort_unstable();
            args.dedup();
            free.extend(args.iter().map(|&a| self.registers[a].slot));
        }
    }

    /// The walks over long rows, each with what it computes. Registers for which `keep` says so
    /// are computed in the first walk that needs them and read back in later ones; others are
    /// computed again. All stores happen in the last walk.
    pub fn walks(&self, keep: impl Fn(&Register) -> bool) -> Walks {
        let level = |i: usize| self.registers[i].level;
        let sums = self.order.iter().filter_map(|&i| match self.registers[i].work {
            Work::Reduce { arg, .. } => Some((i, arg)),
            _ => None,
        });
        let sums: Vec<(usize, usize)> = sums.collect();
        let stored = self.stores.iter().map(|s| level(s.register)).max().unwrap_or(0);
        let last = sums.iter().map(|&(_, arg)| level(arg)).max().unwrap_or(0).max(stored);
        let mut walks = Walks { phases: Vec::new(), kept: Vec::new() };
        let mut ready = vec![false; self.registers.len()];
        for phase in 0..=last {
            let mut wanted = vec![false; self.registers.len()];
            sums.iter().filter(|s| level(s.1) == phase).for_each(|s| wanted[s.0] = true);
            if phase == last {
                self.stores.iter().for_each(|s| wanted[s.register] = true);
            }
            for &i in self.order.iter().rev() {
                if wanted[i] && !ready[i] {
                    self.registers[i].args().iter().for_each(|&a| wanted[a] = true);
                }
            }
            let mut stage = Phase::default();
            for &i in self.order.iter().filter(|&&i| wanted[i]) {
                let r = &self.registers[i];
                if ready[i] {
                    if r.by_column && !walks.kept.contains(&i) {
                        walks.kept.push(i);
                    }
                } else if r.by_column || matches!(r.work, Work::Reduce { .. }) {
                    stage.block.push(i);
                } else {
                    stage.once.push(i);
                }
            }
            for &i in stage.once.iter().chain(&stage.block) {
                ready[i] = !self.registers[i].by_column || keep(&self.registers[i]);
            }
            walks.phases.push(stage);
        }
        walks
    }
}

impl Register {
    /// Registers that this one is computed from.
    pub fn args(&self) -> &[usize] {
        match &self.work {
            Work::Apply { args, count, .. } => &args[..*count],
            Work::Reduce { arg, .. } => std::slice::from_ref(arg),
            _ => &[],
        }
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

impl Lowering<'_> {
    fn instruction(&mut self, instruction: &Instruction) -> Result<usize> {
        Ok(match instruction {
            Instruction::Load(i) => {
                let load = self.source.loads.get(*i).ok_or("a body loads what is not there")?;
                let still = (load.row.is_still(), load.column.is_still());
                let cost = usize::from(is_half(load.dtype));
                self.leaf(Kind::of(load.dtype), Work::Load(*i), !still.0, !still.1, cost)
            }
            Instruction::Product => {
                let dtype = self.source.product.ok_or("there is no product in this body")?;
                self.leaf(Kind::of(dtype), Work::Product, true, true, 0)
            }
            Instruction::Constant { dtype, value } => {
                let kind = Kind::of(*dtype);
                self.leaf(kind, Work::Constant(kind.bits(*value)), false, false, 0)
            }
            Instruction::Index { dim, dtype } => {
                let index = self.source.indices.get(*dim).ok_or("a body counts what is no loop")?;
                let (by_row, by_column) = (!index.0.is_still(), !index.1.is_still());
                let work = Work::Index(index.0.clone(), index.1.clone());
                self.leaf(Kind::of(*dtype), work, by_row, by_column, 1)
            }
            Instruction::Apply { op, dtype, args } => self.apply(*op, *dtype, args)?,
            Instruction::Cast { from, to, arg } => {
                let arg = self.value(*arg)?;
                let kind = Kind::of(*to);
                // f32 registers hold halves exactly.
                let same = Kind::of(*from) == kind && !(is_half(*to) && from != to);
                if same {
                    return Ok(arg);
                }
                let run = ops::cast(Kind::of(*from), *to);
                let what = What::Cast(Kind::of(*from), *to);
                self.derived(kind, run, what, &[arg], 1)
            }
            Instruction::ReduceColumns { kind, dtype, arg } => {
                let arg = self.value(*arg)?;
                let Register { by_row, by_column, .. } = self.registers[arg];
                let arg = if by_column { arg } else { self.spread(arg, by_row, true) };
                let of = self.registers[arg].kind;
                let reduction = ops::reduction(*kind, of)
                    .ok_or_else(|| Error::new(format!("{kind:?} of {dtype} has no meaning")))?;
                let entry = self.reductions;
                self.reductions += 1;
                let Register { by_row, level, .. } = self.registers[arg];
                let work = Work::Reduce { reduction, arg, entry };
                let r = self.leaf(of, work, by_row, false, 0);
                self.registers[r].level = level + 1;
                r
            }
        })
    }

    fn apply(&mut self, op: ScalarOp, dtype: DType, args: &[usize]) -> Result<usize> {
        let args = args.iter().map(|&a| self.value(a)).collect::<Result<Vec<_>>>()?;
        let kind = Kind::of(dtype);
        let run = match args.len() {
            1 => ops::unary(self.isa, op, kind),
            2 => ops::binary(self.isa, op, kind),
            3 if op == ScalarOp::Select => Some(ops::select(kind.size())),
            _ => None,
        };
        let run = run.ok_or_else(|| Error::new(format!("{op:?} of {dtype} has no meaning")))?;
        use ScalarOp::{Eq, Ge, Gt, IsFinite, Le, Lt, Ne};
        let truth = matches!(op, Eq | Ne | Lt | Le | Gt | Ge | IsFinite);
        let what = What::Op(op, kind);
        let kind = if truth { Kind::Bool } else { kind };
        Ok(self.derived(kind, run, what, &args, weight(op)))
    }

    fn store(&mut self, output: &Output) -> Result<Store> {
        let mut register = self.value(output.register)?;
        let reach = output.reach.clone();
        let per_row = reach.column.is_still();
        let combine = match output.combine {
            None => None,
            Some(kind) => {
                let reduction = ops::reduction(kind, self.registers[register].kind);
                Some(reduction.ok_or("a store combines what has no meaning")?)
            }
        };
        let Register { by_row, by_column, .. } = self.registers[register];
        let (rows, columns) = (by_row || combine.is_some(), by_column || !per_row);
        if (rows, columns) != (by_row, by_column) {
            register = self.spread(register, rows, columns);
        }
        if per_row && columns {
            return Err(Error::new("a store has one element for a row whose columns differ"));
        }
        let kind = self.registers[register].kind;
        if kind != Kind::of(reach.dtype) {
            let (have, want) = (kind.dtype(), reach.dtype);
            return Err(Error::new(format!("a kernel stores a value of {have} as {want}")));
        }
        let narrow = is_half(reach.dtype).then(|| ops::narrow(reach.dtype));
        Ok(Store { register, reach, per_row, combine, narrow })
    }

    fn value(&self, instruction: usize) -> Result<usize> {
        let value = self.values.get(instruction).copied();
        value.ok_or_else(|| Error::new("a body uses a value before it is defined"))
    }

    fn leaf(
        &mut self,
        kind: Kind,
        work: Work,
        by_row: bool,
        by_column: bool,
        cost: usize,
    ) -> usize {
        self.registers.push(Register {
            kind,
            work,
            by_row,
            by_column,
            level: 0,
            cost,
            slot: 0,
            direct: None,
        });
        self.registers.len() - 1
    }

    fn derived(
        &mut self,
        kind: Kind,
        run: Loop,
        what: What,
        args: &[usize],
        weight: usize,
    ) -> usize {
        let mut list = [args[0]; 3];
        list[..args.len()].copy_from_slice(args);
        let of = |f: fn(&Register) -> bool| args.iter().any(|&a| f(&self.registers[a]));
        let (by_row, by_column) = (of(|r| r.by_row), of(|r| r.by_column));
        let level = args.iter().map(|&a| self.registers[a].level).max().unwrap_or(0);
        let varying = args.iter().map(|&a| &self.registers[a]).filter(|r| r.by_column);
        let cost = weight + varying.map(|r| r.cost).sum::<usize>();
        let work = Work::Apply { run, what, args: list, count: args.len() };
        let r = self.leaf(kind, work, by_row, by_column, cost);
        self.registers[r].level = level;
        r
    }

    /// A copy that has an element for each row, for each column, or for both.
    fn spread(&mut self, arg: usize, by_row: bool, by_column: bool) -> usize {
        let kind = self.registers[arg].kind;
        let run = ops::copy(kind.size());
        let r = self.derived(kind, run, What::Copy, &[arg], 1);
        (self.registers[r].by_row, self.registers[r].by_column) = (by_row, by_column);
        r
    }
}
