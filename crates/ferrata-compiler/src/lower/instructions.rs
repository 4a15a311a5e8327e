//! Members of a nest become instructions.

use crate::body::{Body, Id, Kind, Op, Scalarly};
use crate::kernel::{Instruction, Register};
use crate::nest::{Element, Member};
use crate::strided::Map;
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::primitive::elementwise::{ElementwiseOp, Expression, Kernel, ScalarOp, Term};
use ferrata_ir::{DType, Scalar};
use std::collections::HashMap;

/// Collects instructions; equal ones are emitted once.
pub struct Emitter<'a> {
    body: &'a Body,
    instructions: Vec<Instruction>,
    known: HashMap<Instruction, Register>,
    registers: HashMap<(Id, Map), Register>,
}

/// The dtype that values of this dtype are computed in.
pub fn compute(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

impl<'a> Emitter<'a> {
    /// Without instructions.
    pub fn new(body: &'a Body) -> Self {
        Emitter { body, instructions: Vec::new(), known: HashMap::new(), registers: HashMap::new() }
    }

    /// The instructions that `roots` need, which are renumbered with them.
    pub fn finish(self, roots: &mut [Register]) -> Vec<Instruction> {
        let mut needed = vec![false; self.instructions.len()];
        roots.iter().for_each(|&r| needed[r] = true);
        for (r, instruction) in self.instructions.iter().enumerate().rev() {
            if needed[r] {
                instruction.args().iter().for_each(|&a| needed[a] = true);
            }
        }
        let mut number = vec![0; needed.len()];
        let mut out = Vec::new();
        for (r, mut instruction) in self.instructions.into_iter().enumerate() {
            if needed[r] {
                number[r] = out.len();
                instruction.args_mut().iter_mut().for_each(|a| *a = number[*a]);
                out.push(instruction);
            }
        }
        roots.iter_mut().for_each(|r| *r = number[*r]);
        out
    }

    fn emit(&mut self, instruction: Instruction) -> Register {
        if let Some(&known) = self.known.get(&instruction) {
            return known;
        }
        self.instructions.push(instruction.clone());
        self.known.insert(instruction, self.instructions.len() - 1);
        self.instructions.len() - 1
    }

    /// Says how an element that is not computed here is had.
    pub fn define(&mut self, id: Id, map: Map, instruction: Instruction) -> Register {
        let register = self.emit(instruction);
        self.registers.insert((id, map), register);
        register
    }

    /// Elements that other values hold.
    pub fn aliases(&mut self, aliases: &[(Element, Element)]) {
        for (element, held) in aliases {
            if let Some(&register) = self.registers.get(held) {
                self.registers.insert(element.clone(), register);
            }
        }
    }

    /// The register that holds an element of a value.
    pub fn register(&self, id: Id, map: &Map) -> Register {
        self.registers[&(id, map.clone())]
    }

    /// Combines over the columns the elements of what becomes `id`.
    pub fn reduce(&mut self, kind: ReduceKind, id: Id, arg: Register) -> Register {
        let dtype = compute(self.body.dtype(id));
        self.emit(Instruction::ReduceColumns { kind, dtype, arg })
    }

    /// Emits all members, which are listed users first.
    pub fn members(&mut self, members: &[Member]) {
        for member in members.iter().rev() {
            let op = &self.body.ops[member.op];
            let value = op.outputs[0];
            let args: Vec<Register> = op
                .inputs
                .iter()
                .zip(&member.inputs)
                .map(|(x, map)| self.register(x.value, map))
                .collect();
            let register = match &op.kind {
                Kind::Map(Scalarly::Index(_)) => {
                    self.index(&member.inputs[0], self.body.dtype(value))
                }
                Kind::Reduce { kind, .. } => self.reduce(*kind, value, args[0]),
                _ => self.map(op, &args),
            };
            self.registers.insert((value, member.map.clone()), register);
        }
    }

    fn map(&mut self, op: &Op, args: &[Register]) -> Register {
        let to = self.body.dtype(op.outputs[0]);
        match op.kind {
            Kind::Map(Scalarly::Apply(e)) => {
                let last = op.inputs.len() - 1;
                self.elementwise(e, compute(self.body.dtype(op.inputs[last].value)), args)
            }
            Kind::Map(Scalarly::Cast) => {
                self.cast(self.body.dtype(op.inputs[0].value), to, args[0])
            }
            Kind::Map(Scalarly::Constant(value)) => self.constant(compute(to), value),
            _ => args[0],
        }
    }

    fn constant(&mut self, dtype: DType, value: Scalar) -> Register {
        self.emit(Instruction::Constant { dtype, value })
    }

    fn elementwise(&mut self, op: &ElementwiseOp, dtype: DType, args: &[Register]) -> Register {
        match op.kernel {
            Kernel::Op(op) => self.emit(Instruction::Apply { op, dtype, args: args.to_vec() }),
            Kernel::Expand(expand) => {
                let terms: Vec<Term> = args.iter().map(|&r| Term(r as u32)).collect();
                expand(&mut Expansion { emitter: self, dtype }, dtype, &terms).0 as Register
            }
        }
    }

    fn cast(&mut self, from: DType, to: DType, mut arg: Register) -> Register {
        if compute(from) != from {
            // A half-precision value that was computed here has not been rounded yet.
            let rounded = match &self.instructions[arg] {
                Instruction::Load(_) | Instruction::Constant { .. } => true,
                Instruction::Cast { to, .. } => *to == from,
                _ => false,
            };
            if !rounded {
                arg = self.emit(Instruction::Cast { from: DType::F32, to: from, arg });
            }
        }
        let from = compute(from);
        if from == to { arg } else { self.emit(Instruction::Cast { from, to, arg }) }
    }

    /// `offset + Σ strides[l] · index of loop l`.
    fn index(&mut self, map: &Map, dtype: DType) -> Register {
        let terms: Vec<(usize, isize)> =
            map.strides.iter().copied().enumerate().filter(|(_, s)| *s != 0).collect();
        if let ([(dim, 1)], 0) = (terms.as_slice(), map.offset)
            && compute(dtype) == dtype
        {
            return self.emit(Instruction::Index { dim: *dim, dtype });
        }
        let wide = DType::I64;
        let mut sum = None;
        for (dim, stride) in terms {
            let mut term = self.emit(Instruction::Index { dim, dtype: wide });
            if stride != 1 {
                let stride = self.constant(wide, Scalar::Int(stride as i64));
                term = self.binary(ScalarOp::Mul, term, stride);
            }
            sum = Some(sum.map_or(term, |s| self.binary(ScalarOp::Add, s, term)));
        }
        if map.offset != 0 || sum.is_none() {
            let offset = self.constant(wide, Scalar::Int(map.offset as i64));
            sum = Some(sum.map_or(offset, |s| self.binary(ScalarOp::Add, s, offset)));
        }
        let arg = sum.unwrap_or_default();
        if dtype == wide {
            arg
        } else {
            self.emit(Instruction::Cast { from: wide, to: dtype, arg })
        }
    }

    fn binary(&mut self, op: ScalarOp, a: Register, b: Register) -> Register {
        self.emit(Instruction::Apply { op, dtype: DType::I64, args: vec![a, b] })
    }
}

/// Where an elementwise primitive that is no scalar operation is expanded.
struct Expansion<'a, 'b> {
    emitter: &'a mut Emitter<'b>,
    dtype: DType,
}

impl Expression for Expansion<'_, '_> {
    fn constant(&mut self, dtype: DType, x: f64) -> Term {
        Term(self.emitter.constant(compute(dtype), Scalar::of(compute(dtype), x)) as u32)
    }

    fn apply(&mut self, op: ScalarOp, args: &[Term]) -> Term {
        let args = args.iter().map(|t| t.0 as Register).collect();
        Term(self.emitter.emit(Instruction::Apply { op, dtype: self.dtype, args }) as u32)
    }
}
