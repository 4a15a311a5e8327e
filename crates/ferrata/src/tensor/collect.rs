//! From recorded nodes to a program.

use super::place::Place;
use super::{Inner, Lazy, State, Tensor};
use ferrata_ir::{Builder, Error, Function, Origin, Result, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Copies the history of tensors into a function. Values from outside become parameters.
pub(crate) struct Collector {
    b: Builder,
    /// Trace depth of the values that belong inside.
    level: u32,
    values: HashMap<*const Inner, Value>,
    nodes: HashMap<*const Lazy, Vec<Value>>,
    /// Keeps the pointers above valid.
    kept: Vec<Arc<Lazy>>,
    captured: Vec<Tensor>,
    files: HashMap<*const str, Arc<str>>,
}

/// A function and the values from outside that its last parameters stand for.
pub(crate) struct Collected {
    pub function: Function,
    pub captured: Vec<Tensor>,
}

impl Collector {
    /// A function named `name` whose own values live at trace depth `level`.
    pub fn new(name: &str, level: u32) -> Self {
        Collector {
            b: Builder::new(name),
            level,
            values: HashMap::new(),
            nodes: HashMap::new(),
            kept: Vec::new(),
            captured: Vec::new(),
            files: HashMap::new(),
        }
    }

    /// Makes `tensor` the next parameter.
    pub fn parameter(&mut self, tensor: &Tensor) {
        let value = self.b.parameter(tensor.ty().clone());
        self.values.insert(tensor.key(), value);
    }

    /// The value of `tensor`, with everything that it is computed from.
    pub fn visit(&mut self, tensor: &Tensor) -> Result<Value> {
        let mut stack: Vec<(Arc<Lazy>, usize)> = Vec::new();
        stack.extend(self.resolve(tensor)?.map(|node| (node, 0)));
        while let Some((node, next)) = stack.last_mut() {
            if let Some(input) = node.inputs.get(*next) {
                *next += 1;
                let pending = self.resolve(input)?;
                stack.extend(pending.map(|node| (node, 0)));
            } else if let Some((node, _)) = stack.pop() {
                self.emit(node);
            }
        }
        self.resolve(tensor)?;
        Ok(self.values[&tensor.key()])
    }

    /// Finds the value of `tensor`, or the node that has to be copied first.
    fn resolve(&mut self, tensor: &Tensor) -> Result<Option<Arc<Lazy>>> {
        if self.values.contains_key(&tensor.key()) {
            return Ok(None);
        }
        let outside = tensor.0.level < self.level;
        match tensor.state() {
            State::Failed(error) => Err(error),
            State::Lazy(node, i) if !outside || tensor.0.closed => {
                match self.nodes.get(&Arc::as_ptr(&node)) {
                    Some(values) => {
                        self.values.insert(tensor.key(), values[i]);
                        Ok(None)
                    }
                    None => Ok(Some(node)),
                }
            }
            State::Placeholder if !outside => Err(escaped(tensor)),
            _ => {
                self.captured.push(tensor.clone());
                self.parameter(tensor);
                Ok(None)
            }
        }
    }

    fn emit(&mut self, node: Arc<Lazy>) {
        let origin = self.origin(&node.place);
        self.b.set_origin(origin);
        let inputs: Vec<Value> = node.inputs.iter().map(|t| self.values[&t.key()]).collect();
        let results = self.b.emit(node.op.clone(), &inputs);
        let outputs = node.outputs.get().into_iter().flatten();
        self.values.extend(outputs.map(std::sync::Weak::as_ptr).zip(results.iter().copied()));
        self.nodes.insert(Arc::as_ptr(&node), results);
        self.kept.push(node);
    }

    /// The origin of a place; file names are shared.
    fn origin(&mut self, place: &Place) -> Origin {
        let (file, line) = place.line();
        let file = self.files.entry(file).or_insert_with(|| file.into()).clone();
        Origin { scope: place.scope().clone(), location: Some(ferrata_ir::Location { file, line }) }
    }

    /// The recorded nodes copied so far.
    pub fn nodes(&self) -> &[Arc<Lazy>] {
        &self.kept
    }

    /// The function with these results.
    pub fn finish(self, results: &[Value]) -> Result<Collected> {
        let function = self.b.finish(results)?;
        Ok(Collected { function, captured: self.captured })
    }
}

fn escaped(tensor: &Tensor) -> Error {
    let ty = tensor.ty();
    Error::new(format!("the value {ty} belongs to a function being traced and has no elements"))
        .help("return it from the traced function and read it there, or show it with debug_print")
}
