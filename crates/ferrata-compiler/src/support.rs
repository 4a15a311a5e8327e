//! Whether a device can run a program at all.

use crate::device::Device;
use ferrata_ir::{DType, Error, Function, Result, Type};
use std::sync::Arc;

/// Checks that the device computes with every dtype of the program.
///
/// # Errors
/// Names the first node that makes a value of a dtype that the device lacks.
pub fn check_dtypes(program: &Arc<Function>, device: &dyn Device) -> Result<()> {
    let supported: Vec<DType> = DType::ALL.into_iter().filter(|&d| device.supports(d)).collect();
    let lacks = |d: DType| {
        let names: Vec<&str> = supported.iter().map(|d| d.name()).collect();
        Error::new(format!("device `{}` does not compute with {d}", device.name()))
            .help(format!("cast to one of {}", names.join(" ")))
    };
    for ty in program.parameter_types() {
        if !supported.contains(&ty.dtype) {
            return Err(lacks(ty.dtype));
        }
    }
    let mut found = None;
    program.visit(&mut |f| {
        for node in f.nodes() {
            let mut types = node.outputs.iter().map(|&v| f.ty(v));
            if found.is_none()
                && let Some(bad) = types.find(|t| !supported.contains(&t.dtype))
            {
                let inputs: Vec<&Type> = node.inputs.iter().map(|&v| f.ty(v)).collect();
                found = Some(lacks(bad.dtype).at(node.op.name(), &inputs, &node.origin));
            }
        }
    });
    found.map_or(Ok(()), Err)
}
