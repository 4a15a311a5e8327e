//! Functions: typed straight-line code in single-assignment form.

use crate::error::{Error, Origin, Result};
use crate::primitive::{Attribute, Call, Primitive};
use crate::transform::Memo;
use crate::types::Type;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A value of one function: an index into its table of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Position in the function's value table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One application of a primitive. Equality and hash ignore the origin.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is applied.
    pub op: Primitive,
    /// Operands, defined earlier.
    pub inputs: Vec<Value>,
    /// Results, in order.
    pub outputs: Vec<Value>,
    /// Scope and user line.
    pub origin: Origin,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.inputs == other.inputs && self.outputs == other.outputs
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.op, &self.inputs, &self.outputs).hash(state);
    }
}

/// The name under which a device may claim a function and run it with one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Composite {
    /// For example `attention`.
    pub name: &'static str,
    /// What the body was built from, for example `causal = true`.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// A composite's own derivative: `forward(inputs) -> (results, residuals)` and
/// `backward(residuals, result cotangents) -> input cotangents`, one for each float input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomDerivative {
    /// Computes the results, then whatever the backward pass needs.
    pub forward: Arc<Function>,
    /// Computes the cotangents of the float inputs.
    pub backward: Arc<Function>,
}

/// A function: parameters, nodes in topological order, results. Sub-functions are held by the
/// nodes that call them, so a function with all it calls is a whole program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name for people; need not be unique.
    pub name: String,
    /// Set when the function is a composite.
    pub composite: Option<Composite>,
    /// Set when the function brings its own derivative.
    pub derivative: Option<CustomDerivative>,
    pub(crate) types: Vec<Type>,
    pub(crate) parameters: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) results: Vec<Value>,
    pub(crate) memo: Memo,
}

impl Function {
    /// Type of a value of this function.
    pub fn ty(&self, v: Value) -> &Type {
        &self.types[v.index()]
    }

    /// Number of values defined in this function.
    pub fn value_count(&self) -> usize {
        self.types.len()
    }

    /// Parameters in order.
    pub fn parameters(&self) -> &[Value] {
        &self.parameters
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Results in order.
    pub fn results(&self) -> &[Value] {
        &self.results
    }

    /// Types of the parameters.
    pub fn parameter_types(&self) -> Vec<&Type> {
        self.parameters.iter().map(|&v| self.ty(v)).collect()
    }

    /// Types of the results.
    pub fn result_types(&self) -> Vec<&Type> {
        self.results.iter().map(|&v| self.ty(v)).collect()
    }

    /// The same function as a named composite.
    pub fn as_composite(
        mut self,
        name: &'static str,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Self {
        self.composite = Some(Composite { name, attributes });
        self
    }

    /// The same function with its own derivative.
    pub fn with_derivative(mut self, forward: Arc<Function>, backward: Arc<Function>) -> Self {
        self.derivative = Some(CustomDerivative { forward, backward });
        self
    }

    /// Applies `f` to this function and every function it reaches, callees first, each once.
    pub fn visit(self: &Arc<Self>, f: &mut impl FnMut(&Arc<Function>)) {
        fn go(
            function: &Arc<Function>,
            seen: &mut std::collections::HashSet<*const Function>,
            f: &mut impl FnMut(&Arc<Function>),
        ) {
            if !seen.insert(Arc::as_ptr(function)) {
                return;
            }
            for node in &function.nodes {
                for callee in node.op.functions() {
                    go(callee, seen, f);
                }
            }
            f(function);
        }
        go(self, &mut Default::default(), f);
    }
}

fn addressable(types: Vec<Type>) -> Result<Vec<Type>> {
    types.iter().try_for_each(Type::expect_addressable)?;
    Ok(types)
}

/// Builds a function node by node. The first ill-typed node is remembered and reported by
/// [`Builder::finish`], so that building code needs no `?` on every line.
///
/// ```
/// use ferrata_ir::{Builder, DType, Type};
/// let mut b = Builder::new("double");
/// let x = b.parameter(Type::new(DType::F32, [3]));
/// let y = b.add(x, x);
/// let f = b.finish(&[y]).unwrap();
/// assert_eq!(f.result_types(), [&Type::new(DType::F32, [3])]);
/// ```
#[derive(Debug)]
pub struct Builder {
    name: String,
    types: Vec<Type>,
    parameters: Vec<Value>,
    nodes: Vec<Node>,
    origin: Origin,
    error: Option<Error>,
    reverse: bool,
}

impl Builder {
    /// An empty function.
    pub fn new(name: impl Into<String>) -> Self {
        Builder {
            name: name.into(),
            types: Vec::new(),
            parameters: Vec::new(),
            nodes: Vec::new(),
            origin: Origin::default(),
            error: None,
            reverse: false,
        }
    }

    /// Whether the tangents being built will be transposed, so that a composite's own derivative
    /// may stand in for them.
    pub(crate) fn reverse(&self) -> bool {
        self.reverse
    }

    pub(crate) fn set_reverse(&mut self, reverse: bool) {
        self.reverse = reverse;
    }

    fn value(&mut self, ty: Type) -> Value {
        self.types.push(ty);
        Value(self.types.len() as u32 - 1)
    }

    /// Adds a parameter.
    pub fn parameter(&mut self, ty: Type) -> Value {
        if let Err(e) = ty.expect_addressable() {
            self.fail(e);
        }
        let v = self.value(ty);
        self.parameters.push(v);
        v
    }

    /// Adds parameters of these types.
    pub fn parameters(&mut self, types: &[Type]) -> Vec<Value> {
        types.iter().map(|ty| self.parameter(ty.clone())).collect()
    }

    /// Type of a value built so far.
    pub fn ty(&self, v: Value) -> &Type {
        &self.types[v.index()]
    }

    /// Scope and line that the next nodes get.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Scope and line that the next nodes get.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Nodes built so far.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Remembers an error, unless one is remembered already.
    pub fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// The first error, if there was one.
    ///
    /// # Errors
    /// That error.
    pub fn checked(&self) -> Result<()> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Adds a node and returns its results. After a first error, values are placeholders.
    pub fn emit(&mut self, op: impl Into<Primitive>, inputs: &[Value]) -> Vec<Value> {
        let op = op.into();
        let operands: Vec<&Type> = inputs.iter().map(|&v| self.ty(v)).collect();
        let types = match &self.error {
            Some(_) => None,
            None => match op.infer(&operands).and_then(addressable) {
                Ok(types) => Some(types),
                Err(e) => {
                    self.error = Some(e.at(op.name(), &operands, &self.origin));
                    None
                }
            },
        };
        let Some(types) = types else {
            let placeholder = Type::scalar(crate::DType::F32);
            let count = op.result_count(inputs.len());
            return (0..count).map(|_| self.value(placeholder.clone())).collect();
        };
        let outputs: Vec<Value> = types.into_iter().map(|t| self.value(t)).collect();
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            origin: self.origin.clone(),
        });
        outputs
    }

    /// Adds a node with one result.
    pub fn emit1(&mut self, op: impl Into<Primitive>, inputs: &[Value]) -> Value {
        self.emit(op, inputs)[0]
    }

    /// Calls a function; scopes inside it are prefixed with the current scope.
    pub fn call(&mut self, function: &Arc<Function>, inputs: &[Value]) -> Vec<Value> {
        self.emit(Call { function: function.clone(), recompute: false }, inputs)
    }

    /// Copies the nodes of `function` here, with `inputs` for its parameters.
    pub fn inline(&mut self, function: &Function, inputs: &[Value]) -> Vec<Value> {
        let outer = self.origin.clone();
        let mut map: Vec<Option<Value>> = vec![None; function.types.len()];
        for (&p, &v) in function.parameters.iter().zip(inputs) {
            map[p.index()] = Some(v);
        }
        let get = |map: &[Option<Value>], v: Value| map[v.index()].expect("topological order");
        for node in &function.nodes {
            self.origin = outer.enter(&node.origin);
            let args: Vec<Value> = node.inputs.iter().map(|&v| get(&map, v)).collect();
            let results = self.emit(node.op.clone(), &args);
            for (&o, r) in node.outputs.iter().zip(results) {
                map[o.index()] = Some(r);
            }
        }
        self.origin = outer;
        function.results.iter().map(|&v| get(&map, v)).collect()
    }

    /// The finished function.
    ///
    /// # Errors
    /// The first ill-typed node.
    pub fn finish(self, results: &[Value]) -> Result<Function> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok(Function {
            name: self.name,
            composite: None,
            derivative: None,
            types: self.types,
            parameters: self.parameters,
            nodes: self.nodes,
            results: results.to_vec(),
            memo: Memo::default(),
        })
    }
}
