//! A function body whose primitives that only rename elements are folded into its operands.

use crate::strided::Strided;
use ferrata_ir::primitive::{Cond, Dot, ElementwiseOp, ReduceKind, Scan};
use ferrata_ir::{
    Composite, DType, Error, Function, Literal, Origin, Primitive, Result, Scalar, Type,
};
use std::collections::HashMap;
use std::sync::Arc;

/// A value of a [`Body`]: an index into [`Body::values`].
pub type Id = usize;

/// Use of a value through a window on its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Which value.
    pub value: Id,
    /// Which elements; the shape is that of the program's value.
    pub window: Arc<Strided>,
}

/// A value that some operation makes.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Dtype and shape.
    pub ty: Type,
    /// Index of the operation that makes it; `None` for a parameter.
    pub maker: Option<usize>,
}

/// One scalar result for every index of the operation's space.
#[derive(Clone, Copy, Debug)]
pub enum Scalarly {
    /// An elementwise primitive.
    Apply(&'static ElementwiseOp),
    /// Conversion to the result's dtype.
    Cast,
    /// The operand itself, in row-major order of the space.
    Copy,
    /// A number.
    Constant(Scalar),
    /// The index along a dimension.
    Index(usize),
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Elementwise work.
    Map(Scalarly),
    /// Combines along some dimensions of the space.
    Reduce {
        /// How.
        kind: ReduceKind,
        /// Which dimensions of the space disappear.
        dims: Vec<usize>,
    },
    /// A general product.
    Dot(Dot),
    /// Puts the operands one after the other along a dimension.
    Concatenate(usize),
    /// A primitive that is run as it is.
    Primitive(Primitive),
    /// A composite that the device has claimed.
    Composite {
        /// Name and attributes.
        composite: Composite,
        /// For each result the window through which it is written on the value that it makes.
        layouts: Vec<Strided>,
    },
    /// A constant array.
    Dense(Arc<Literal>),
    /// A call of a function that is compiled by itself.
    Call(Arc<Function>),
    /// A loop with carried state around such a function.
    Scan(Scan),
    /// A choice between two such functions.
    Cond(Cond),
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it does.
    pub kind: Kind,
    /// Operands; for maps and reductions each window has the shape of `space`.
    pub inputs: Vec<Operand>,
    /// Results.
    pub outputs: Vec<Id>,
    /// The shape that is iterated over: of the result, but for reductions and copies of the
    /// operand.
    pub space: Vec<usize>,
    /// Scope and user line.
    pub origin: Origin,
}

/// Copies of values in another order, by the value and the window that was copied.
type Rows = HashMap<(Id, Strided), Id>;

/// A function body in which every operation computes something.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Operations in topological order.
    pub ops: Vec<Op>,
    /// Values; the parameters come first.
    pub values: Vec<Slot>,
    /// Number of parameters.
    pub parameters: usize,
    /// Results, each a whole value in its own order.
    pub results: Vec<Id>,
}

impl Kind {
    /// The functions that it calls.
    pub fn callees(&self) -> Vec<&Arc<Function>> {
        match self {
            Kind::Call(f) => vec![f],
            Kind::Scan(s) => vec![&s.body],
            Kind::Cond(c) => c.branches.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether somebody waits for it, so that its place among others of the kind is fixed.
    pub fn has_effect(&self) -> bool {
        let inside = |f: &&Arc<Function>| f.nodes().iter().any(|node| node.op.has_effect());
        match self {
            Kind::Primitive(op) => op.has_effect(),
            other => other.callees().iter().any(inside),
        }
    }
}

impl Body {
    fn value(&mut self, ty: Type, maker: Option<usize>) -> Id {
        self.values.push(Slot { ty, maker });
        self.values.len() - 1
    }

    /// Appends an operation and returns its results.
    pub fn push(
        &mut self,
        kind: Kind,
        inputs: Vec<Operand>,
        types: Vec<Type>,
        space: Vec<usize>,
        origin: &Origin,
    ) -> Vec<Id> {
        let at = self.ops.len();
        let outputs: Vec<Id> = types.into_iter().map(|t| self.value(t, Some(at))).collect();
        self.ops.push(Op { kind, inputs, outputs: outputs.clone(), space, origin: origin.clone() });
        outputs
    }

    /// The window's elements as a value of their own, in row-major order of the window.
    fn copy(&mut self, operand: Operand, origin: &Origin) -> Id {
        let ty = self.values[operand.value].ty.with_shape(operand.window.shape.clone());
        let space = operand.window.shape.clone();
        self.push(Kind::Map(Scalarly::Copy), vec![operand], vec![ty], space, origin)[0]
    }

    /// The operand itself if it is a whole value in its own order, or else a copy that is.
    fn dense(&mut self, operand: Operand, origin: &Origin) -> Operand {
        let elements = operand.window.shape.iter().product::<usize>();
        if operand.window.is_whole() && self.values[operand.value].ty.elements() == elements {
            return operand;
        }
        let window = Arc::new(Strided::whole(&operand.window.shape));
        Operand { value: self.copy(operand, origin), window }
    }

    /// An operand of a product with a long dimension whose elements are neighbours, if it has a
    /// long one: else products would read it element by element. The kernel of a convolution
    /// `[O, C, 3, 3]` is copied as `[O, 3, 3, C]`, once for all products that read it.
    fn in_long_rows(&mut self, x: Operand, known: &mut Rows, origin: &Origin) -> Operand {
        let window = &x.window;
        let elements = self.values[x.value].ty.elements();
        let Some((stored, order)) = window.in_rows(elements) else { return x };
        let id = *known.entry((x.value, stored.clone())).or_insert_with(|| {
            let operand = Operand { value: x.value, window: Arc::new(stored.clone()) };
            self.copy(operand, origin)
        });
        let window = Arc::new(window.on_copy(&stored, &order));
        Operand { value: id, window }
    }

    /// The element type of a value.
    pub fn dtype(&self, id: Id) -> DType {
        self.values[id].ty.dtype
    }

    /// The window through which a composite writes a value.
    pub fn layout(&self, id: Id) -> Option<&Strided> {
        let op = self.maker(id)?;
        let Kind::Composite { layouts, .. } = &op.kind else { return None };
        layouts.get(op.outputs.iter().position(|&o| o == id)?)
    }

    /// The operation that makes a value.
    pub fn maker(&self, id: Id) -> Option<&Op> {
        self.values[id].maker.map(|m| &self.ops[m])
    }
}

/// Folds windows into operands. Composites that are still called are those that the device claims.
///
/// # Errors
/// When the program is not in topological order.
pub fn fold_windows(function: &Function) -> Result<Body> {
    let mut body = Body { parameters: function.parameters().len(), ..Body::default() };
    let mut map: Vec<Option<Operand>> = vec![None; function.value_count()];
    for &p in function.parameters() {
        let ty = function.ty(p).clone();
        let window = Arc::new(Strided::whole(&ty.shape));
        map[p.index()] = Some(Operand { value: body.value(ty, None), window });
    }
    let undefined = || Error::new("a value is used before it is defined");
    let mut known = HashMap::new();
    for node in function.nodes() {
        let mut inputs = node
            .inputs
            .iter()
            .map(|v| map[v.index()].clone().ok_or_else(undefined))
            .collect::<Result<Vec<_>>>()?;
        let types: Vec<Type> = node.outputs.iter().map(|&v| function.ty(v).clone()).collect();
        // Sharing of equal work is over, so nothing has to be kept apart any more.
        if matches!(
            node.op,
            Primitive::Barrier(_) | Primitive::StopGradient(_) | Primitive::Annotate(_)
        ) {
            for (&o, x) in node.outputs.iter().zip(inputs) {
                map[o.index()] = Some(x);
            }
            continue;
        }
        if let Some(window) = inputs.first().and_then(|x| x.window.through(&node.op)) {
            map[node.outputs[0].index()] =
                Some(Operand { value: inputs[0].value, window: Arc::new(window) });
            continue;
        }
        if matches!(node.op, Primitive::Dot(_)) {
            inputs = inputs
                .into_iter()
                .map(|x| body.in_long_rows(x, &mut known, &node.origin))
                .collect();
        }
        let calls = match &node.op {
            Primitive::Call(c) => c.function.composite.is_none(),
            other => !other.functions().is_empty(),
        };
        if calls {
            // Called functions take dense arguments.
            inputs = inputs.into_iter().map(|x| body.dense(x, &node.origin)).collect();
        }
        let input_types: Vec<&Type> = node.inputs.iter().map(|&v| function.ty(v)).collect();
        let (kind, space) = kind_of(&node.op, &input_types, &types);
        let outputs = body.push(kind, inputs, types, space, &node.origin);
        for (&o, id) in node.outputs.iter().zip(outputs) {
            let window = Arc::new(Strided::whole(&body.values[id].ty.shape));
            map[o.index()] = Some(Operand { value: id, window });
        }
    }
    for &r in function.results() {
        let x = map[r.index()].clone().ok_or_else(undefined)?;
        let id = body.dense(x, &Origin::default()).value;
        body.results.push(id);
    }
    Ok(body)
}

fn kind_of(op: &Primitive, inputs: &[&Type], outputs: &[Type]) -> (Kind, Vec<usize>) {
    let space = outputs.first().map(|t| t.shape.clone()).unwrap_or_default();
    let kind = match op {
        Primitive::Elementwise(e) => Kind::Map(Scalarly::Apply(e.0)),
        Primitive::Cast(_) => Kind::Map(Scalarly::Cast),
        Primitive::Constant(c) => Kind::Map(Scalarly::Constant(c.value)),
        Primitive::Iota(i) => Kind::Map(Scalarly::Index(i.dim)),
        Primitive::Reshape(_) => {
            return (Kind::Map(Scalarly::Copy), inputs[0].shape.clone());
        }
        Primitive::Reduce(r) => {
            let kind = Kind::Reduce { kind: r.kind, dims: r.dims.clone() };
            return (kind, inputs[0].shape.clone());
        }
        Primitive::Concatenate(c) => Kind::Concatenate(c.dim),
        Primitive::Dot(d) => Kind::Dot(d.clone()),
        Primitive::Dense(d) => Kind::Dense(d.value.clone()),
        Primitive::Call(c) => match &c.function.composite {
            Some(composite) => Kind::Composite {
                composite: composite.clone(),
                layouts: outputs.iter().map(|t| Strided::whole(&t.shape)).collect(),
            },
            None => Kind::Call(c.function.clone()),
        },
        Primitive::Scan(s) => Kind::Scan(s.clone()),
        Primitive::Cond(c) => Kind::Cond(c.clone()),
        other => Kind::Primitive(other.clone()),
    };
    (kind, space)
}
