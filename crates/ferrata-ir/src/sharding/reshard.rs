//! From one sharding of a value to another: which collectives, what they cost, and their nodes.

use super::local::Place;
use super::{Cut, Mesh, Rates, Sharding, Stage};
use crate::primitive::{AllGather, AllReduce, AllToAll, Permute, ReduceKind, ReduceScatter};
use crate::program::{Builder, Value};
use crate::types::Type;

/// One step of the way.
#[derive(Clone, Debug, PartialEq)]
enum Move {
    /// Combines what is partial, for everyone.
    AllReduce { axes: Vec<usize>, kind: ReduceKind },
    /// Combines what is partial over an axis and cuts dimension `dim` so.
    ReduceScatter { axis: usize, kind: ReduceKind, dim: usize, cut: Cut },
    /// An axis cuts another dimension.
    AllToAll { axis: usize, from: usize, to: usize, cut: Cut },
    /// A dimension is cut along fewer axes, those at the end of its list being given up.
    Gather { dim: usize, keep: usize },
    /// A dimension is cut along more axes: everyone drops what is others'.
    Slice { dim: usize, cut: Cut },
    /// The first rank of an axis keeps the value, the others get zeros: a partial sum.
    Hold { axis: usize },
    /// To another stage, or to all.
    Carry { to: Option<Stage> },
}

/// The coarser cut along the first `keep` axes of this one.
fn coarser(cut: &Cut, keep: usize, mesh: &Mesh, size: usize) -> Cut {
    Cut { axes: cut.axes[..keep].to_vec(), ..cut.clone() }.canonical(mesh, size)
}

/// Whether `cut` is what the first axes of `finer` make.
fn begins(cut: &Cut, finer: &Cut, mesh: &Mesh, size: usize) -> bool {
    let keep = cut.axes.len();
    keep <= finer.axes.len() && coarser(finer, keep, mesh, size) == *cut
}

/// The steps on the way, and how the value lies before each.
fn moves(mesh: &Mesh, ty: &Type, from: &Sharding, to: &Sharding) -> Vec<(Sharding, Move)> {
    let mut way = Way { mesh, ty, at: from.clone(), moves: Vec::new() };
    // What is sent to other stages is the smaller of both.
    let early = from.stage.is_none() || part_of(mesh, ty, from) <= part_of(mesh, ty, to);
    if from.stage != to.stage && early {
        way.go(Move::Carry { to: to.stage });
    }
    let dim_of = |cuts: &[Cut], axis: usize| cuts.iter().position(|c| c.axes.contains(&axis));
    // Partial values: to where the axis cuts, else for everyone.
    let mut everywhere: Vec<(usize, ReduceKind)> = Vec::new();
    for &(axis, kind) in from.partial.iter().filter(|p| !to.partial.contains(p)) {
        match dim_of(&to.cuts, axis).and_then(|dim| Some((dim, way.next_cut(to, dim, axis)?))) {
            Some((dim, cut)) => way.go(Move::ReduceScatter { axis, kind, dim, cut }),
            None => everywhere.push((axis, kind)),
        }
    }
    while let Some(&(_, kind)) = everywhere.first() {
        let axes = everywhere.iter().filter(|(_, k)| *k == kind).map(|&(axis, _)| axis).collect();
        everywhere.retain(|(_, k)| *k != kind);
        way.go(Move::AllReduce { axes, kind });
    }
    // Axes that cut another dimension.
    for dim in 0..ty.rank() {
        let Some(&axis) = way.at.cuts[dim].axes.last() else { continue };
        let Some(other) = dim_of(&to.cuts, axis).filter(|&other| other != dim) else { continue };
        if let Some(cut) = way.next_cut(to, other, axis) {
            way.go(Move::AllToAll { axis, from: dim, to: other, cut });
        }
    }
    for (dim, &size) in ty.shape.iter().enumerate() {
        let cut = &way.at.cuts[dim];
        let common =
            |&keep: &usize| begins(&coarser(cut, keep, mesh, size), &to.cuts[dim], mesh, size);
        let keep = (0..=cut.axes.len()).rev().find(common).unwrap_or(0);
        if keep < cut.axes.len() {
            way.go(Move::Gather { dim, keep });
        }
    }
    for (dim, cut) in to.cuts.iter().enumerate() {
        if way.at.cuts[dim] != *cut {
            way.go(Move::Slice { dim, cut: cut.clone() });
        }
    }
    for &(axis, _) in to.partial.iter().filter(|p| !from.partial.contains(p)) {
        way.go(Move::Hold { axis });
    }
    if way.at.stage != to.stage {
        way.go(Move::Carry { to: to.stage });
    }
    way.moves
}

/// A value on its way.
struct Way<'a> {
    mesh: &'a Mesh,
    ty: &'a Type,
    at: Sharding,
    moves: Vec<(Sharding, Move)>,
}

impl Way<'_> {
    /// How a dimension is cut once `axis` cuts it too, if that is the next axis on the way to `to`.
    fn next_cut(&self, to: &Sharding, dim: usize, axis: usize) -> Option<Cut> {
        let (cut, size) = (&to.cuts[dim], self.ty.shape[dim]);
        let place = cut.axes.iter().position(|&a| a == axis)?;
        let begun = coarser(cut, place, self.mesh, size) == self.at.cuts[dim];
        begun.then(|| coarser(cut, place + 1, self.mesh, size))
    }

    /// Goes a step.
    fn go(&mut self, step: Move) {
        let before = self.at.clone();
        let at = &mut self.at;
        let given_up = |at: &Sharding, dim: usize, keep: usize| {
            coarser(&at.cuts[dim], keep, self.mesh, self.ty.shape[dim])
        };
        match &step {
            Move::AllReduce { axes, .. } => at.partial.retain(|(axis, _)| !axes.contains(axis)),
            Move::ReduceScatter { axis, dim, cut, .. } => {
                at.partial.retain(|(a, _)| a != axis);
                at.cuts[*dim] = cut.clone();
            }
            Move::AllToAll { from, to, cut, .. } => {
                at.cuts[*from] = given_up(at, *from, at.cuts[*from].axes.len() - 1);
                at.cuts[*to] = cut.clone();
            }
            Move::Gather { dim, keep } => at.cuts[*dim] = given_up(at, *dim, *keep),
            Move::Slice { dim, cut } => at.cuts[*dim] = cut.clone(),
            Move::Hold { axis } => {
                at.partial.push((*axis, ReduceKind::Sum));
                at.partial.sort_by_key(|&(axis, _)| axis);
            }
            Move::Carry { to } => at.stage = *to,
        }
        self.moves.push((before, step));
    }
}

/// Bytes of the part of an average rank.
pub(super) fn part_of(mesh: &Mesh, ty: &Type, at: &Sharding) -> f64 {
    let parts: usize = at.cuts.iter().map(|cut| mesh.parts(&cut.axes)).product();
    ty.bytes() as f64 / parts as f64
}

/// What a rank sends on the way, in bytes, and the seconds that takes.
pub(super) fn cost(
    mesh: &Mesh,
    rates: &Rates,
    ty: &Type,
    from: &Sharding,
    to: &Sharding,
) -> (f64, f64) {
    let (mut bytes, mut seconds) = (0.0, 0.0);
    let share = |axes: &[usize]| {
        let n = mesh.parts(axes) as f64;
        (n - 1.0) / n
    };
    for (at, step) in moves(mesh, ty, from, to) {
        let part = part_of(mesh, ty, &at);
        let sent = match &step {
            Move::AllReduce { axes, .. } => 2.0 * part * share(axes),
            Move::ReduceScatter { axis, .. } | Move::AllToAll { axis, .. } => {
                part * share(&[*axis])
            }
            Move::Gather { dim, keep } => {
                let axes = &at.cuts[*dim].axes[*keep..];
                part * mesh.parts(axes) as f64 * share(axes)
            }
            Move::Carry { to } => match (at.stage, to) {
                (Some(_), Some(_)) => part,
                (Some(stage), None) => part * (mesh.parts(&[stage.axis]) - 1) as f64,
                (None, _) => continue,
            },
            Move::Slice { .. } | Move::Hold { .. } => continue,
        };
        bytes += sent;
        seconds += rates.collective(sent);
    }
    (bytes, seconds)
}

/// A rank's value with the stretches of a dimension as a dimension of their own in front of it, and
/// where that is then.
fn expose(b: &mut Builder, x: Value, dim: usize, blocks: usize) -> (Value, usize) {
    if blocks == 1 {
        return (x, dim);
    }
    let mut shape = b.ty(x).shape.clone();
    shape[dim] /= blocks;
    shape.insert(dim, blocks);
    (b.reshape(x, &shape), dim + 1)
}

/// Undoes [`expose`].
fn restore(b: &mut Builder, x: Value, dim: usize, blocks: usize) -> Value {
    if blocks == 1 {
        return x;
    }
    let mut shape = b.ty(x).shape.clone();
    shape[dim] *= shape[dim + 1];
    shape.remove(dim + 1);
    b.reshape(x, &shape)
}

impl Place<'_> {
    /// Elements of each stretch of a dimension that each member of a group has.
    fn sizes(&self, cut: &Cut, size: usize, group: &[usize]) -> Vec<usize> {
        group.iter().map(|&rank| cut.local(self.mesh, size, rank) / cut.blocks).collect()
    }

    /// The value, which lies as `from`, so that it lies as `to`; nothing where it is not.
    pub fn reshard(
        &self,
        b: &mut Builder,
        x: Option<Value>,
        ty: &Type,
        from: &Sharding,
        to: &Sharding,
    ) -> Option<Value> {
        let steps = moves(self.mesh, ty, from, to);
        steps.iter().fold(x, |x, (at, step)| match step {
            Move::Carry { to } => self.carry(b, x, ty, at, *to),
            _ => x.map(|x| self.step(b, x, ty, at, step)),
        })
    }

    /// The value, which lies as `at`, on another stage or on all.
    fn carry(
        &self,
        b: &mut Builder,
        x: Option<Value>,
        ty: &Type,
        at: &Sharding,
        to: Option<Stage>,
    ) -> Option<Value> {
        let arrives = self.mesh.is_on(self.rank, to);
        let Some(from) = at.stage else { return x.filter(|_| arrives) };
        if let Some(x) = x {
            let others = (0..self.mesh.parts(&[from.axis])).map(|at| Stage { at, ..from });
            let others = others.filter(|&stage| match to {
                Some(to) => stage == to,
                None => stage != from,
            });
            let to = others.map(|stage| self.mesh.counterpart(self.rank, stage)).collect();
            b.emit(Permute { to, from: None, ty: ty.with_shape([0]) }, &[x]);
            return arrives.then_some(x);
        }
        arrives.then(|| {
            let nothing = self.nothing(b, ty);
            let from = Some(self.mesh.counterpart(self.rank, from));
            let ty = Sharding { stage: None, ..at.clone() }.local(self.mesh, ty, self.rank);
            b.emit1(Permute { to: Vec::new(), from, ty }, &[nothing])
        })
    }

    /// What a rank holds of a value that is not on its stage.
    pub fn nothing(&self, b: &mut Builder, ty: &Type) -> Value {
        b.full(ty.with_shape([0]), 0.0)
    }

    fn step(&self, b: &mut Builder, x: Value, ty: &Type, at: &Sharding, step: &Move) -> Value {
        let group = |axes: &[usize]| self.mesh.group(self.rank, axes);
        match step {
            Move::AllReduce { axes, kind } => {
                b.emit1(AllReduce { kind: *kind, group: group(axes) }, &[x])
            }
            Move::ReduceScatter { axis, kind, dim, cut } => {
                let group = group(&[*axis]);
                let sizes = self.sizes(cut, ty.shape[*dim], &group);
                let place = self.mesh.part(self.rank, &[*axis]);
                let (x, at) = expose(b, x, *dim, cut.blocks);
                let y = b.emit1(ReduceScatter { kind: *kind, dim: at, group, sizes, place }, &[x]);
                restore(b, y, *dim, cut.blocks)
            }
            Move::AllToAll { axis, from, to, cut } => {
                let group = group(&[*axis]);
                let split_sizes = self.sizes(cut, ty.shape[*to], &group);
                let join = &at.cuts[*from];
                let join_sizes = self.sizes(join, ty.shape[*from], &group);
                let place = self.mesh.part(self.rank, &[*axis]);
                // The later dimension first, so that the place of the other stays.
                let both = [(*from, join.blocks), (*to, cut.blocks)];
                let (mut x, mut dims) = (x, [0, 0]);
                let order = if from > to { [0, 1] } else { [1, 0] };
                for i in order {
                    (x, dims[i]) = expose(b, x, both[i].0, both[i].1);
                }
                let later = order[0];
                dims[later] += usize::from(both[order[1]].1 > 1);
                let op = AllToAll {
                    split: dims[1],
                    split_sizes,
                    join: dims[0],
                    join_sizes,
                    group,
                    place,
                };
                let mut y = b.emit1(op, &[x]);
                for i in [order[1], order[0]] {
                    y = restore(b, y, both[i].0, both[i].1);
                }
                y
            }
            Move::Gather { dim, keep } => {
                let cut = &at.cuts[*dim];
                let group = group(&cut.axes[*keep..]);
                let sizes = self.sizes(cut, ty.shape[*dim], &group);
                let (x, at) = expose(b, x, *dim, cut.blocks);
                let y = b.emit1(AllGather { dim: at, group, sizes }, &[x]);
                restore(b, y, *dim, cut.blocks)
            }
            Move::Slice { dim, cut } => {
                let size = ty.shape[*dim];
                let own = cut.range(self.mesh, size, self.mesh.part(self.rank, &cut.axes));
                let held = &at.cuts[*dim].axes;
                let held = Cut { axes: held.clone(), ..cut.clone() };
                let first =
                    held.range(self.mesh, size, self.mesh.part(self.rank, &held.axes)).start;
                let (x, at) = expose(b, x, *dim, cut.blocks);
                let (start, limit) = (own.start - first, own.end - first);
                let y = b.slice_dim(x, at, start * cut.unit, limit * cut.unit);
                restore(b, y, *dim, cut.blocks)
            }
            Move::Hold { axis } => match self.mesh.part(self.rank, &[*axis]) {
                0 => x,
                _ => b.zeros_like(x),
            },
            Move::Carry { .. } => x,
        }
    }
}
