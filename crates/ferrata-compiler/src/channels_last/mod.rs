//! Convolutions become products of windows, and what they make stays in the order in which
//! products write it: channels last. Users see dimensions in their own order; the values behind
//! them are permuted, and each primitive works on the permuted value, until something needs the
//! user's order: a call, a result of the program, a primitive that is bound to an order.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the walk over a function: every value as a permuted one |
//! | `rules` | how primitives act on permuted values |
//! | `convolution` | convolutions as products of windows, or as sums of slices |

mod convolution;
mod rules;

use crate::callees::{Rebuilt, rebuild_functions};
use ferrata_ir::primitive::{Broadcast, Constant, Iota};
use ferrata_ir::{Builder, Error, Function, Node, Primitive, Result, Type, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The program without convolutions.
///
/// # Errors
/// When a function is ill-typed.
pub fn channels_last(program: &Arc<Function>) -> Result<Arc<Function>> {
    let mut convolves = false;
    program.visit(&mut |f| {
        convolves |= f.nodes().iter().any(|n| matches!(n.op, Primitive::Convolution(_)));
    });
    if !convolves {
        return Ok(program.clone());
    }
    rebuild_functions(program, function)
}

fn function(f: &Function, done: &Rebuilt) -> Result<Function> {
    let mut walk = Walk {
        b: Builder::new(f.name.clone()),
        map: vec![None; f.value_count()],
        plain: HashMap::new(),
    };
    for &p in f.parameters() {
        let value = walk.b.parameter(f.ty(p).clone());
        walk.map[p.index()] = Some(Stored::Value(Permuted {
            value,
            order: identity(f.ty(p).rank()),
            anchored: true,
        }));
    }
    for node in f.nodes() {
        walk.b.set_origin(node.origin.clone());
        let results = walk.node(&done.primitive(&node.op), node)?;
        walk.b.checked()?;
        for (&o, r) in node.outputs.iter().zip(results) {
            walk.map[o.index()] = Some(r);
        }
    }
    let results = f.results().iter().map(|&r| walk.plain(r)).collect::<Result<Vec<_>>>()?;
    let mut new = walk.b.finish(&results)?;
    new.composite = f.composite.clone();
    new.derivative = f.derivative.clone();
    Ok(new)
}

/// A value of the program as it is stored: its dimension `i` is dimension `order[i]` of `value`.
#[derive(Clone, Debug)]
struct Permuted {
    value: Value,
    order: Vec<usize>,
    /// Whether it is in the order of a parameter that it is made of, element by element, such as
    /// what an optimizer makes of weights.
    anchored: bool,
}

/// What stands for a value of the program.
#[derive(Clone, Debug)]
enum Stored {
    /// A value in some order.
    Value(Permuted),
    /// Numbers, indices or repetitions that can be made in any order.
    Free(Free),
}

#[derive(Clone, Debug)]
enum Free {
    Constant(Constant),
    Iota(Iota),
    Broadcast(Broadcast, Permuted),
}

struct Walk {
    b: Builder,
    map: Vec<Option<Stored>>,
    /// Values that have been brought into the user's order.
    plain: HashMap<Value, Value>,
}

fn identity(rank: usize) -> Vec<usize> {
    (0..rank).collect()
}

fn is_identity(order: &[usize]) -> bool {
    order.iter().enumerate().all(|(i, &d)| i == d)
}

/// For each dimension of the stored value, the user's dimension.
fn inverse(order: &[usize]) -> Vec<usize> {
    let mut out = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &d)| out[d] = i);
    out
}

impl Permuted {
    fn plain(b: &Builder, value: Value) -> Self {
        Permuted { value, order: identity(b.ty(value).rank()), anchored: false }
    }
}

impl Walk {
    fn stored(&self, v: Value) -> Result<&Stored> {
        self.map
            .get(v.index())
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::new("a value is used before it is defined"))
    }

    /// A value in the user's order.
    fn plain(&mut self, v: Value) -> Result<Value> {
        match self.stored(v)?.clone() {
            Stored::Value(x) if is_identity(&x.order) => Ok(x.value),
            Stored::Value(x) => {
                if let Some(&known) = self.plain.get(&v) {
                    return Ok(known);
                }
                let plain = self.b.transpose(x.value, &x.order);
                self.plain.insert(v, plain);
                Ok(plain)
            }
            Stored::Free(x) => {
                let rank = x.rank();
                Ok(self.make(&x, &identity(rank)))
            }
        }
    }

    /// A value stored with the user's dimensions in this sequence.
    fn stored_as(&mut self, x: &Permuted, sequence: &[usize]) -> Permuted {
        let permutation: Vec<usize> = sequence.iter().map(|&d| x.order[d]).collect();
        let value = self.b.transpose(x.value, &permutation);
        Permuted { value, order: inverse(sequence), anchored: false }
    }

    /// A value stored in this order.
    fn in_order(&mut self, v: Value, order: &[usize]) -> Result<Value> {
        match self.stored(v)?.clone() {
            Stored::Value(x) => Ok(self.stored_as(&x, &inverse(order)).value),
            Stored::Free(x) => Ok(self.make(&x, order)),
        }
    }

    /// Numbers, indices or repetitions, stored in this order.
    fn make(&mut self, x: &Free, order: &[usize]) -> Value {
        let permuted =
            |shape: &[usize]| -> Vec<usize> { inverse(order).iter().map(|&d| shape[d]).collect() };
        match x {
            Free::Constant(c) => {
                let ty = c.ty.with_shape(permuted(&c.ty.shape));
                self.b.emit1(Constant { ty, value: c.value }, &[])
            }
            Free::Iota(i) => {
                let ty = i.ty.with_shape(permuted(&i.ty.shape));
                self.b.emit1(Iota { ty, dim: order[i.dim] }, &[])
            }
            Free::Broadcast(op, x) => {
                // Where each dimension of the operand goes; they must rise.
                let places: Vec<usize> = op.dims.iter().map(|&d| order[d]).collect();
                let mut by_place = identity(places.len());
                by_place.sort_by_key(|&i| places[i]);
                let inner: Vec<usize> = by_place.iter().map(|&i| x.order[i]).collect();
                let value = self.b.transpose(x.value, &inner);
                let dims = by_place.iter().map(|&i| places[i]).collect();
                self.b.emit1(Broadcast { shape: permuted(&op.shape), dims }, &[value])
            }
        }
    }

    /// A node of the program.
    fn node(&mut self, op: &Primitive, node: &Node) -> Result<Vec<Stored>> {
        if let Some(made) = self.permuted(op, node)? {
            return Ok(made);
        }
        let inputs = node.inputs.iter().map(|&v| self.plain(v)).collect::<Result<Vec<_>>>()?;
        let outputs = self.b.emit(op.clone(), &inputs);
        Ok(outputs.into_iter().map(|v| Stored::Value(Permuted::plain(&self.b, v))).collect())
    }

    fn ty(&self, v: Value) -> Type {
        self.b.ty(v).clone()
    }
}

impl Free {
    fn rank(&self) -> usize {
        match self {
            Free::Constant(c) => c.ty.rank(),
            Free::Iota(i) => i.ty.rank(),
            Free::Broadcast(b, _) => b.shape.len(),
        }
    }
}
