//! The device that runs the reference evaluator: the oracle of the conformance suite.

use crate::device::{Argument, Buffer, Device, Executable, Memory};
use crate::watch::{Level, Limits, Watch};
use ferrata_ir::{Composite, DType, Error, Evaluator, Function, Literal, Precision, Result, Type};
use std::any::Any;
use std::sync::Arc;

/// Runs programs node by node in the reference evaluator, every value rounded to its dtype.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceDevice;

#[derive(Debug)]
struct HostLiteral(Literal);

impl Memory for HostLiteral {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn literal(buffer: &Buffer) -> Result<&Literal> {
    let found = buffer.memory.as_any().downcast_ref::<HostLiteral>();
    found.map(|h| &h.0).ok_or_else(|| Error::new("the buffer belongs to another device"))
}

fn buffer(value: Literal) -> Buffer {
    Buffer { ty: value.ty.clone(), memory: Arc::new(HostLiteral(value)) }
}

struct Interpreted(Arc<Function>);

impl Interpreted {
    fn evaluate(&self, evaluator: &Evaluator, arguments: &[Argument]) -> Result<Vec<Buffer>> {
        let inputs = arguments.iter().map(|a| literal(a.buffer())).collect::<Result<Vec<_>>>()?;
        let results = evaluator.call(&self.0, &inputs)?;
        Ok(results.into_iter().map(buffer).collect())
    }
}

impl Executable for Interpreted {
    fn run(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.evaluate(&Evaluator::new(Precision::Typed), &arguments)
    }

    fn run_watching(&self, arguments: Vec<Argument>) -> Result<Vec<Buffer>> {
        self.evaluate(&Evaluator::new(Precision::Typed).watching(), &arguments)
    }

    fn plan(&self) -> Option<&crate::Plan> {
        None
    }
}

impl Device for ReferenceDevice {
    fn name(&self) -> &str {
        "reference"
    }

    fn fingerprint(&self) -> String {
        format!("reference {}", env!("CARGO_PKG_VERSION"))
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn claims(&self, _: &Composite, _: &[&Type]) -> bool {
        false
    }

    fn upload(&self, ty: Type, bytes: &[u8]) -> Result<Buffer> {
        Literal::from_bytes(ty, bytes).map(buffer)
    }

    fn zeros(&self, ty: Type) -> Result<Buffer> {
        let bytes = vec![0; ty.bytes()];
        self.upload(ty, &bytes)
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        Ok(literal(buffer)?.to_bytes())
    }

    fn compile(&self, program: &Arc<Function>, _: &[bool]) -> Result<Arc<dyn Executable>> {
        Ok(Arc::new(Interpreted(program.clone())))
    }

    fn watch(&self, _: Option<Watch>) {}

    fn limits(&self) -> Option<Limits> {
        None
    }

    fn levels(&self) -> Vec<Level> {
        Vec::new()
    }
}
