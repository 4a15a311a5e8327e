//! What kernels and plans cost: scalar operations and bytes, for profiles, `inspect` and choices.

use crate::kernel::{Access, Contract, Instruction, Kernel, Loop, View};
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

/// Bytes that loops touch through an access.
fn footprint(access: &Access, loops: &[usize]) -> f64 {
    let moving = loops.iter().zip(&access.strides).filter(|(_, s)| **s != 0);
    moving.map(|(&n, _)| n as f64).product::<f64>() * access.dtype.size() as f64
}

fn view_bytes(view: &View) -> f64 {
    let moving = view.shape.iter().zip(&view.strides).filter(|(_, s)| **s != 0);
    moving.map(|(&n, _)| n as f64).product::<f64>() * view.dtype.size() as f64
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

impl Loop {
    /// Every instruction counted at every point, though some are the same for a whole row.
    pub fn cost(&self) -> Cost {
        let loops: Vec<usize> = self.rows.iter().chain(&self.columns).copied().collect();
        let combines = self.stores.iter().filter(|s| s.combine.is_some()).count();
        Cost {
            flops: points(&loops) * (operations(&self.body) + combines) as f64,
            read: self.loads.iter().map(|l| footprint(l, &loops)).sum(),
            written: self.stores.iter().map(|s| footprint(&s.access, &loops)).sum(),
        }
    }
}

impl Contract {
    /// Of the product and the work behind it.
    pub fn cost(&self) -> Cost {
        let with = |last: [usize; 2]| [&self.batch[..], &last].concat();
        let (rows, sums, out) =
            (with([self.m, self.k]), with([self.k, self.n]), with([self.m, self.n]));
        let mut cost = Cost {
            flops: 2.0 * points(&out) * self.k as f64,
            read: footprint(&self.left, &rows) + footprint(&self.right, &sums),
            written: footprint(&self.out, &out),
        };
        if let Some(epilogue) = &self.epilogue {
            cost.flops += points(&out) * operations(&epilogue.body) as f64;
            cost.read += epilogue.loads.iter().map(|l| footprint(l, &out)).sum::<f64>();
            cost.written += epilogue.stores.iter().map(|s| footprint(&s.access, &out)).sum::<f64>();
        }
        cost
    }
}

impl Kernel {
    /// Least work. Operations of attention are those of its matrix products; of other primitives
    /// and composites those of the loop nest if there is one, else one for each element of the
    /// results.
    pub fn cost(&self) -> Cost {
        let moved = |inputs: &[View], outputs: &[View], flops: f64| Cost {
            flops,
            read: inputs.iter().map(view_bytes).sum(),
            written: outputs.iter().map(view_bytes).sum(),
        };
        let elements = |views: &[View]| views.iter().map(|v| points(&v.shape)).sum::<f64>();
        match self {
            Kernel::Loop(l) => l.cost(),
            Kernel::Contract(c) => c.cost(),
            Kernel::Composite { composite, inputs, outputs } => {
                let shapes: Vec<&[usize]> = inputs.iter().map(|v| &v.shape[..]).collect();
                let products = attention::flops(composite, &shapes);
                moved(inputs, outputs, products.unwrap_or_else(|| elements(outputs)))
            }
            Kernel::Primitive { op, inputs, outputs } => {
                let types: Vec<Type> =
                    inputs.iter().map(|v| Type::new(v.dtype, v.shape.clone())).collect();
                let loops = op.rules().loops(&types.iter().collect::<Vec<_>>());
                moved(inputs, outputs, loops.map_or(elements(outputs), |l| l.flops()))
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
