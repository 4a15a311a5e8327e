//! The composite `random_normal`, straight from the key to the numbers: nothing lies in memory
//! between them.

use super::Context;
use super::primitive::random::{LANES, cipher, key_at};
use crate::isa::{Kernel, Level};
use crate::math::Math;
use crate::math::lanes::Lane;
use crate::math::polynomial::{polynomial, round32};
use crate::steps::Steps;
use ferrata_compiler::kernel::View;
use ferrata_ir::primitive::Attribute;
use ferrata_ir::{Composite, DType, Error, Result, Scalar};
use std::f32::consts::FRAC_PI_2;

/// The name of the composite.
pub(crate) const NAME: &str = "random_normal";

/// Cipher blocks of one task.
const TASK: usize = 4096;

/// Whether there is a kernel for this composite.
pub(crate) fn claims(composite: &Composite) -> bool {
    let f32s =
        |(_, value): &(_, Attribute)| matches!(value, Attribute::Type(t) if t.dtype == DType::F32);
    composite.name == NAME && composite.attributes.iter().any(f32s)
}

/// The composite, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct NormalKernel {
    std: f32,
    pub inputs: Vec<View>,
    pub outputs: Vec<View>,
}

impl NormalKernel {
    /// Prepares the composite.
    ///
    /// # Errors
    /// A composite of another form.
    pub fn new(composite: &Composite, inputs: &[View], outputs: &[View]) -> Result<NormalKernel> {
        let std = composite.attributes.iter().find_map(|(name, value)| match value {
            Attribute::Scalar(Scalar::Float(x)) if *name == "std" => Some(*x as f32),
            _ => None,
        });
        match std {
            Some(std) if inputs.len() == 1 && outputs.len() == 1 => {
                Ok(NormalKernel { std, inputs: inputs.to_vec(), outputs: outputs.to_vec() })
            }
            _ => Err(Error::new(format!("`{NAME}` does not have the form that the device knows"))),
        }
    }

    /// Runs the composite.
    ///
    /// # Safety
    /// As for [`super::Prepared::run`].
    pub unsafe fn run(&self, cx: &Context<'_>, operands: &[*mut u8]) {
        // SAFETY: the key is in its operand.
        let key = unsafe { key_at(&self.inputs[0], operands, 0) };
        let view = &self.outputs[0];
        let count: usize = view.shape.iter().product();
        let out = Numbers(operands[view.operand].cast::<f32>().wrapping_add(view.offset));
        let steps = Steps::new(&view.shape, &view.strides);
        let (std, isa) = (self.std, cx.isa);
        cx.pool.run(count.div_ceil(4 * TASK), &|task, worker| {
            let first = task * 4 * TASK;
            let length = (4 * TASK).min(count - first);
            let fill = |out: &mut [f32]| {
                isa.run(Fill { key, block: (task * TASK) as u64, std, out });
            };
            if steps.stride() == 1 && steps.run(0) == count {
                // SAFETY: tasks have different elements of the result, which lie in order.
                return fill(unsafe { out.part(first, length) });
            }
            cx.pool.with_scratch(worker, 4 * length, |scratch| {
                let data = Numbers(scratch.as_mut_ptr());
                // SAFETY: the scratch memory has room for them, and elements of the result are
                // written by one task each.
                unsafe {
                    data.part(0, length).fill(0.0);
                    fill(data.part(0, length));
                    for i in 0..length {
                        *out.0.offset(steps.at(first + i)) = *data.0.add(i);
                    }
                }
            });
        });
    }
}

#[derive(Clone, Copy)]
struct Numbers(*mut f32);

// SAFETY: tasks write different elements.
unsafe impl Sync for Numbers {}

impl Numbers {
    unsafe fn part<'a>(self, first: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: the caller stays inside, and apart from others.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first), count) }
    }
}

/// Fills a part of the result, from a cipher block on.
struct Fill<'a> {
    key: [u32; 2],
    block: u64,
    std: f32,
    out: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let mut block = self.block;
        for out in self.out.chunks_mut(4 * LANES) {
            let words = cipher(self.key, block);
            let (mut even, mut odd) = ([[0f32; LANES]; 2], [[0f32; LANES]; 2]);
            for pair in 0..2 {
                for i in 0..LANES {
                    let (first, second) = (unit(words[2 * pair][i]), unit(words[2 * pair + 1][i]));
                    let radius = self.std * (-2.0 * Math::log::<L>(first)).sqrt();
                    let (cos, sin) = cos_sin_of_turns::<L>(second);
                    (even[pair][i], odd[pair][i]) = (radius * cos, radius * sin);
                }
            }
            let mut all = [0f32; 4 * LANES];
            for i in 0..LANES {
                let four = [even[0][i], odd[0][i], even[1][i], odd[1][i]];
                all[4 * i..4 * i + 4].copy_from_slice(&four);
            }
            out.copy_from_slice(&all[..out.len()]);
            block += LANES as u64;
        }
    }
}

/// The middle of one of 2²³ equal parts of (0, 1).
#[inline(always)]
fn unit(bits: u32) -> f32 {
    ((bits >> 9) as i32 as f32 + 0.5) * (1.0 / 8_388_608.0)
}

/// Cosine and sine of `turns` whole turns, between 0 and 1, to about an ulp of 1.
#[inline(always)]
fn cos_sin_of_turns<L: Level>(turns: f32) -> (f32, f32) {
    /// (sin(r) - r) / r³ over r², for |r| ≤ π/4.
    const SIN: [f32; 3] = [-0.166_666_55, 0.008_332_178, -0.000_195_172_67];
    /// (cos(r) - 1 + r²/2) / r⁴ over r², for |r| ≤ π/4.
    const COS: [f32; 3] = [0.041_666_647, -0.001_388_736_7, 0.000_024_438_415];
    let (Lane(quarters, _), quadrant) = round32(Lane::<f32, L>::new(turns * 4.0));
    let r = (turns * 4.0 - quarters) * FRAC_PI_2;
    let square = r * r;
    let sin = L::mul_add(r * square, polynomial::<L, f32, 3>(square, SIN), r);
    let tail = L::mul_add(square, polynomial::<L, f32, 3>(square, COS), -0.5);
    let cos = L::mul_add(square, tail, 1.0);
    let odd = quadrant & 1 != 0;
    let (x, y) = (if odd { sin } else { cos }, if odd { cos } else { sin });
    let (back, down) = (quadrant.wrapping_add(1) & 2 != 0, quadrant & 2 != 0);
    (if back { -x } else { x }, if down { -y } else { y })
}
