//! A loop nest under construction: the operations fused into it, what it stores, and the values
//! that it still has to get from somewhere.

use crate::body::{Body, Id, Kind, Op, Scalarly};
use crate::strided::{Map, Refusal, row_major};
use ferrata_ir::primitive::ReduceKind;
use std::collections::BTreeMap;

/// An operation computed inside a nest.
#[derive(Clone, Debug)]
pub struct Member {
    /// Index of the operation.
    pub op: usize,
    /// Which element of its result is computed in each turn.
    pub map: Map,
    /// For an index along a dimension: that index. Else for each operand: which element is used.
    pub inputs: Vec<Map>,
}

/// A value that a nest writes.
#[derive(Clone, Debug)]
pub struct Output {
    /// What is written.
    pub value: Id,
    /// Which element of it in each turn.
    pub map: Map,
    /// The value whose elements are written or combined, and which of them.
    pub source: (Id, Map),
    /// How loops marked in `reduced` are combined.
    pub kind: Option<ReduceKind>,
    /// For each loop, whether it is combined over.
    pub reduced: Vec<bool>,
}

/// Loops, what is computed in them, what is stored, and what is wanted from outside.
#[derive(Clone, Debug, Default)]
pub struct Nest {
    /// Trip counts, all above 1.
    pub loops: Vec<usize>,
    /// The loops that reductions inside the nest run over, once there is such a reduction.
    pub columns: Option<Vec<bool>>,
    /// Operations, users before makers.
    pub members: Vec<Member>,
    /// What is stored.
    pub outputs: Vec<Output>,
    /// Values wanted that are not computed here, and which elements of them.
    pub demands: BTreeMap<Id, Vec<Map>>,
    /// Elements of values that are parts of others, which are wanted in their stead.
    pub aliases: Vec<(Element, Element)>,
}

/// An element of a value in each turn.
pub type Element = (Id, Map);

/// A row of a reduction has at most this many elements, so that it stays in the caches.
const LONGEST_ROW: usize = 1 << 18;
/// A reduction of at most this many elements may step across memory inside of a nest.
const SHORT_COLUMN: usize = 16;

impl Nest {
    /// The nest that computes one map or reduction and stores its result.
    ///
    /// # Errors
    /// When an operand can't be reached by loops over the operation's space.
    pub fn of(body: &Body, at: usize) -> Result<Nest, Refusal> {
        let op = &body.ops[at];
        let dims: Vec<usize> = (0..op.space.len()).filter(|&d| op.space[d] > 1).collect();
        let mut nest =
            Nest { loops: dims.iter().map(|&d| op.space[d]).collect(), ..Nest::default() };
        let value = op.outputs[0];
        match &op.kind {
            Kind::Reduce { kind, dims: gone } => {
                let kept: Vec<usize> = dims.iter().copied().filter(|d| !gone.contains(d)).collect();
                let strides = row_major(&kept.iter().map(|&d| op.space[d]).collect::<Vec<_>>());
                let at = |d| kept.iter().position(|k| k == d).map_or(0, |i| strides[i]);
                let map = Map { offset: 0, strides: dims.iter().map(at).collect() };
                let reduced = dims.iter().map(|d| gone.contains(d)).collect();
                let window = &op.inputs[0].window;
                let source = Map {
                    offset: window.offset,
                    strides: dims.iter().map(|&d| window.strides[d]).collect(),
                };
                let source = (op.inputs[0].value, source);
                nest.demand(source.0, source.1.clone());
                nest.outputs.push(Output { value, map, source, kind: Some(*kind), reduced });
            }
            _ => {
                nest = Nest::storing(value, &op.space);
                nest.join(body, at)?;
            }
        }
        Ok(nest)
    }

    /// The nest that only stores a value made elsewhere.
    pub fn storing(value: Id, shape: &[usize]) -> Nest {
        let dense = row_major(shape);
        let dims: Vec<usize> = (0..shape.len()).filter(|&d| shape[d] > 1).collect();
        let map = Map { offset: 0, strides: dims.iter().map(|&d| dense[d]).collect() };
        let loops = dims.iter().map(|&d| shape[d]).collect();
        let mut nest = Nest { loops, ..Nest::default() };
        nest.demand(value, map.clone());
        nest.outputs.push(Output::plain(value, map));
        nest
    }

    /// Wants elements of a value.
    pub fn demand(&mut self, value: Id, map: Map) {
        let maps = self.demands.entry(value).or_default();
        if !maps.contains(&map) {
            maps.push(map);
        }
    }

    /// Number of turns.
    pub fn volume(&self) -> usize {
        self.loops.iter().product()
    }

    fn maps(&mut self) -> impl Iterator<Item = &mut Map> {
        let members =
            self.members.iter_mut().flat_map(|m| std::iter::once(&mut m.map).chain(&mut m.inputs));
        let outputs = self.outputs.iter_mut().flat_map(|o| [&mut o.map, &mut o.source.1]);
        let aliases = self.aliases.iter_mut().flat_map(|(from, to)| [&mut from.1, &mut to.1]);
        members.chain(outputs).chain(self.demands.values_mut().flatten()).chain(aliases)
    }

    /// Splits loop `at` into an outer and an inner one of `inner` steps.
    pub fn split(&mut self, at: usize, inner: usize) {
        self.maps().for_each(|m| m.split(at, inner));
        for output in &mut self.outputs {
            output.reduced.insert(at, output.reduced[at]);
        }
        if let Some(columns) = &mut self.columns {
            columns.insert(at, columns[at]);
        }
        self.loops[at] /= inner;
        self.loops.insert(at + 1, inner);
    }

    /// Runs `f`, splitting loops for as long as it asks for that.
    ///
    /// # Errors
    /// When `f` refuses for good.
    pub fn splitting<T>(
        &mut self,
        mut f: impl FnMut(&mut Nest) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            match f(self) {
                Err(Refusal::Split { at, inner }) => self.split(at, inner),
                other => return other,
            }
        }
    }

    /// Appends loops that nothing depends on so far.
    pub fn append_loops(&mut self, sizes: &[usize]) {
        let n = sizes.len();
        self.maps().for_each(|m| m.strides.extend(std::iter::repeat_n(0, n)));
        self.outputs.iter_mut().for_each(|o| o.reduced.extend(std::iter::repeat_n(false, n)));
        if let Some(columns) = &mut self.columns {
            columns.extend(std::iter::repeat_n(false, n));
        }
        self.loops.extend(sizes);
    }

    /// Computes an operation here wherever its result is wanted.
    ///
    /// # Errors
    /// When loops can't express it; the nest then does the same work as before.
    pub fn join(&mut self, body: &Body, at: usize) -> Result<(), Refusal> {
        let inputs = self.prepare(body, at)?;
        self.commit(body, at, inputs);
        Ok(())
    }

    /// Which elements of the operands an operation needs, for each way in which its result is
    /// wanted. Loops may be split for that, and columns fixed.
    ///
    /// # Errors
    /// When loops can't express it.
    pub fn prepare(&mut self, body: &Body, at: usize) -> Result<Vec<Vec<Map>>, Refusal> {
        let op = &body.ops[at];
        let value = op.outputs[0];
        let count = self.demands.get(&value).map_or(0, Vec::len);
        if let Kind::Reduce { dims, .. } = &op.kind {
            let sizes: Vec<usize> = dims.iter().map(|&d| op.space[d]).collect();
            if across_memory(op, dims) {
                return Err(Refusal::Never);
            }
            for i in 0..count {
                self.fix_columns(value, i, &sizes)?;
            }
        }
        self.splitting(|nest| {
            let one = |i: usize| match &op.kind {
                Kind::Reduce { dims, .. } => nest.expand_reduce(body, op, value, i, dims),
                _ => nest.expand(op, value, i),
            };
            (0..count).map(one).collect()
        })
    }

    /// Computes an operation that has been prepared, with nothing in between.
    pub fn commit(&mut self, body: &Body, at: usize, inputs: Vec<Vec<Map>>) {
        let op = &body.ops[at];
        let maps = self.demands.remove(&op.outputs[0]).unwrap_or_default();
        let is_index = matches!(op.kind, Kind::Map(Scalarly::Index(_)));
        for (map, inputs) in maps.into_iter().zip(inputs) {
            if !is_index {
                for (operand, map) in op.inputs.iter().zip(&inputs) {
                    self.demand(operand.value, map.clone());
                }
            }
            self.members.push(Member { op: at, map, inputs });
        }
    }

    /// The elements of the operands for demand `i` of a map's result.
    fn expand(&self, op: &Op, value: Id, i: usize) -> Result<Vec<Map>, Refusal> {
        let indices = self.demands[&value][i].indices(&self.loops, &op.space)?;
        if let Kind::Map(Scalarly::Index(dim)) = op.kind {
            return Ok(vec![indices[dim].clone()]);
        }
        let n = self.loops.len();
        Ok(op.inputs.iter().map(|x| Map::compose(&x.window, &indices, n)).collect())
    }

    /// The elements of the operand for a reduction over the columns.
    fn expand_reduce(
        &self,
        body: &Body,
        op: &Op,
        value: Id,
        i: usize,
        dims: &[usize],
    ) -> Result<Vec<Map>, Refusal> {
        let sizes: Vec<usize> = dims.iter().map(|&d| op.space[d]).collect();
        let kept: Vec<usize> = (0..op.space.len()).filter(|d| !dims.contains(d)).collect();
        let shape = &body.values[value].ty.shape;
        let rows = self.demands[&value][i].indices(&self.loops, shape)?;
        let along = self.column_map().indices(&self.loops, &sizes)?;
        let mut indices = vec![Map::zero(self.loops.len()); op.space.len()];
        kept.iter().zip(rows).for_each(|(&d, m)| indices[d] = m);
        dims.iter().zip(along).for_each(|(&d, m)| indices[d] = m);
        Ok(vec![Map::compose(&op.inputs[0].window, &indices, self.loops.len())])
    }

    /// Whether rows with these columns would step across what the nest reads or writes.
    pub fn steps_across(&self, column: &[bool]) -> bool {
        let maps = self.outputs.iter().map(|o| &o.map).chain(self.demands.values().flatten());
        maps.into_iter().any(|map| columns_across(&self.loops, &map.strides, column))
    }

    /// The row-major number of the column.
    pub fn column_map(&self) -> Map {
        let mut map = Map::zero(self.loops.len());
        let mut stride = 1;
        for l in (0..self.loops.len()).rev() {
            if self.columns.as_ref().is_some_and(|c| c[l]) {
                map.strides[l] = stride;
                stride *= self.loops[l] as isize;
            }
        }
        map
    }

    /// Makes sure that the columns are what a reduction over `sizes` needs, whose result demand
    /// `i` of `value` wants.
    fn fix_columns(&mut self, value: Id, i: usize, sizes: &[usize]) -> Result<(), Refusal> {
        let length: usize = sizes.iter().product();
        let map = &self.demands[&value][i];
        let unused: Vec<bool> = map.strides.iter().map(|&s| s == 0).collect();
        let product = |marks: &[bool]| -> usize {
            self.loops.iter().zip(marks).filter(|(_, m)| **m).map(|(n, _)| n).product()
        };
        if let Some(columns) = &self.columns {
            let fits = product(columns) == length
                && columns.iter().zip(&unused).all(|(column, unused)| !column || *unused);
            return if fits { Ok(()) } else { Err(Refusal::Never) };
        }
        let free = product(&unused);
        let rows = self.volume() / free;
        let alone = rows < 8 && length > 1 << 14;
        if length > LONGEST_ROW || alone || (free != length && unused.contains(&true)) {
            return Err(Refusal::Never);
        }
        let columns = if unused.contains(&true) {
            unused
        } else {
            let kept = self.loops.len();
            let sizes: Vec<usize> = sizes.iter().copied().filter(|&n| n > 1).collect();
            self.append_loops(&sizes);
            (0..self.loops.len()).map(|l| l >= kept).collect()
        };
        // New loops are combined over by no output, so that only old ones can be in the way.
        if !self.outputs.iter().all(|o| o.allows(&columns)) {
            return Err(Refusal::Never);
        }
        self.columns = Some(columns);
        Ok(())
    }

    /// Whether `value` is wanted in one way only, every element of it; loops that it does not
    /// depend on must be columns.
    pub fn covers(&self, body: &Body, value: Id) -> Option<&Map> {
        let [map] = self.demands.get(&value)?.as_slice() else { return None };
        let column = |l: usize| self.columns.as_ref().is_some_and(|c| c[l]);
        let whole = map.covers(&self.loops, body.values[value].ty.elements())
            && (0..self.loops.len()).all(|l| map.strides[l] != 0 || column(l));
        whole.then_some(map)
    }
}

/// Whether a long reduction steps over elements that lie between those it combines. As columns of
/// a row they would be read one by one; a kernel of its own combines whole rows.
fn across_memory(op: &Op, reduced: &[usize]) -> bool {
    let column: Vec<bool> = (0..op.space.len()).map(|d| reduced.contains(&d)).collect();
    columns_across(&op.space, &op.inputs[0].window.strides, &column)
}

/// Whether many columns step over elements that lie between rows.
fn columns_across(loops: &[usize], strides: &[isize], column: &[bool]) -> bool {
    let step = |of: bool| {
        let moving = (0..loops.len()).filter(|&l| column[l] == of && loops[l] > 1);
        moving.map(|l| strides[l].unsigned_abs()).filter(|&s| s > 0).min()
    };
    let count: usize = loops.iter().zip(column).filter(|(_, c)| **c).map(|(n, _)| n).product();
    count > SHORT_COLUMN && step(false).is_some_and(|row| step(true).is_some_and(|s| s > row))
}

impl Output {
    /// A value stored as it is.
    pub fn plain(value: Id, map: Map) -> Self {
        let reduced = vec![false; map.strides.len()];
        Output { value, source: (value, map.clone()), map, kind: None, reduced }
    }

    /// Whether these columns leave the store expressible: it combines over all of them or none.
    pub fn allows(&self, columns: &[bool]) -> bool {
        let mut marks = columns.iter().zip(&self.reduced).filter(|(c, _)| **c).map(|(_, r)| *r);
        let first = marks.next();
        self.kind.is_none() || marks.all(|r| Some(r) == first)
    }
}

impl Nest {
    /// Keeps the loops in `order`, which now have the trip counts `loops`.
    pub fn select_loops(&mut self, order: &[usize], loops: Vec<usize>) {
        let pick = |m: &mut Map| m.strides = order.iter().map(|&l| m.strides[l]).collect();
        self.maps().for_each(pick);
        for output in &mut self.outputs {
            output.reduced = order.iter().map(|&l| output.reduced[l]).collect();
        }
        if let Some(columns) = &mut self.columns {
            *columns = order.iter().map(|&l| columns[l]).collect();
        }
        self.loops = loops;
    }
}
