//! A node on the parts of one rank.

use super::pattern::Pattern;
use super::{Cut, Mesh};
use crate::primitive::{BadIndex, Dim, Gather, Primitive, Scatter};
use crate::program::{Builder, Value};
use crate::types::Type;

/// The rank whose program is built.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub mesh: &'a Mesh,
    pub rank: usize,
}

/// A node with global types, and how its loops are cut.
pub(super) struct Cuts<'a> {
    pub op: &'a Primitive,
    pub pattern: &'a Pattern,
    pub assigned: &'a [Cut],
    pub outputs: &'a [&'a Type],
}

impl Place<'_> {
    /// The size of a rank's part of a factor.
    fn size(&self, node: &Cuts, factor: usize) -> usize {
        node.assigned[factor].local(self.mesh, node.pattern.factors[factor].size, self.rank)
    }

    fn local_shape(&self, node: &Cuts, result: usize) -> Vec<usize> {
        let dims = node.pattern.results[result].iter().zip(&node.outputs[result].shape);
        let local = |(dim, &size): (&Dim, &usize)| match dim {
            Dim::Factor(f) => self.size(node, *f),
            Dim::Merged(all) => all.iter().map(|&f| self.size(node, f)).product(),
            _ => size,
        };
        dims.map(local).collect()
    }

    /// Emits the node with the parts of its operands. Says whether it is the same node, but for
    /// sizes.
    pub fn emit(&self, b: &mut Builder, node: &Cuts, x: &[Value]) -> (Vec<Value>, bool) {
        let op: Primitive = match node.op {
            Primitive::Constant(c) => {
                let mut c = c.clone();
                c.ty.shape = self.local_shape(node, 0);
                c.into()
            }
            Primitive::Broadcast(o) => {
                let mut o = o.clone();
                o.shape = self.local_shape(node, 0);
                o.into()
            }
            Primitive::Reshape(o) => {
                let mut o = o.clone();
                o.shape = self.local_shape(node, 0);
                o.into()
            }
            Primitive::Slice(o) => {
                let (mut o, to) = (o.clone(), self.local_shape(node, 0));
                for (d, dim) in node.pattern.operands[0].iter().enumerate() {
                    let kept = node.outputs[0].shape[d];
                    match dim {
                        Dim::Merged(_) => o.start[d] = o.start[d] / kept * to[d],
                        _ if kept == to[d] => continue,
                        _ => {}
                    }
                    o.limit[d] = o.start[d] + to[d];
                }
                o.into()
            }
            Primitive::DynamicSlice(o) => {
                let mut o = o.clone();
                o.sizes = self.local_shape(node, 0);
                o.into()
            }
            Primitive::Gather(g) => match addressed(node, g.batch) {
                Some(factor) => {
                    let indices = self.shifted(b, node, factor, g.bad, x[1]);
                    let op = Gather { bad: BadIndex::Drop, ..g.clone() };
                    return (b.emit(op, &[x[0], indices]), false);
                }
                None => g.clone().into(),
            },
            Primitive::Scatter(s) => match addressed(node, s.batch) {
                Some(factor) => {
                    let indices = self.shifted(b, node, factor, s.bad, x[1]);
                    let op = Scatter { bad: BadIndex::Drop, ..s.clone() };
                    return (b.emit(op, &[x[0], indices, x[2]]), false);
                }
                None => s.clone().into(),
            },
            other => other.clone(),
        };
        (b.emit(op, x), true)
    }

    /// Indices into a rank's part of the dimension that they address, which is cut in one stretch.
    fn shifted(
        &self,
        b: &mut Builder,
        node: &Cuts,
        factor: usize,
        bad: BadIndex,
        indices: Value,
    ) -> Value {
        let (cut, size) = (&node.assigned[factor], node.pattern.factors[factor].size);
        let start = cut.range(self.mesh, size, self.mesh.part(self.rank, &cut.axes)).start;
        let ty = b.ty(indices).clone();
        let number = |b: &mut Builder, x: usize| b.full(ty.clone(), x as i64);
        let mut indices = indices;
        if bad == BadIndex::Clip {
            let (first, last) = (number(b, 0), number(b, size.saturating_sub(1)));
            indices = b.clamp(indices, first, last);
        }
        let start = number(b, start * cut.unit);
        b.sub(indices, start)
    }
}

/// The factor of the dimension that indices address, if it is cut.
fn addressed(node: &Cuts, batch: usize) -> Option<usize> {
    match node.pattern.operands[0].get(batch) {
        Some(Dim::Factor(f)) if !node.assigned[*f].is_whole() => Some(*f),
        _ => None,
    }
}
