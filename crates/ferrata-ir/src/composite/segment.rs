//! Reductions over segments, and searches whose results are places.

use super::{call, expect_float, function};
use crate::error::Error;
use crate::primitive::{Attribute, BadIndex, Cumulative, ReduceKind, Scatter, ScatterKind};
use crate::program::{Builder, Value};
use crate::types::Type;
use crate::{DType, Scalar};

/// How the rows of a segment are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Their sum; 0 of none.
    Sum,
    /// Their mean; 0 of none. Floats only.
    Mean,
    /// Their product, 1 of none: takes time for every row and segment.
    Product,
    /// The largest; of none the least value of the dtype.
    Max,
    /// The smallest; of none the greatest value of the dtype.
    Min,
}

impl Segment {
    fn name(self) -> &'static str {
        match self {
            Segment::Sum => "segment_sum",
            Segment::Mean => "segment_mean",
            Segment::Product => "segment_product",
            Segment::Max => "segment_max",
            Segment::Min => "segment_min",
        }
    }
}

/// `segment_sum` and its relatives: rows of `x [n, ..]` that have the same id in `ids [n]` (i64 or
/// i32) are combined: `[count, ..]`. Ids outside of `0..count` are left out. Attribute: `count`.
pub fn segment(b: &mut Builder, x: Value, ids: Value, count: usize, how: Segment) -> Value {
    call(b, how.name(), &[x, ids], 1, |types| {
        let (ty, ids) = (&types[0], &types[1]);
        crate::primitive::expect_indices(ids)?;
        if ty.rank() == 0 || ids.shape != ty.shape[..1] {
            return Err(Error::new(format!("{ids} has no id for each row of {ty}")));
        }
        if ty.dtype == DType::Bool {
            return Err(Error::new("needs numbers, but got bool").help("cast first"));
        }
        if how == Segment::Mean {
            expect_float("the operand", ty)?;
        }
        let made = ty.with_shape([&[count], &ty.shape[1..]].concat());
        let attributes = vec![("count", Attribute::Int(count as i64))];
        function(how.name(), attributes, types, |b, x| {
            let added = |b: &mut Builder, x, ids| scattered(b, ScatterKind::Add, &made, x, ids);
            vec![match how {
                Segment::Sum => added(b, x[0], x[1]),
                Segment::Max => scattered(b, ScatterKind::Max, &made, x[0], x[1]),
                Segment::Min => scattered(b, ScatterKind::Min, &made, x[0], x[1]),
                Segment::Product => product(b, x[0], x[1], &made),
                Segment::Mean => {
                    let sum = added(b, x[0], x[1]);
                    let ones = b.full_like(x[0], 1.0);
                    let rows = added(b, ones, x[1]);
                    let one = b.full_like(rows, 1.0);
                    let rows = b.max(rows, one);
                    b.div(sum, rows)
                }
            }]
        })
    })[0]
}

/// Rows combined into what is neutral.
fn scattered(b: &mut Builder, kind: ScatterKind, made: &Type, x: Value, ids: Value) -> Value {
    let neutral = match kind {
        ScatterKind::Max => ReduceKind::Max.identity(made.dtype),
        ScatterKind::Min => ReduceKind::Min.identity(made.dtype),
        _ => Scalar::of(made.dtype, 0.0),
    };
    let start = b.full(made.clone(), neutral);
    let rows = b.ty(ids).shape[0];
    let ids = b.reshape(ids, &[rows, 1]);
    b.emit1(Scatter { batch: 0, indexed: 1, kind, bad: BadIndex::Drop }, &[start, ids, x])
}

/// For every segment the product of all rows, those of others taken as 1.
fn product(b: &mut Builder, x: Value, ids: Value, made: &Type) -> Value {
    let ty = b.ty(x).clone();
    let all = [&made.shape[..1], &ty.shape].concat();
    let id_type = b.ty(ids).with_shape(&all[..]);
    let own = b.broadcast(ids, &all, &[1]);
    let segment = b.iota(id_type, 0);
    let belongs = b.eq(own, segment);
    let x = b.broadcast(x, &all, &(1..all.len()).collect::<Vec<_>>());
    let one = b.full(ty.with_shape(&all[..]), 1i64);
    let factors = b.select(belongs, x, one);
    b.reduce(ReduceKind::Product, factors, &[1])
}

/// `searchsorted`: for every one of `values [.., m]` the first place (i64) in the rising
/// `sorted [.., n]` whose element is not less than it, or, from the `right`, greater than it.
/// Attribute: `right`.
pub fn searchsorted(b: &mut Builder, sorted: Value, values: Value, right: bool) -> Value {
    call(b, "searchsorted", &[sorted, values], 1, |types| {
        let (sorted, values) = (&types[0], &types[1]);
        let lines = |ty: &Type| ty.shape.split_last().map(|(_, lines)| lines.to_vec());
        if lines(sorted).is_none() || lines(sorted) != lines(values) || sorted.dtype != values.dtype
        {
            return Err(Error::new(format!("{sorted} and {values} are not [.., n] and [.., m]")));
        }
        let (last, n) = (sorted.rank() - 1, sorted.shape[sorted.rank() - 1]);
        let attributes = vec![("right", Attribute::Bool(right))];
        function("searchsorted", attributes, types, |b, x| {
            let places = b.ty(x[1]).with_dtype(DType::I64);
            let (mut low, mut high) =
                (b.full(places.clone(), 0i64), b.full(places.clone(), n as i64));
            let (one, two) = (b.full(places.clone(), 1i64), b.full(places, 2i64));
            // Every step halves what is left.
            for _ in 0..usize::BITS - n.leading_zeros() {
                let sum = b.add(low, high);
                let middle = b.div(sum, two);
                let element = b.take_along(x[0], middle, last, BadIndex::Clip);
                let below = if right { b.le(element, x[1]) } else { b.lt(element, x[1]) };
                let open = b.lt(low, high);
                let up = b.and(below, open);
                let next = b.add(middle, one);
                low = b.select(up, next, low);
                high = b.select(up, high, middle);
            }
            vec![low]
        })
    })[0]
}

/// `nonzero`: places (i64 `[count, rank]`) of the first `count` true elements of a bool `mask`,
/// row-major, and how many there are in all (i64 scalar). Rows without one hold the sizes of the
/// mask: places outside. Attribute: `count`.
pub fn nonzero(b: &mut Builder, mask: Value, count: usize) -> (Value, Value) {
    let results = call(b, "nonzero", &[mask], 2, |types| {
        let ty = &types[0];
        super::expect_dtype("the mask", ty, DType::Bool)?;
        let (n, rank) = (ty.elements(), ty.rank());
        let attributes = vec![("count", Attribute::Int(count as i64))];
        function("nonzero", attributes, types, |b, x| {
            let mask = b.reshape(x[0], &[n]);
            let line = Type::new(DType::I64, [n]);
            let ones = b.cast(mask, DType::I64);
            let run = Cumulative { kind: ReduceKind::Sum, dim: 0, reverse: false };
            let run = b.emit1(run, &[ones]);
            let one = b.full(line.clone(), 1i64);
            let rank_of = b.sub(run, one);
            // Elements that are false go nowhere.
            let nowhere = b.full(line.clone(), -1i64);
            let to = b.select(mask, rank_of, nowhere);
            let to = b.reshape(to, &[n, 1]);
            let columns: Vec<Value> = (0..rank)
                .map(|d| {
                    let outside = b.full(Type::new(DType::I64, [count]), ty.shape[d] as i64);
                    let place = b.iota(ty.with_dtype(DType::I64), d);
                    let place = b.reshape(place, &[n]);
                    let (kind, bad) = (ScatterKind::Set, BadIndex::Drop);
                    let put = Scatter { batch: 0, indexed: 1, kind, bad };
                    let column = b.emit1(put, &[outside, to, place]);
                    b.reshape(column, &[count, 1])
                })
                .collect();
            let places = match rank {
                0 => b.full(Type::new(DType::I64, [count, 0]), 0i64),
                _ => b.concatenate(&columns, 1),
            };
            vec![places, b.sum(ones, &[0])]
        })
    });
    (results[0], results[1])
}
