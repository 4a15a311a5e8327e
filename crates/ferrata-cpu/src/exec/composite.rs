//! Composites that the device runs with kernels of its own: attention, forward and backward.

use super::{Context, normal};
use crate::attention::{
    Attention, Backward, Forward, Input, Mask, MaskGradient, Written, attention, attention_backward,
};
use crate::isa::Isa;
use crate::steps::{Block, Steps};
use ferrata_compiler::kernel::View;
use ferrata_ir::composite::attention::Plan;
use ferrata_ir::{Composite, DType, Error, Result, Type};

/// Whether there is a kernel for this composite on operands of these types.
pub(crate) fn claims(composite: &Composite, inputs: &[&Type]) -> bool {
    let attention = Plan::of(composite).is_some()
        && matches!(composite.name, "attention_forward" | "attention_backward")
        && inputs.iter().all(|t| !t.shape.contains(&0));
    attention || normal::claims(composite)
}

/// A claimed composite, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompositeKernel {
    isa: Isa,
    plan: Plan,
    forward: bool,
    pub inputs: Vec<View>,
    pub outputs: Vec<View>,
}

impl CompositeKernel {
    /// Prepares a composite.
    ///
    /// # Errors
    /// One that the device does not claim.
    pub fn new(
        isa: Isa,
        composite: &Composite,
        inputs: &[View],
        outputs: &[View],
    ) -> Result<CompositeKernel> {
        let unknown = || Error::new(format!("this device has no kernel for `{}`", composite.name));
        let plan = Plan::of(composite).ok_or_else(unknown)?;
        let forward = composite.name == "attention_forward";
        let base = base(&plan);
        let added = plan.mask && inputs.len() > 3 && inputs[3].dtype != DType::Bool;
        let (want, results) = if forward { (base, 2) } else { (base + 3, 3 + usize::from(added)) };
        if inputs.len() != want || outputs.len() != results {
            return Err(unknown());
        }
        let ranked = inputs[..3 + usize::from(plan.mask)]
            .iter()
            .all(|v| v.shape.len() == 4 && v.strides.len() == 4);
        if !ranked {
            return Err(unknown());
        }
        let (inputs, outputs) = (inputs.to_vec(), outputs.to_vec());
        Ok(CompositeKernel { isa, plan, forward, inputs, outputs })
    }

    /// Bytes of workspace that a run needs: for lengths, side by side.
    pub fn workspace(&self) -> usize {
        if self.plan.lengths { 8 * self.inputs[0].shape[0] } else { 0 }
    }

    /// Runs the composite.
    ///
    /// # Safety
    /// As for [`super::Prepared::run`].
    pub unsafe fn run(&self, cx: &Context<'_>, operands: &[*mut u8]) -> Result<()> {
        let (q, k, v) = (&self.inputs[0], &self.inputs[1], &self.inputs[2]);
        let base = base(&self.plan);
        let batch = q.shape[0];
        let lengths = self.plan.lengths.then(|| {
            // SAFETY: the workspace has room for the lengths.
            unsafe {
                pack(&self.inputs[base - 1], operands, cx.workspace);
                std::slice::from_raw_parts(cx.workspace.cast::<i64>(), batch)
            }
        });
        let settings = &self.plan.settings;
        let problem = Attention {
            dtype: q.dtype,
            batch,
            query_heads: q.shape[1],
            key_heads: k.shape[1],
            queries: q.shape[2],
            keys: k.shape[2],
            features: q.shape[3],
            value_features: v.shape[3],
            scale: settings.scale.unwrap_or(1.0),
            causal: settings.causal,
            offset: settings.offset as isize,
            window: settings.window,
            softcap: settings.softcap,
            lengths,
            mask: self.plan.mask.then(|| {
                let view = &self.inputs[3];
                let data = start(view, operands).cast_const();
                Mask { data, dtype: view.dtype, strides: repeating(view) }
            }),
        };
        let input = |view: &View| Input { data: start(view, operands), strides: strides(view) };
        let written = |view: &View| Written { data: start(view, operands), strides: strides(view) };
        let dmask = self.outputs.get(3).map(|view| MaskGradient {
            to: written(view),
            shape: std::array::from_fn(|d| view.shape[d]),
        });
        let (q, k, v) = (input(q), input(k), input(v));
        // SAFETY: passed on.
        let done = unsafe {
            if self.forward {
                let lse = Some(written(&self.outputs[1]));
                let tensors = Forward { q, k, v, out: written(&self.outputs[0]), lse };
                attention(cx.pool, self.isa, &problem, &tensors)
            } else {
                let tensors = Backward {
                    q,
                    k,
                    v,
                    out: input(&self.inputs[base]),
                    lse: input(&self.inputs[base + 1]),
                    dout: input(&self.inputs[base + 2]),
                    dq: written(&self.outputs[0]),
                    dk: written(&self.outputs[1]),
                    dv: written(&self.outputs[2]),
                    dmask,
                };
                attention_backward(cx.pool, self.isa, &problem, &tensors)
            }
        };
        done.map_err(Error::new)
    }
}

/// Operands of the forward composite.
fn base(plan: &Plan) -> usize {
    3 + usize::from(plan.mask) + usize::from(plan.lengths)
}

fn start(view: &View, operands: &[*mut u8]) -> *mut u8 {
    operands[view.operand].wrapping_add(view.offset * view.dtype.size())
}

/// The strides of the leading dimensions; further ones have one element.
fn strides(view: &View) -> [isize; 4] {
    std::array::from_fn(|d| view.strides.get(d).copied().unwrap_or(0))
}

/// The strides of a view that repeats along dimensions of one element.
fn repeating(view: &View) -> [isize; 4] {
    std::array::from_fn(|d| if view.shape[d] == 1 { 0 } else { view.strides[d] })
}

/// Copies a view's elements one behind the other.
unsafe fn pack(view: &View, operands: &[*mut u8], to: *mut u8) {
    let size = view.dtype.size();
    let steps = Steps::new(&view.shape, &view.strides);
    let count: usize = view.shape.iter().product();
    let mut done = 0;
    while done < count {
        let columns = steps.run(done).min(count - done);
        let block = Block { rows: 1, columns, dense_row: 0, row: 0, column: steps.stride() };
        let from = start(view, operands).wrapping_offset(steps.at(done) * size as isize);
        // SAFETY: the view's elements are in the operand, and there is room for them.
        unsafe { block.gather(size, from, to.add(done * size)) };
        done += columns;
    }
}
