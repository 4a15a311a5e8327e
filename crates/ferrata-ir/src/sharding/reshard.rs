//! From one sharding of a value to another: which collectives, what they cost, and their nodes.

use super::{Cut, Mesh, Rates, Sharding};
use crate::primitive::{AllGather, AllReduce, AllToAll, ReduceKind, ReduceScatter};
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

fn moves(mesh: &Mesh, ty: &Type, from: &Sharding, to: &Sharding) -> Vec<Move> {
    let mut at = from.clone();
    let mut moves = Vec::new();
    let dim_of = |cuts: &[Cut], axis: usize| cuts.iter().position(|c| c.axes.contains(&axis));
    // Partial values: to where the axis cuts, else for everyone.
    let mut everywhere: Vec<(usize, ReduceKind)> = Vec::new();
    for &(axis, kind) in from.partial.iter().filter(|p| !to.partial.contains(p)) {
        at.partial.retain(|&(a, _)| a != axis);
        let target = dim_of(&to.cuts, axis).and_then(|dim| {
            let size = ty.shape[dim];
            let place = to.cuts[dim].axes.iter().position(|&a| a == axis)?;
            let cut = coarser(&to.cuts[dim], place + 1, mesh, size);
            let before = coarser(&to.cuts[dim], place, mesh, size);
            (at.cuts[dim] == before).then_some((dim, cut))
        });
        match target {
            Some((dim, cut)) => {
                at.cuts[dim] = cut.clone();
                moves.push(Move::ReduceScatter { axis, kind, dim, cut });
            }
            None => everywhere.push((axis, kind)),
        }
    }
    while let Some(&(_, kind)) = everywhere.first() {
        let axes = everywhere.iter().filter(|(_, k)| *k == kind).map(|&(axis, _)| axis).collect();
        everywhere.retain(|(_, k)| *k != kind);
        moves.push(Move::AllReduce { axes, kind });
    }
    // Axes that cut another dimension.
    for dim in 0..at.cuts.len() {
        let Some(&axis) = at.cuts[dim].axes.last() else { continue };
        let Some(other) = dim_of(&to.cuts, axis).filter(|&other| other != dim) else { continue };
        let size = ty.shape[other];
        let Some(place) = to.cuts[other].axes.iter().position(|&a| a == axis) else { continue };
        if coarser(&to.cuts[other], place, mesh, size) == at.cuts[other] {
            let cut = coarser(&to.cuts[other], place + 1, mesh, size);
            at.cuts[dim] = coarser(&at.cuts[dim], at.cuts[dim].axes.len() - 1, mesh, ty.shape[dim]);
            at.cuts[other] = cut.clone();
            moves.push(Move::AllToAll { axis, from: dim, to: other, cut });
        }
    }
    for dim in 0..at.cuts.len() {
        let size = ty.shape[dim];
        let keep = (0..=at.cuts[dim].axes.len())
            .rev()
            .find(|&keep| {
                begins(&coarser(&at.cuts[dim], keep, mesh, size), &to.cuts[dim], mesh, size)
            })
            .unwrap_or(0);
        if keep < at.cuts[dim].axes.len() {
            at.cuts[dim] = coarser(&at.cuts[dim], keep, mesh, size);
            moves.push(Move::Gather { dim, keep });
        }
    }
    for dim in 0..at.cuts.len() {
        if at.cuts[dim] != to.cuts[dim] {
            moves.push(Move::Slice { dim, cut: to.cuts[dim].clone() });
        }
    }
    for &(axis, _) in to.partial.iter().filter(|p| !from.partial.contains(p)) {
        moves.push(Move::Hold { axis });
    }
    moves
}

/// How the value lies after a move.
fn after(mesh: &Mesh, ty: &Type, at: &mut Sharding, step: &Move) {
    match step {
        Move::AllReduce { axes, .. } => at.partial.retain(|(axis, _)| !axes.contains(axis)),
        Move::ReduceScatter { axis, dim, cut, .. } => {
            at.partial.retain(|(a, _)| a != axis);
            at.cuts[*dim] = cut.clone();
        }
        Move::AllToAll { from, to, cut, .. } => {
            let keep = at.cuts[*from].axes.len() - 1;
            at.cuts[*from] = coarser(&at.cuts[*from], keep, mesh, ty.shape[*from]);
            at.cuts[*to] = cut.clone();
        }
        Move::Gather { dim, keep } => {
            at.cuts[*dim] = coarser(&at.cuts[*dim], *keep, mesh, ty.shape[*dim]);
        }
        Move::Slice { dim, cut } => at.cuts[*dim] = cut.clone(),
        Move::Hold { axis } => {
            at.partial.push((*axis, ReduceKind::Sum));
            at.partial.sort_by_key(|&(axis, _)| axis);
        }
    }
}

/// Bytes of the part of an average rank.
fn part_of(mesh: &Mesh, ty: &Type, at: &Sharding) -> f64 {
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
    let mut at = from.clone();
    let (mut bytes, mut seconds) = (0.0, 0.0);
    for step in moves(mesh, ty, from, to) {
        let before = part_of(mesh, ty, &at);
        let gathered = match &step {
            Move::Gather { dim, keep } => at.cuts[*dim].axes[*keep..].to_vec(),
            _ => Vec::new(),
        };
        after(mesh, ty, &mut at, &step);
        let share = |axes: &[usize]| {
            let n = mesh.parts(axes) as f64;
            (n - 1.0) / n
        };
        let sent = match &step {
            Move::AllReduce { axes, .. } => 2.0 * before * share(axes),
            Move::ReduceScatter { axis, .. } | Move::AllToAll { axis, .. } => {
                before * share(&[*axis])
            }
            Move::Gather { .. } => part_of(mesh, ty, &at) * share(&gathered),
            Move::Slice { .. } | Move::Hold { .. } => continue,
        };
        bytes += sent;
        seconds += rates.collective(sent);
    }
    (bytes, seconds)
}

/// A rank's value with stretches of a dimension seen as a dimension of their own in front of it.
struct Exposed {
    value: Value,
    dim: usize,
}

fn expose(b: &mut Builder, x: Value, dim: usize, blocks: usize) -> Exposed {
    if blocks == 1 {
        return Exposed { value: x, dim };
    }
    let mut shape = b.ty(x).shape.clone();
    shape[dim] /= blocks;
    shape.insert(dim, blocks);
    Exposed { value: b.reshape(x, &shape), dim: dim + 1 }
}

fn restore(b: &mut Builder, x: Value, dim: usize, blocks: usize) -> Value {
    if blocks == 1 {
        return x;
    }
    let mut shape = b.ty(x).shape.clone();
    shape[dim] *= shape[dim + 1];
    shape.remove(dim + 1);
    b.reshape(x, &shape)
}

/// The nodes of one rank.
pub(super) struct Mover<'a> {
    pub mesh: &'a Mesh,
    pub rank: usize,
}

impl Mover<'_> {
    /// Elements of each stretch of a dimension that a rank has.
    fn size(&self, cut: &Cut, size: usize, rank: usize) -> usize {
        match cut.is_whole() {
            true => size / cut.blocks.max(1),
            false => cut.range(self.mesh, size, self.mesh.part(rank, &cut.axes)).len() * cut.unit,
        }
    }

    fn sizes(&self, cut: &Cut, size: usize, group: &[usize]) -> Vec<usize> {
        group.iter().map(|&rank| self.size(cut, size, rank)).collect()
    }

    /// The value, which lies as `from`, so that it lies as `to`.
    pub fn reshard(
        &self,
        b: &mut Builder,
        x: Value,
        ty: &Type,
        from: &Sharding,
        to: &Sharding,
    ) -> Value {
        let mut at = from.clone();
        let mut x = x;
        for step in moves(self.mesh, ty, from, to) {
            x = self.emit(b, x, ty, &at, &step);
            after(self.mesh, ty, &mut at, &step);
        }
        x
    }

    fn emit(&self, b: &mut Builder, x: Value, ty: &Type, at: &Sharding, step: &Move) -> Value {
        let group = |axes: &[usize]| self.mesh.group(self.rank, axes);
        match step {
            Move::AllReduce { axes, kind } => {
                b.emit1(AllReduce { kind: *kind, group: group(axes) }, &[x])
            }
            Move::ReduceScatter { axis, kind, dim, cut } => {
                let group = group(&[*axis]);
                let sizes = self.sizes(cut, ty.shape[*dim], &group);
                let place = self.mesh.part(self.rank, &[*axis]);
                let seen = expose(b, x, *dim, cut.blocks);
                let op = ReduceScatter { kind: *kind, dim: seen.dim, group, sizes, place };
                let y = b.emit1(op, &[seen.value]);
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
                    let seen = expose(b, x, both[i].0, both[i].1);
                    (x, dims[i]) = (seen.value, seen.dim);
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
                let seen = expose(b, x, *dim, cut.blocks);
                let y = b.emit1(AllGather { dim: seen.dim, group, sizes }, &[seen.value]);
                restore(b, y, *dim, cut.blocks)
            }
            Move::Slice { dim, cut } => {
                let size = ty.shape[*dim];
                let own = cut.range(self.mesh, size, self.mesh.part(self.rank, &cut.axes));
                let held = &at.cuts[*dim].axes;
                let held = Cut { axes: held.clone(), ..cut.clone() };
                let first =
                    held.range(self.mesh, size, self.mesh.part(self.rank, &held.axes)).start;
                let seen = expose(b, x, *dim, cut.blocks);
                let (start, limit) = (own.start - first, own.end - first);
                let y = b.slice_dim(seen.value, seen.dim, start * cut.unit, limit * cut.unit);
                restore(b, y, *dim, cut.blocks)
            }
            Move::Hold { axis } => match self.mesh.part(self.rank, &[*axis]) {
                0 => x,
                _ => b.zeros_like(x),
            },
        }
    }
}
