//! What a program costs and how it runs: operations, kernels, memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferrata_compiler::plan::{Place, Step};
use ferrata_compiler::{Plan, Recomputation};
use ferrata_ir::composite::attention;
use ferrata_ir::{Function, Primitive, Result, Type};

use crate::device::Device;
use crate::mesh::Reshard;
use crate::transform::Planned;

/// A compiled program, opened up.
#[derive(Clone, Debug)]
pub struct Inspection {
    program: Arc<Function>,
    recomputation: Option<Recomputation>,
    plan: Option<Plan>,
    passes: Vec<(&'static str, Arc<Function>)>,
    /// What is moved between ranks.
    reshards: Vec<Reshard>,
    /// What lies in the arena when most of it is in use.
    peak: Vec<(String, u64)>,
}

/// The memory of a program in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All inputs.
    pub inputs: u64,
    /// The results that do not take over a donated input.
    pub results: u64,
    /// Everything in between: one arena.
    pub arena: u64,
    /// Dense constants.
    pub constants: u64,
}

impl MemoryUse {
    /// All of it, which is the most that the program occupies at any time.
    pub fn peak(&self) -> u64 {
        self.inputs + self.results + self.arena + self.constants
    }
}

impl Inspection {
    /// Opens up what [`crate::Compiled::planned`] gives for `device`.
    ///
    /// # Errors
    /// What keeps the program from being compiled.
    pub fn new(planned: Planned, device: &Device) -> Result<Inspection> {
        let Planned { traced: program, recomputation, executable, donated } = planned;
        let whole = recomputation.as_ref().map_or(&program, |r| &r.program);
        let partition = executable.partition();
        let compiled = partition.map_or(whole, |partition| &partition.program);
        let reshards = partition.map_or_else(Vec::new, |partition| partition.reshards.clone());
        let trace = ferrata_compiler::trace(compiled, &donated, device.backend())?;
        let mut peak: BTreeMap<String, u64> = BTreeMap::new();
        for resident in trace.peak() {
            *peak.entry(resident.origin.scope.to_string()).or_default() += resident.bytes as u64;
        }
        let mut peak: Vec<(String, u64)> = peak.into_iter().collect();
        peak.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let mut passes = trace.programs;
        if recomputation.is_some()
            && let Some((name, _)) = passes.first_mut()
        {
            *name = "recompute";
            passes.insert(0, ("program", program.clone()));
        }
        let plan = executable.plan().cloned();
        Ok(Inspection { program, recomputation, plan, passes, reshards, peak })
    }

    /// What is computed again in the backward pass, if that was asked for.
    pub fn recomputation(&self) -> Option<&Recomputation> {
        self.recomputation.as_ref()
    }

    /// What the ranks of a mesh move between each other in one run, in the order of the program.
    pub fn reshards(&self) -> &[Reshard] {
        &self.reshards
    }

    /// What lies in the arena when most of it is in use: scope and bytes, the largest first.
    pub fn peak(&self) -> &[(String, u64)] {
        &self.peak
    }

    /// The names of the passes from program to program, in order; the first is the program as it
    /// was traced and differentiated.
    pub fn passes(&self) -> Vec<&'static str> {
        self.passes.iter().map(|(name, _)| *name).collect()
    }

    /// The program after a pass, in the text form; `None` if there is no such pass.
    pub fn after(&self, pass: &str) -> Option<String> {
        let found = self.passes.iter().find(|(name, _)| *name == pass);
        found.map(|(_, program)| program.to_string())
    }

    /// The number of nodes, those of a function that is called many times counted once.
    pub fn nodes(&self) -> usize {
        let mut nodes = 0;
        self.program.visit(&mut |function| nodes += function.nodes().len());
        nodes
    }

    /// Scalar operations of one run, from the loop factors of its primitives; of attention those of
    /// its matrix products on pairs that see each other. Of a branch the more expensive side counts.
    pub fn flops(&self) -> f64 {
        flops(&self.program, &mut HashMap::new())
    }

    /// The memory plan; `None` for devices that have none.
    pub fn memory(&self) -> Option<MemoryUse> {
        let plan = self.plan.as_ref()?;
        let total = |types: &[Type]| types.iter().map(|ty| ty.bytes() as u64).sum();
        let own = plan.results.iter().zip(&plan.takes).filter(|(_, takes)| takes.is_none());
        Some(MemoryUse {
            inputs: total(&plan.inputs),
            results: own.map(|(ty, _)| ty.bytes() as u64).sum(),
            arena: plan.arena as u64,
            constants: plan.constants.iter().map(|literal| literal.ty.bytes() as u64).sum(),
        })
    }

    /// A line for each distinct kernel, and how often it runs; none for devices without a plan.
    pub fn kernels(&self) -> Vec<(String, usize)> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let mut uses = vec![0; plan.kernels.len()];
        count(&plan.steps, 1, &mut uses);
        plan.kernels.iter().map(|kernel| kernel.summary()).zip(uses).collect()
    }

    /// A line for each step: kernel, operands, scope and user line.
    pub fn schedule(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(plan) = &self.plan {
            list(&plan.steps, plan, 0, &mut lines);
        }
        lines
    }
}

fn flops(function: &Arc<Function>, known: &mut HashMap<*const Function, f64>) -> f64 {
    if let Some(&found) = known.get(&Arc::as_ptr(function)) {
        return found;
    }
    let mut sum = 0.0;
    for node in function.nodes() {
        let inputs: Vec<&Type> = node.inputs.iter().map(|&value| function.ty(value)).collect();
        if let Some(products) = attention_flops(&node.op, &inputs) {
            sum += products;
            continue;
        }
        let inner = node.op.functions().into_iter().map(|callee| flops(callee, known));
        sum += match &node.op {
            Primitive::Scan(scan) => inner.sum::<f64>() * scan.length as f64,
            Primitive::Cond(_) => inner.fold(0.0, f64::max),
            other => {
                let inner: f64 = inner.sum();
                inner + other.rules().loops(&inputs).map_or(0.0, |loops| loops.flops())
            }
        };
    }
    known.insert(Arc::as_ptr(function), sum);
    sum
}

fn attention_flops(op: &Primitive, inputs: &[&Type]) -> Option<f64> {
    let Primitive::Call(call) = op else { return None };
    let shapes: Vec<&[usize]> = inputs.iter().map(|ty| &ty.shape[..]).collect();
    attention::flops(call.function.composite.as_ref()?, &shapes)
}

fn count(steps: &[Step], times: usize, uses: &mut [usize]) {
    for step in steps {
        match step {
            Step::Run { kernel, .. } => uses[*kernel] += times,
            Step::Copy { .. } => {}
            Step::Repeat { length, body, .. } => count(body, times * length, uses),
            Step::Branch { branches, .. } => {
                branches.iter().for_each(|branch| count(branch, times, uses));
            }
        }
    }
}

fn list(steps: &[Step], plan: &Plan, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    for step in steps {
        match step {
            Step::Run { kernel, operands, origin } => {
                let places: Vec<String> = operands.iter().map(place).collect();
                let what = plan.kernels.get(*kernel).map(|kernel| kernel.summary());
                let location = origin.location.as_ref();
                let location = location.map(|place| format!("  {}:{}", place.file, place.line));
                lines.push(format!(
                    "{indent}kernel {kernel} ({}) on {}  {}{}",
                    what.unwrap_or_default(),
                    places.join(", "),
                    origin.scope,
                    location.unwrap_or_default()
                ));
            }
            Step::Copy { from, to, bytes } => {
                lines.push(format!("{indent}copy {bytes} bytes {} -> {}", place(from), place(to)));
            }
            Step::Repeat { length, reverse, body, .. } => {
                let order = if *reverse { ", last first" } else { "" };
                lines.push(format!("{indent}repeat {length} times{order}"));
                list(body, plan, depth + 1, lines);
            }
            Step::Branch { condition, branches } => {
                lines.push(format!("{indent}if {}", place(condition)));
                list(&branches[0], plan, depth + 1, lines);
                lines.push(format!("{indent}else"));
                list(&branches[1], plan, depth + 1, lines);
            }
        }
    }
}

fn place(place: &Place) -> String {
    match place {
        Place::Input { index, offset: 0 } => format!("input {index}"),
        Place::Input { index, offset } => format!("input {index}+{offset}"),
        Place::Result { index, offset: 0 } => format!("result {index}"),
        Place::Result { index, offset } => format!("result {index}+{offset}"),
        Place::Arena { offset } => format!("arena+{offset}"),
        Place::Constant { index } => format!("constant {index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Tensor, compile};

    #[test]
    fn attention_costs_the_products_of_pairs_that_see_each_other() {
        let causal = crate::Attention { causal: true, ..crate::Attention::default() };
        let f = compile(move |q: Tensor| q.attention(&q, &q, &causal));
        let planned = f.planned(&Tensor::ones([2, 3, 8, 4], DType::F32), false).unwrap();
        let inspection = Inspection::new(planned, &Device::default()).unwrap();
        assert_eq!(inspection.flops(), (2 * 2 * 3 * (8 * 9 / 2) * (4 + 4)) as f64);
    }

    #[test]
    fn a_product_costs_two_operations_per_point() {
        let f = compile(|(x, y): (Tensor, Tensor)| x.matmul(&y));
        let argument = (Tensor::ones([4, 5], DType::F32), Tensor::ones([5, 6], DType::F32));
        let planned = f.planned(&argument, false).unwrap();
        let inspection = Inspection::new(planned, &Device::default()).unwrap();
        assert_eq!(inspection.flops(), 2.0 * 4.0 * 5.0 * 6.0);
        assert!(inspection.nodes() >= 1);
        assert_eq!(inspection.passes().first(), Some(&"program"));
        let text = inspection.after("simplify").unwrap();
        assert!(text.contains("f32[4,5]"), "{text}");
        assert_eq!(inspection.after("nothing"), None);
    }
}
