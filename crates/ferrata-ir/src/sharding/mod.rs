//! Sharding: how values lie on a mesh of ranks, and the program that each rank runs.
//!
//! A [`Mesh`] gives the ranks names by axes (`data`, `tensor`, any other). A [`Sharding`] says for
//! every dimension of a value along which axes it is cut, and over which axes the value is still
//! partial. [`partition`] takes a program and the shardings of its parameters and results, spreads
//! them over the program by the loop factors of its primitives, and builds the
//! program of one rank: the same nodes on local shapes, with collectives where a value has to lie
//! otherwise. All decisions are made from global shapes alone, so all ranks make the same.
//!
//! | file | what |
//! |---|---|
//! | `pattern` | how the dimensions of any node belong together |
//! | `propagate` | how every value would best lie |
//! | `choose` | the cheapest way to cut a node |
//! | `context` | how attention gets to keys of other ranks |
//! | `ring` | attention around a ring of ranks |
//! | `cost` | what computing and moving costs |
//! | `reshard` | from one sharding to another |
//! | `local` | a node on the parts of one rank |
//! | `partition` | the program of one rank |
//! | `combine` | when sums over ranks are made |
//! | `stages` | which stage of a pipeline a node belongs to |
//! | `schedule` | in which order stages work on the iterations of a loop |

mod choose;
mod combine;
mod context;
mod cost;
mod local;
mod partition;
mod pattern;
mod propagate;
mod reshard;
mod ring;
mod schedule;
mod stages;

pub use context::ContextParallel;
pub use cost::Rates;
pub use partition::{Partition, Placement, Reshard, Setting, partition};
pub use schedule::Schedule;

use crate::communicator::chunk;
use crate::error::{Error, Result};
use crate::primitive::ReduceKind;
use crate::types::Type;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Ranks in a box with named axes, the last of which changes fastest with the rank.
///
/// ```
/// use ferrata_ir::sharding::Mesh;
/// let mesh = Mesh::new([("data", 2), ("tensor", 3)])?;
/// assert_eq!(mesh.size(), 6);
/// assert_eq!(mesh.coordinates(4), [1, 1]);
/// assert_eq!(mesh.group(4, &[1]), [3, 4, 5]);
/// # Ok::<(), ferrata_ir::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    axes: Vec<(Arc<str>, usize)>,
}

impl Mesh {
    /// A mesh with these axes, the outermost first.
    ///
    /// # Errors
    /// When an axis is empty or two have one name.
    pub fn new<N: AsRef<str>>(axes: impl IntoIterator<Item = (N, usize)>) -> Result<Mesh> {
        let mut mesh = Mesh { axes: Vec::new() };
        for (name, size) in axes {
            let name: Arc<str> = name.as_ref().into();
            if size == 0 {
                return Err(Error::new(format!("the mesh axis `{name}` has no ranks")));
            }
            if mesh.axis(&name).is_some() {
                return Err(Error::new(format!("two mesh axes are called `{name}`")));
            }
            mesh.axes.push((name, size));
        }
        Ok(mesh)
    }

    /// Names and sizes, the outermost first.
    pub fn axes(&self) -> &[(Arc<str>, usize)] {
        &self.axes
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.axes.iter().map(|(_, size)| size).product()
    }

    /// The place of an axis.
    pub fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|(n, _)| &**n == name)
    }

    /// The coordinates of a rank.
    pub fn coordinates(&self, rank: usize) -> Vec<usize> {
        let mut rest = rank;
        let mut coordinates = vec![0; self.axes.len()];
        for (at, (_, size)) in coordinates.iter_mut().zip(&self.axes).rev() {
            (*at, rest) = (rest % size, rest / size);
        }
        coordinates
    }

    /// The rank at these coordinates.
    pub fn rank(&self, coordinates: &[usize]) -> usize {
        self.axes.iter().zip(coordinates).fold(0, |rank, ((_, size), at)| rank * size + at)
    }

    /// How many parts cuts along these axes make.
    pub fn parts(&self, axes: &[usize]) -> usize {
        axes.iter().map(|&axis| self.axes[axis].1).product()
    }

    /// The ranks that differ from `rank` in these axes only, in the order of their parts.
    pub fn group(&self, rank: usize, axes: &[usize]) -> Vec<usize> {
        let mut at = self.coordinates(rank);
        let ranks = (0..self.parts(axes)).map(|part| {
            let mut rest = part;
            for &axis in axes.iter().rev() {
                let size = self.axes[axis].1;
                (at[axis], rest) = (rest % size, rest / size);
            }
            self.rank(&at)
        });
        ranks.collect()
    }

    /// Which part of cuts along these axes a rank has.
    pub fn part(&self, rank: usize, axes: &[usize]) -> usize {
        let at = self.coordinates(rank);
        axes.iter().fold(0, |part, &axis| part * self.axes[axis].1 + at[axis])
    }

    /// Whether a rank is on a stage; all are on none in particular.
    fn is_on(&self, rank: usize, stage: Option<Stage>) -> bool {
        stage.is_none_or(|stage| self.part(rank, &[stage.axis]) == stage.at)
    }

    /// The rank that is on a stage as `rank` is on its own.
    fn counterpart(&self, rank: usize, stage: Stage) -> usize {
        let mut at = self.coordinates(rank);
        at[stage.axis] = stage.at;
        self.rank(&at)
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> =
            self.axes.iter().map(|(name, size)| format!("{name}={size}")).collect();
        f.write_str(&axes.join(","))
    }
}

/// How one dimension is cut: seen as `[blocks, n, unit]`, its `n` is cut into nearly equal parts
/// along `axes`, the first of which makes the largest. So the heads of a fused query, key and value
/// matrix are cut with 3 blocks, and a merged dimension with the size of its inner ones as unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cut {
    /// Mesh axes; none if the dimension is whole.
    pub axes: Vec<usize>,
    /// Number of stretches that are cut alike.
    pub blocks: usize,
    /// Elements that stay together.
    pub unit: usize,
}

impl Cut {
    /// A whole dimension.
    pub fn whole() -> Cut {
        Cut { axes: Vec::new(), blocks: 1, unit: 1 }
    }

    /// A dimension that is cut along these axes as it is.
    pub fn along(axes: &[usize]) -> Cut {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        Cut { axes, ..Cut::whole() }
    }

    /// A dimension of this size whose elements are dealt out along these axes, one to each rank in
    /// turn; in stretches if that does not come out even.
    pub fn dealt(mesh: &Mesh, axes: &[usize], size: usize) -> Cut {
        let (cut, parts) = (Cut::along(axes), mesh.parts(axes));
        match parts > 1 && size > 0 && size.is_multiple_of(parts) {
            true => Cut { blocks: size / parts, ..cut },
            false => cut,
        }
    }

    /// Whether the dimension is not cut.
    pub fn is_whole(&self) -> bool {
        self.axes.is_empty()
    }

    /// In how many units each of the stretches of a dimension of this size is cut.
    fn units(&self, size: usize) -> usize {
        size / (self.blocks * self.unit).max(1)
    }

    /// Whether a dimension of this size can be cut so, and every rank gets some of it.
    fn fits(&self, mesh: &Mesh, size: usize) -> bool {
        size.is_multiple_of((self.blocks * self.unit).max(1))
            && self.units(size) >= mesh.parts(&self.axes)
    }

    /// The same cut in its shortest form for a dimension of this size.
    fn canonical(mut self, mesh: &Mesh, size: usize) -> Cut {
        if self.is_whole() {
            return Cut::whole();
        }
        if self.units(size).is_multiple_of(mesh.parts(&self.axes)) {
            self.unit = 1;
        }
        self
    }

    /// The units of each stretch that part `part` has.
    fn range(&self, mesh: &Mesh, size: usize, part: usize) -> Range<usize> {
        chunk(self.units(size), mesh.parts(&self.axes), part)
    }

    /// The size of a rank's part of a dimension.
    fn local(&self, mesh: &Mesh, size: usize, rank: usize) -> usize {
        match self.is_whole() {
            true => size,
            false => {
                let part = mesh.part(rank, &self.axes);
                self.blocks * self.range(mesh, size, part).len() * self.unit
            }
        }
    }
}

/// How a dimension that a program names is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The axes that cut it.
    pub axes: Vec<usize>,
    /// Whether its elements are [dealt out](Cut::dealt).
    pub dealt: bool,
}

/// How dimensions with a name are cut; see [`Annotate`](crate::primitive::Annotate).
pub type Names = BTreeMap<String, Named>;

/// A stage of a pipeline: the ranks with one coordinate along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stage {
    /// The axis.
    pub axis: usize,
    /// The coordinate.
    pub at: usize,
}

/// How a value lies on a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sharding {
    /// For each dimension.
    pub cuts: Vec<Cut>,
    /// Axes over which what ranks hold has still to be combined, rising, and how.
    pub partial: Vec<(usize, ReduceKind)>,
    /// The stage that has it, if not all ranks do. What others hold has no elements.
    pub stage: Option<Stage>,
}

impl Sharding {
    /// Every rank has all of a value of this rank.
    pub fn replicated(rank: usize) -> Sharding {
        Sharding { cuts: vec![Cut::whole(); rank], partial: Vec::new(), stage: None }
    }

    /// For each dimension the axes that cut it.
    pub fn along(dims: &[&[usize]]) -> Sharding {
        let cuts = dims.iter().map(|axes| Cut::along(axes)).collect();
        Sharding { cuts, partial: Vec::new(), stage: None }
    }

    /// Whether every rank has all of the value.
    pub fn is_everywhere(&self) -> bool {
        self.stage.is_none() && self.partial.is_empty() && self.cuts.iter().all(Cut::is_whole)
    }

    /// Whether an axis cuts some dimension.
    fn cuts_along(&self, axis: usize) -> bool {
        self.cuts.iter().any(|cut| cut.axes.contains(&axis))
    }

    /// Checks that a value of this type can lie so.
    ///
    /// # Errors
    /// Names the dimension and the axis that do not fit.
    pub fn check(&self, mesh: &Mesh, ty: &Type) -> Result<()> {
        if self.cuts.len() != ty.rank() {
            let n = self.cuts.len();
            return Err(Error::new(format!("{ty} has {} dimensions, not {n}", ty.rank())));
        }
        let mut used = self.partial.iter().map(|&(axis, _)| axis).collect::<Vec<_>>();
        if let Some(stage) = self.stage {
            if mesh.axes.get(stage.axis).is_none_or(|&(_, size)| stage.at >= size) {
                return Err(Error::new(format!("the mesh {mesh} has no such stage: {stage:?}")));
            }
            used.push(stage.axis);
        }
        for (d, cut) in self.cuts.iter().enumerate() {
            for &axis in &cut.axes {
                let Some((name, _)) = mesh.axes.get(axis) else {
                    return Err(Error::new(format!("the mesh {mesh} has no axis {axis}")));
                };
                if used.contains(&axis) {
                    return Err(Error::new(format!("the axis `{name}` would cut {ty} twice")));
                }
                used.push(axis);
            }
            if !cut.fits(mesh, ty.shape[d]) {
                let parts = mesh.parts(&cut.axes);
                return Err(Error::new(format!(
                    "dimension {d} of {ty} cannot be cut into {parts} parts of {} or more",
                    cut.blocks * cut.unit
                ))
                .help("use a smaller mesh axis, or cut another dimension"));
            }
        }
        Ok(())
    }

    /// The type of what a rank holds of a value.
    pub fn local(&self, mesh: &Mesh, ty: &Type, rank: usize) -> Type {
        if !mesh.is_on(rank, self.stage) {
            return ty.with_shape([0]);
        }
        let sizes = self.cuts.iter().zip(&ty.shape);
        ty.with_shape(sizes.map(|(cut, &size)| cut.local(mesh, size, rank)).collect::<Vec<_>>())
    }

    /// For each dimension the stretches of indices that a rank has, rising; none at all if it is
    /// not on the value's stage.
    pub fn stretches(&self, mesh: &Mesh, ty: &Type, rank: usize) -> Option<Vec<Vec<Range<usize>>>> {
        let stretches = |(cut, &size): (&Cut, &usize)| {
            let (units, part) = (cut.units(size), mesh.part(rank, &cut.axes));
            let range = cut.range(mesh, size, part);
            let block = |b: usize| {
                let first = b * units;
                (first + range.start) * cut.unit..(first + range.end) * cut.unit
            };
            (0..cut.blocks).map(block).collect()
        };
        let here = mesh.is_on(rank, self.stage);
        here.then(|| self.cuts.iter().zip(&ty.shape).map(stretches).collect())
    }

    /// The places of a rank's elements in a row-major value, in their order.
    ///
    /// ```
    /// use ferrata_ir::sharding::{Mesh, Sharding};
    /// use ferrata_ir::{DType, Type};
    /// let mesh = Mesh::new([("data", 2)])?;
    /// let columns = Sharding::along(&[&[], &[0]]);
    /// assert_eq!(columns.elements(&mesh, &Type::new(DType::F32, [2, 4]), 1), [2, 3, 6, 7]);
    /// # Ok::<(), ferrata_ir::Error>(())
    /// ```
    pub fn elements(&self, mesh: &Mesh, ty: &Type, rank: usize) -> Vec<usize> {
        let Some(stretches) = self.stretches(mesh, ty, rank) else { return Vec::new() };
        stretches.into_iter().zip(&ty.shape).fold(vec![0], |places, (own, size)| {
            let own: Vec<usize> = own.into_iter().flatten().collect();
            places.iter().flat_map(|place| own.iter().map(move |at| place * size + at)).collect()
        })
    }

    /// The coordinates of a rank that say which part it holds: ranks with the same ones are
    /// replicas, unless a value is partial.
    pub fn replica(&self, mesh: &Mesh, rank: usize) -> Vec<usize> {
        let axes = self.cuts.iter().flat_map(|cut| &cut.axes).copied();
        let axes = axes.chain(self.stage.map(|stage| stage.axis));
        axes.map(|axis| mesh.part(rank, &[axis])).collect()
    }

    /// For people: `[data, tensor*3, -] partial sum over tensor`.
    pub fn describe(&self, mesh: &Mesh) -> String {
        let names = |axes: &[usize]| -> String {
            axes.iter().map(|&axis| &*mesh.axes[axis].0).collect::<Vec<_>>().join("+")
        };
        let cut = |cut: &Cut| match cut.is_whole() {
            true => "-".to_owned(),
            false if cut.blocks == 1 => names(&cut.axes),
            false => format!("{}*{}", names(&cut.axes), cut.blocks),
        };
        let mut text = format!("[{}]", self.cuts.iter().map(cut).collect::<Vec<_>>().join(", "));
        for &(axis, kind) in &self.partial {
            text += &format!(" partial {} over {}", kind.word(), mesh.axes[axis].0);
        }
        if let Some(stage) = self.stage {
            text += &format!(" at {} {}", mesh.axes[stage.axis].0, stage.at);
        }
        text
    }
}
