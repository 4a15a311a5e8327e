//! How a loop nest is cut into tiles that fit the unified buffer.

use crate::target::Target;
use ferrata_compiler::kernel::{Access, Loop};

/// What the compiler keeps of the unified buffer for itself, and what reductions and comparisons
/// need for a moment.
const RESERVED: usize = 24 << 10;
/// Elements that are worth the start of a move.
const SMALLEST: usize = 4096;
/// Rows of a tile begin at multiples of so many elements.
const BLOCK: usize = 8;

/// Tiles of a loop nest. A tile has at most two axes, rows and columns, along one loop each; all
/// other loops take one step at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tiles {
    /// Trip counts of all loops.
    pub counts: Vec<usize>,
    /// The loops along the two axes.
    pub axes: [Option<usize>; 2],
    /// The size of a tile along the two axes.
    pub size: [usize; 2],
    /// Loops that one program runs through in order, since a store combines over them.
    pub sequential: Vec<bool>,
}

impl Tiles {
    /// Steps of a loop that a tile takes at once.
    pub fn step(&self, l: usize) -> usize {
        (0..2).find(|&a| self.axes[a] == Some(l)).map_or(1, |a| self.size[a])
    }

    /// Tiles along a loop.
    pub fn along(&self, l: usize) -> usize {
        self.counts[l].div_ceil(self.step(l))
    }
}

/// Loops that a store combines over.
pub(crate) fn combined(nest: &Loop, store: usize) -> Vec<bool> {
    let store = &nest.stores[store];
    let strides = &store.access.strides;
    let columns = &strides[nest.rows.len()..];
    let once = columns.iter().all(|&s| s == 0);
    let counts = nest.rows.iter().chain(&nest.columns);
    let over = |(l, (&n, &stride)): (usize, (&usize, &isize))| {
        store.combine.is_some() && n > 1 && stride == 0 && !(once && l >= nest.rows.len())
    };
    counts.zip(strides).enumerate().map(over).collect()
}

fn accesses(nest: &Loop) -> impl Iterator<Item = &Access> {
    nest.stores.iter().map(|s| &s.access).chain(&nest.loads)
}

/// Values of a tile's size that are alive at a time, at most.
fn alive(nest: &Loop) -> usize {
    let mut last = vec![0; nest.body.len()];
    for (i, x) in nest.body.iter().enumerate() {
        x.args().iter().for_each(|&a| last[a] = i);
    }
    nest.stores.iter().for_each(|s| last[s.register] = nest.body.len());
    let at = |i: usize| (0..=i).filter(|&r| last[r] > i).count();
    (0..nest.body.len()).map(at).max().unwrap_or(0)
}

/// Elements that a tile may have; each time that the compiler found it too large, half of it.
fn budget(nest: &Loop, target: &Target, halvings: u32) -> usize {
    let buffers = 2 * (nest.loads.len() + nest.stores.len()) + alive(nest) + 4;
    let wide = nest.loads.iter().any(|a| a.dtype.size() > 4);
    let bytes = if wide { 8 } else { 4 } * buffers;
    (((target.unified - RESERVED) / bytes) >> halvings).max(1)
}

/// Whether a row fits a tile with its reductions.
pub(crate) fn row_fits(nest: &Loop, target: &Target, halvings: u32) -> bool {
    let columns: usize = nest.columns.iter().product();
    nest.columns.len() <= 1 && columns.next_multiple_of(BLOCK) <= budget(nest, target, halvings)
}

/// Tiles for a loop nest; with `row`, a tile holds whole rows.
pub(crate) fn tiles(nest: &Loop, target: &Target, halvings: u32, row: bool) -> Tiles {
    let counts: Vec<usize> = nest.rows.iter().chain(&nest.columns).copied().collect();
    let mut sequential = vec![false; counts.len()];
    for s in 0..nest.stores.len() {
        combined(nest, s).iter().enumerate().filter(|(_, c)| **c).for_each(|(l, _)| {
            sequential[l] = true;
        });
    }
    let unit = |l: usize| accesses(nest).filter(|a| a.strides[l] == 1).count();
    // A tile never runs backwards.
    let forward = |l: usize| accesses(nest).all(|a| a.strides[l] >= 0);
    let long = |l: &usize| counts[*l] > 1 && forward(*l);
    let column = if row {
        (nest.rows.len()..counts.len()).find(long)
    } else {
        (0..counts.len()).filter(long).max_by_key(|&l| (unit(l), counts[l], l))
    };
    let rest = |l: &usize| long(l) && Some(*l) != column && (!row || *l < nest.rows.len());
    let rows = (0..counts.len()).filter(rest).max_by_key(|&l| (unit(l), l));
    let most = budget(nest, target, halvings);
    let all: usize = counts.iter().product();
    let wanted = all.div_ceil(target.vector_cores).max(SMALLEST).min(most);
    let across = column.map_or(1, |l| counts[l]);
    let across =
        if row || across <= wanted { across } else { wanted.next_multiple_of(64).min(most) };
    let down = (wanted / across.next_multiple_of(BLOCK)).max(1);
    let down = rows.map_or(1, |l| counts[l].min(down));
    Tiles { axes: [rows, column], size: [down, across.max(1)], counts, sequential }
}
