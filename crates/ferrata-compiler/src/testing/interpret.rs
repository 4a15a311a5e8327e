//! A slow interpreter of plans over byte buffers: the meaning of the kernel language, and how the
//! compiler is tested without any device.

use crate::kernel::{Access, Contract, Instruction, Kernel, Loop, View};
use crate::plan::{Place, Plan, Step};
use ferrata_ir::primitive::elementwise::{self, Reference, ScalarOp};
use ferrata_ir::{DType, Error, Evaluator, Literal, Precision, Primitive, Result, Scalar, Type};
use std::collections::BTreeMap;

/// Results of a plan. Memory that the plan has not written is filled with a pattern that a reader
/// would notice.
///
/// # Errors
/// When the inputs do not fit or a primitive has no meaning.
pub fn interpret(plan: &Plan, inputs: &[&Literal]) -> Result<Vec<Literal>> {
    let fits = inputs.len() == plan.inputs.len()
        && inputs.iter().zip(&plan.inputs).all(|(x, ty)| x.ty == *ty);
    if !fits {
        return Err(Error::new("arguments do not fit the plan"));
    }
    let mut machine = Machine::new(plan, inputs);
    machine.steps(&plan.steps)?;
    let results = plan.results.iter().enumerate();
    results.map(|(r, ty)| Literal::from_bytes(ty.clone(), machine.result(r))).collect()
}

const UNWRITTEN: u8 = 0xA5;

struct Machine<'a> {
    plan: &'a Plan,
    inputs: Vec<Vec<u8>>,
    results: Vec<Vec<u8>>,
    arena: Vec<u8>,
    constants: Vec<Vec<u8>>,
}

impl<'a> Machine<'a> {
    fn new(plan: &'a Plan, inputs: &[&Literal]) -> Self {
        Machine {
            plan,
            inputs: inputs.iter().map(|x| x.to_bytes()).collect(),
            results: plan.results.iter().map(|t| vec![UNWRITTEN; t.bytes()]).collect(),
            arena: vec![UNWRITTEN; plan.arena],
            constants: plan.constants.iter().map(|c| c.to_bytes()).collect(),
        }
    }

    fn result(&self, r: usize) -> &[u8] {
        self.memory(Place::Result { index: r, offset: 0 })
    }

    fn memory(&self, place: Place) -> &[u8] {
        match place {
            Place::Input { index, offset } => &self.inputs[index][offset..],
            Place::Result { index, offset } => match self.plan.takes[index] {
                Some(input) => &self.inputs[input][offset..],
                None => &self.results[index][offset..],
            },
            Place::Arena { offset } => &self.arena[offset..],
            Place::Constant { index } => &self.constants[index],
        }
    }

    fn memory_mut(&mut self, place: Place) -> &mut [u8] {
        match place {
            Place::Input { index, offset } => &mut self.inputs[index][offset..],
            Place::Result { index, offset } => match self.plan.takes[index] {
                Some(input) => &mut self.inputs[input][offset..],
                None => &mut self.results[index][offset..],
            },
            Place::Arena { offset } => &mut self.arena[offset..],
            Place::Constant { index } => &mut self.constants[index],
        }
    }

    fn steps(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.step(step)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: (Place, usize), to: (Place, usize), bytes: usize) {
        let moved = self.memory(from.0)[from.1..from.1 + bytes].to_vec();
        self.memory_mut(to.0)[to.1..to.1 + bytes].copy_from_slice(&moved);
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Run { kernel, operands, origin } => {
                let kernel = &*self.plan.kernels[*kernel];
                self.kernel(kernel, operands).map_err(|e| e.at("kernel", &[], origin))
            }
            Step::Copy { from, to, bytes } => {
                self.copy((*from, 0), (*to, 0), *bytes);
                Ok(())
            }
            Step::Repeat { length, reverse, load, body, store } => {
                for turn in 0..*length {
                    let index = if *reverse { length - 1 - turn } else { turn };
                    for &(from, to, bytes) in load {
                        self.copy((from, index * bytes), (to, 0), bytes);
                    }
                    self.steps(body)?;
                    for &(from, to, bytes) in store {
                        self.copy((from, 0), (to, index * bytes), bytes);
                    }
                }
                Ok(())
            }
            Step::Branch { condition, branches } => {
                let which = usize::from(self.memory(*condition)[0] == 0);
                self.steps(&branches[which])
            }
        }
    }

    fn kernel(&mut self, kernel: &Kernel, operands: &[Place]) -> Result<()> {
        match kernel {
            Kernel::Loop(l) => self.run_loop(l, operands),
            Kernel::Contract(c) => self.contract(c, operands),
            Kernel::Primitive { op, inputs, outputs } => {
                self.primitive(op, inputs, outputs, operands)
            }
            Kernel::Composite { composite, .. } => {
                Err(Error::new(format!("`{}` was never claimed", composite.name)))
            }
        }
    }

    fn primitive(
        &mut self,
        op: &Primitive,
        inputs: &[View],
        outputs: &[View],
        operands: &[Place],
    ) -> Result<()> {
        let read: Vec<Literal> = inputs
            .iter()
            .map(|v| {
                let ty = Type::new(v.dtype, v.shape.clone());
                let memory = self.memory(operands[v.operand]);
                let mut at = indices(&v.shape);
                Literal::build(ty, |_| {
                    let i = at.next().unwrap_or_default();
                    read(memory, v.dtype, v.offset as isize + dot(&i, &v.strides))
                })
            })
            .collect();
        let types: Vec<Type> =
            outputs.iter().map(|v| Type::new(v.dtype, v.shape.clone())).collect();
        let results = op.rules().evaluate(
            &Evaluator::new(Precision::Typed),
            &read.iter().collect::<Vec<_>>(),
            &types.iter().collect::<Vec<_>>(),
        )?;
        for (view, result) in outputs.iter().zip(results) {
            let bytes = result.rounded().to_bytes();
            self.memory_mut(operands[view.operand])[..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn run_loop(&mut self, kernel: &Loop, operands: &[Place]) -> Result<()> {
        let columns: Vec<Vec<usize>> = indices(&kernel.columns).collect();
        // Partial results of stores that combine rows, by operand and element.
        let mut partial: BTreeMap<(usize, isize), Scalar> = BTreeMap::new();
        for row in indices(&kernel.rows) {
            let points: Vec<Vec<usize>> =
                columns.iter().map(|c| row.iter().chain(c).copied().collect()).collect();
            let registers = self.row(kernel, operands, &points)?;
            for (s, store) in kernel.stores.iter().enumerate() {
                for (c, point) in points.iter().enumerate() {
                    let (value, dtype) = &registers[store.register];
                    let at = store.access.offset as isize + dot(point, &store.access.strides);
                    let Some(kind) = store.combine else {
                        let memory = self.memory_mut(operands[store.access.operand]);
                        write(memory, store.access.dtype, at, value[c]);
                        continue;
                    };
                    let row_only =
                        store.access.strides[kernel.rows.len()..].iter().all(|s| *s == 0);
                    if row_only && c > 0 {
                        continue;
                    }
                    let sum = partial.entry((s, at)).or_insert_with(|| kind.identity(*dtype));
                    let reference = kind.op().reference;
                    *sum = round(*dtype, reference.apply(&[*sum, value[c]]));
                }
            }
        }
        for ((s, at), value) in partial {
            let access = &kernel.stores[s].access;
            write(self.memory_mut(operands[access.operand]), access.dtype, at, value);
        }
        Ok(())
    }

    /// All registers at all points of a row.
    fn row(
        &self,
        kernel: &Loop,
        operands: &[Place],
        points: &[Vec<usize>],
    ) -> Result<Vec<(Vec<Scalar>, DType)>> {
        let mut registers: Vec<(Vec<Scalar>, DType)> = Vec::new();
        for instruction in &kernel.body {
            let result = match instruction {
                Instruction::ReduceColumns { kind, dtype, arg } => {
                    let reference = kind.op().reference;
                    let mut sum = kind.identity(*dtype);
                    for x in &registers[*arg].0 {
                        sum = reference.apply(&[sum, *x]);
                    }
                    (vec![round(*dtype, sum); points.len()], *dtype)
                }
                _ => {
                    let mut dtype = DType::Bool;
                    let mut values = Vec::new();
                    for (c, point) in points.iter().enumerate() {
                        let load = |a: &Access| self.load(a, operands, point);
                        let get = |r: usize| registers[r].0[c];
                        let (value, d) =
                            scalar(instruction, &kernel.loads, &load, &get, point, None)?;
                        values.push(value);
                        dtype = d;
                    }
                    (values, dtype)
                }
            };
            registers.push(result);
        }
        Ok(registers)
    }

    fn load(&self, access: &Access, operands: &[Place], point: &[usize]) -> Scalar {
        let at = access.offset as isize + dot(point, &access.strides);
        read(self.memory(operands[access.operand]), access.dtype, at)
    }

    fn store(&mut self, access: &Access, operands: &[Place], point: &[usize], value: Scalar) {
        let at = access.offset as isize + dot(point, &access.strides);
        write(self.memory_mut(operands[access.operand]), access.dtype, at, value);
    }

    fn contract(&mut self, kernel: &Contract, operands: &[Place]) -> Result<()> {
        let shape = [&kernel.batch[..], &kernel.m, &kernel.n].concat();
        let accumulator = kernel.left.dtype.accumulator();
        for point in indices(&shape) {
            let (batch, at) = point.split_at(kernel.batch.len());
            let (m, n) = at.split_at(kernel.m.len());
            let (mut float, mut int) = (0.0, 0i64);
            for k in indices(&kernel.k) {
                let left = [batch, m, &k].concat();
                let right = [batch, &k, n].concat();
                let x = self.load(&kernel.left, operands, &left);
                let y = self.load(&kernel.right, operands, &right);
                float += x.as_f64() * y.as_f64();
                int = int.wrapping_add(x.as_i64().wrapping_mul(y.as_i64()));
            }
            let is_float = accumulator.is_float();
            let product = if is_float { Scalar::Float(float) } else { Scalar::Int(int) };
            let mut value = round(accumulator, product);
            if let Some(epilogue) = &kernel.epilogue {
                let mut registers: Vec<Scalar> = Vec::new();
                for instruction in &epilogue.body {
                    let load = |a: &Access| self.load(a, operands, &point);
                    let get = |r: usize| registers[r];
                    let product = Some((value, accumulator));
                    let (x, _) =
                        scalar(instruction, &epilogue.loads, &load, &get, &point, product)?;
                    registers.push(x);
                }
                value = registers.last().copied().unwrap_or(value);
                for store in &epilogue.stores {
                    self.store(&store.access, operands, &point, registers[store.register]);
                }
            }
            self.store(&kernel.out, operands, &point, value);
        }
        Ok(())
    }
}

/// One instruction at one point: its value and register dtype.
fn scalar(
    instruction: &Instruction,
    loads: &[Access],
    load: &dyn Fn(&Access) -> Scalar,
    get: &dyn Fn(usize) -> Scalar,
    point: &[usize],
    product: Option<(Scalar, DType)>,
) -> Result<(Scalar, DType)> {
    Ok(match instruction {
        Instruction::Load(i) => {
            let dtype = loads[*i].dtype;
            let half = matches!(dtype, DType::F16 | DType::BF16);
            (load(&loads[*i]), if half { DType::F32 } else { dtype })
        }
        Instruction::Product => product.ok_or("no product outside an epilogue")?,
        Instruction::Constant { dtype, value } => (round(*dtype, *value), *dtype),
        Instruction::Index { dim, dtype } => {
            let index = Scalar::Int(point[*dim] as i64);
            (elementwise::Cast { dtype: *dtype }.apply(index), *dtype)
        }
        Instruction::Apply { op, dtype, args } => {
            let args: Vec<Scalar> = args.iter().map(|&a| get(a)).collect();
            let (reference, is_bool) = meaning(*op)?;
            let to = if is_bool { DType::Bool } else { *dtype };
            (round(to, reference.apply(&args)), to)
        }
        Instruction::Cast { to, arg, .. } => {
            let half = matches!(to, DType::F16 | DType::BF16);
            let value = round(*to, elementwise::Cast { dtype: *to }.apply(get(*arg)));
            (value, if half { DType::F32 } else { *to })
        }
        Instruction::ReduceColumns { .. } => return Err(Error::new("no row to reduce")),
    })
}

/// The reference of the elementwise primitive that is this scalar operation, and whether it gives
/// a truth value.
fn meaning(op: ScalarOp) -> Result<(Reference, bool)> {
    let is =
        |e: &&elementwise::ElementwiseOp| matches!(e.kernel, elementwise::Kernel::Op(o) if o == op);
    let found = elementwise::all().find(is);
    let found = found.ok_or_else(|| Error::new(format!("no primitive is {op:?}")))?;
    let compares =
        matches!(found.signature, elementwise::Signature::Compare | elementwise::Signature::Test);
    Ok((found.reference, compares))
}

fn round(dtype: DType, x: Scalar) -> Scalar {
    match x {
        Scalar::Float(x) => Scalar::Float(dtype.round_float(x)),
        Scalar::Int(x) => Scalar::Int(dtype.wrap_int(x)),
    }
}

fn read(memory: &[u8], dtype: DType, at: isize) -> Scalar {
    let from = at as usize * dtype.size();
    let ty = Type::new(dtype, [1]);
    // The span is in bounds, or the plan is wrong and the test should fail loudly.
    let literal = Literal::from_bytes(ty, &memory[from..from + dtype.size()]);
    literal.map_or(Scalar::Int(0), |l| l.get(0))
}

fn write(memory: &mut [u8], dtype: DType, at: isize, x: Scalar) {
    let bytes = Literal::splat(Type::new(dtype, [1]), x).rounded().to_bytes();
    memory[at as usize * dtype.size()..][..bytes.len()].copy_from_slice(&bytes);
}

fn dot(index: &[usize], strides: &[isize]) -> isize {
    index.iter().zip(strides).map(|(&i, s)| i as isize * s).sum()
}

/// All indices of a shape, row-major.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let strides = ferrata_ir::row_major_strides(shape);
    let shape = shape.to_vec();
    (0..shape.iter().product()).map(move |i: usize| {
        strides.iter().zip(&shape).map(|(stride, size)| i / stride % size).collect()
    })
}
