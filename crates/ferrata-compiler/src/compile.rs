//! The passes, in order.

use crate::body::fold_windows;
use crate::device::Device;
use crate::flatten::flatten;
use crate::fragment::Library;
use crate::fuse::fuse;
use crate::inline::inline;
use crate::lower::lower;
use crate::memory;
use crate::plan::{Plan, Step};
use crate::support::check_dtypes;
use ferrata_ir::{Function, Primitive, Result, Type};
use std::collections::HashSet;
use std::sync::Arc;

/// Compiles a program for a device. Inputs marked `donated` may be overwritten.
///
/// # Errors
/// Names the node that can't be compiled, with its scope and user line.
pub fn compile(program: &Arc<Function>, donated: &[bool], device: &dyn Device) -> Result<Plan> {
    check_dtypes(program, device)?;
    let program = inline(program, &|composite, inputs| device.claims(composite, inputs))?;
    let mut library = Library::default();
    let mut functions = Vec::new();
    callees_first(&program, &mut HashSet::new(), &mut functions);
    let mut main = 0;
    for function in &functions {
        let body = fold_windows(function)?;
        let groups = fuse(&body);
        let fragment = lower(&body, &groups, &mut library)?;
        main = library.add(function, fragment);
    }
    let flat = flatten(&library, main);
    let inputs: Vec<Type> = program.parameter_types().into_iter().cloned().collect();
    let results: Vec<Type> = program.result_types().into_iter().cloned().collect();
    let memory = memory::place(&flat, &library.kernels, &inputs, &results, donated);
    let run = |step: &crate::flatten::FlatStep| Step::Run {
        kernel: step.kernel,
        operands: step.operands.iter().map(|&b| memory.places[b]).collect(),
        origin: step.origin.clone(),
    };
    let mut steps: Vec<Step> = flat.steps.iter().map(run).collect();
    steps.extend(memory.copies);
    Ok(Plan {
        inputs,
        results,
        takes: memory.takes,
        kernels: library.kernels,
        steps,
        arena: memory.arena,
        constants: library.constants,
    })
}

/// The functions that are compiled by themselves.
fn callees_first<'a>(
    function: &'a Arc<Function>,
    seen: &mut HashSet<*const Function>,
    out: &mut Vec<&'a Arc<Function>>,
) {
    if !seen.insert(Arc::as_ptr(function)) {
        return;
    }
    for node in function.nodes() {
        if let Primitive::Call(call) = &node.op
            && call.function.composite.is_none()
        {
            callees_first(&call.function, seen, out);
        }
    }
    out.push(function);
}
