//! What kernels and plans cost: scalar operations and bytes, for profiles, `inspect` and choices.

use crate::kernel::{Instruction, Kernel, View};
use crate::plan::{Plan, Step};
use ferrata_ir::composite::attention;
use ferrata_ir::{DType, Type};

/// Work of a kernel, a schedule or a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Scalar operations; a multiplication and an addition count as two.
    pub flops: f64,
    /// Bytes that have to be read at least: every operand's footprint once.
    pub read: f64,
    /// Bytes that have to be written at least.
    pub written: f64,
}

impl Cost {
    /// Bytes that have to be moved at least.
    pub fn bytes(self) -> f64 {
        self.read + self.written
    }

    fn times(self, n: f64) -> Cost {
        Cost { flops: self.flops * n, read: self.read * n, written: self.written * n }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.read += other.read;
        self.written += other.written;
    }
}

/// Bytes of the elements of a view; those of a dimension that stays in place count once, and those
/// of windows that overlap no more often than they lie in memory.
fn view_bytes(view: &View) -> f64 {
    let moving = || view.shape.iter().zip(&view.strides).filter(|(_, s)| **s != 0);
    let elements: f64 = moving().map(|(&n, _)| n as f64).product();
    let last: f64 = moving().map(|(&n, &s)| (n.saturating_sub(1) * s.unsigned_abs()) as f64).sum();
    elements.min(last + 1.0) * view.dtype.size() as f64
}

fn points(loops: &[usize]) -> f64 {
    loops.iter().map(|&n| n as f64).product()
}

/// Scalar operations of a body at one point.
pub(crate) fn operations(body: &[Instruction]) -> usize {
    let counts = |x: &&Instruction| {
        matches!(x, Instruction::Apply { .. } | Instruction::ReduceColumns { .. })
    };
    body.iter().filter(counts).count()
}

impl Kernel {
    /// Least work. Every instruction of a body counts at every point, though some are the same for
    /// a whole row. Operations of attention are those of its matrix products; of other primitives
    /// and composites those of the loop nest if there is one, else one for each element of the
    /// results.
    pub fn cost(&self) -> Cost {
        let bytes = |views: Vec<View>| views.iter().map(view_bytes).sum();
        Cost { flops: self.flops(), read: bytes(self.reads()), written: bytes(self.writes()) }
    }

    fn flops(&self) -> f64 {
        let elements = |views: &[View]| views.iter().map(|v| points(&v.shape)).sum::<f64>();
        match self {
            Kernel::Loop(l) => {
                let combines = l.stores.iter().filter(|s| s.combine.is_some()).count();
                points(&l.rows) * points(&l.columns) * (operations(&l.body) + combines) as f64
            }
            Kernel::Contract(c) => {
                let each = 2.0 * points(&c.k) + operations(self.body()) as f64;
                points(&c.batch) * points(&c.m) * points(&c.n) * each
            }
            Kernel::Composite { composite, inputs, outputs } => {
                let shapes: Vec<&[usize]> = inputs.iter().map(|v| &v.shape[..]).collect();
                attention::flops(composite, &shapes).unwrap_or_else(|| elements(outputs))
            }
            Kernel::Primitive { op, inputs, outputs } => {
                let types: Vec<Type> =
                    inputs.iter().map(|v| Type::new(v.dtype, v.shape.clone())).collect();
                let loops = op.rules().loops(&types.iter().collect::<Vec<_>>());
                loops.map_or(elements(outputs), |l| l.flops())
            }
        }
    }
}

impl Kernel {
    /// The dtype that most of the work is in: that of the operands of a product, else that of the
    /// results, which decides how fast the machine can be.
    pub fn dtype(&self) -> DType {
        let of = |views: &[View]| views.first().map_or(DType::F32, |v| v.dtype);
        match self {
            Kernel::Loop(l) => l.stores.first().map_or(DType::F32, |s| s.access.dtype),
            Kernel::Contract(c) => c.left.dtype,
            Kernel::Composite { inputs, .. } => of(inputs),
            Kernel::Primitive { outputs, .. } => of(outputs),
        }
    }
}

impl Plan {
    /// Work of one run; of a branch, that of the costlier side.
    pub fn cost(&self) -> Cost {
        self.cost_of(&self.steps)
    }

    fn cost_of(&self, steps: &[Step]) -> Cost {
        let copy = |bytes: usize| Cost { flops: 0.0, read: bytes as f64, written: bytes as f64 };
        let mut sum = Cost::default();
        for step in steps {
            sum += match step {
                Step::Run { kernel, .. } => self.kernels[*kernel].cost(),
                Step::Copy { bytes, .. } => copy(*bytes),
                Step::Repeat { length, load, body, store, .. } => {
                    let mut turn = self.cost_of(body);
                    load.iter().chain(store).for_each(|(_, _, bytes)| turn += copy(*bytes));
                    turn.times(*length as f64)
                }
                Step::Branch { branches: [yes, no], .. } => {
                    let (yes, no) = (self.cost_of(yes), self.cost_of(no));
                    if yes.flops + yes.bytes() >= no.flops + no.bytes() { yes } else { no }
                }
            };
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use crate::ReferenceDevice;
    use ferrata_ir::{Builder, DType, Type};
    use std::sync::Arc;

    #[test]
    fn cost_of_a_product_with_bias() {
        let mut b = Builder::new("f");
        let x = b.parameter(Type::new(DType::F32, [4, 8]));
        let w = b.parameter(Type::new(DType::F32, [8, 16]));
        let bias = b.parameter(Type::new(DType::F32, [16]));
        let y = b.matmul(x, w);
        let bias = b.broadcast(bias, &[4, 16], &[1]);
        let y = b.add(y, bias);
        let f = Arc::new(b.finish(&[y]).unwrap());
        let plan = crate::compile(&f, &[false; 3], &ReferenceDevice).unwrap();
        let cost = plan.cost();
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(cost.flops, 2.0 * 4.0 * 8.0 * 16.0 + 64.0);
        assert_eq!(cost.read, 4.0 * (32.0 + 128.0 + 16.0));
        assert_eq!(cost.written, 4.0 * 64.0);
    }
}
