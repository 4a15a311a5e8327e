//! A node on the parts of one rank.

use super::pattern::Pattern;
use super::{Cut, Mesh};
use crate::primitive::{BadIndex, Dim, Gather, Primitive, Scatter};
use crate::program::{Builder, Value};
use crate::types::Type;
use crate::{Error, Result};

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
    pub fn emit(&self, b: &mut Builder, node: &Cuts, x: &[Value]) -> Result<(Vec<Value>, bool)> {
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
            Primitive::Gather(g) if self.addressed(node, g.batch).is_some() => {
                return Ok((vec![self.gather(b, g, node, x)?], false));
            }
            Primitive::Scatter(s) if self.addressed(node, s.batch).is_some() => {
                return Ok((vec![self.scatter(b, s, node, x)?], false));
            }
            other => other.clone(),
        };
        Ok((b.emit(op, x), true))
    }

    /// The dimension that indices address, if it is cut, and its factor.
    fn addressed(&self, node: &Cuts, batch: usize) -> Option<usize> {
        match node.pattern.operands[0].get(batch) {
            Some(Dim::Factor(f)) if !node.assigned[*f].is_whole() => Some(*f),
            _ => None,
        }
    }

    /// Indices into a rank's part of the dimension that they address.
    fn shifted(
        &self,
        b: &mut Builder,
        node: &Cuts,
        (batch, bad): (usize, BadIndex),
        indices: Value,
    ) -> Result<Value> {
        let factor = self.addressed(node, batch).unwrap_or_default();
        let (cut, size) = (&node.assigned[factor], node.pattern.factors[factor].size);
        if cut.blocks != 1 {
            return Err(Error::new("indices cannot address a dimension that is cut in stretches"));
        }
        let start = cut.range(self.mesh, size, self.mesh.part(self.rank, &cut.axes)).start;
        let ty = b.ty(indices).with_shape(b.ty(indices).shape.clone());
        let number = |b: &mut Builder, x: usize| b.full(ty.clone(), x as i64);
        let mut indices = indices;
        if bad == BadIndex::Clip {
            let (first, last) = (number(b, 0), number(b, size.saturating_sub(1)));
            indices = b.clamp(indices, first, last);
        }
        let start = number(b, start * cut.unit);
        Ok(b.sub(indices, start))
    }

    fn gather(&self, b: &mut Builder, op: &Gather, node: &Cuts, x: &[Value]) -> Result<Value> {
        let indices = self.shifted(b, node, (op.batch, op.bad), x[1])?;
        Ok(b.emit1(Gather { bad: BadIndex::Drop, ..op.clone() }, &[x[0], indices]))
    }

    fn scatter(&self, b: &mut Builder, op: &Scatter, node: &Cuts, x: &[Value]) -> Result<Value> {
        let indices = self.shifted(b, node, (op.batch, op.bad), x[1])?;
        Ok(b.emit1(Scatter { bad: BadIndex::Drop, ..op.clone() }, &[x[0], indices, x[2]]))
    }
}
