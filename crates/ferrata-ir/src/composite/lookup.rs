//! Embedding tables and dropout.

use super::{
    Keep, Own, call, expect_dtype, expect_float, expect_shape, function, number, with_own,
};
use crate::DType;
use crate::error::{Error, Result};
use crate::primitive::{Attribute, BadIndex};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::sync::Arc;

/// `embedding`: rows of `table [N, D..]` at `ids [..]` (i64 or i32), `[.., D..]`. Ids outside give
/// zeros. The row `padding`, if given, gets no gradient. Attribute: `padding`, only if given.
pub fn embedding(b: &mut Builder, table: Value, ids: Value, padding: Option<i64>) -> Value {
    call(b, "embedding", &[table, ids], 1, |types| {
        expect_float("the table", &types[0])?;
        if types[0].rank() == 0 {
            return Err(Error::new("a scalar is no table").help("give it a row for each id"));
        }
        if !matches!(types[1].dtype, DType::I64 | DType::I32) {
            return Err(Error::new(format!("ids are {}, not i64 or i32", types[1]))
                .help("cast them, for example with .cast(i64)"));
        }
        let attributes = padding.map(|p| ("padding", Attribute::Int(p))).into_iter().collect();
        function("embedding", attributes, types, |b, x| {
            let rows = b.take(x[0], x[1], 0, BadIndex::Drop);
            let Some(padding) = padding else { return vec![rows] };
            let padding = b.full(types[1].clone(), padding);
            let is_padding = b.eq(x[1], padding);
            let shape = b.ty(rows).shape.clone();
            let dims: Vec<usize> = (0..types[1].rank()).collect();
            let is_padding = b.broadcast(is_padding, &shape, &dims);
            let still = b.stop_gradient(rows);
            vec![b.select(is_padding, still, rows)]
        })
    })[0]
}

/// `dropout`: each element of `x` becomes 0 with probability `rate`, else it is divided by
/// `1 - rate`. Bits come from the `key` u32`[2]`, and come again in the backward pass, so that
/// nothing but the key is kept. Backward: `dropout_backward(key, dy) -> dx`. Attribute: `rate`.
pub fn dropout(b: &mut Builder, x: Value, key: Value, rate: f64) -> Value {
    call(b, "dropout", &[x, key], 1, |types| dropout_function(types, rate))[0]
}

fn dropout_function(types: &[Type], rate: f64) -> Result<Arc<Function>> {
    expect_float("the operand", &types[0])?;
    expect_dtype("the key", &types[1], DType::U32)?;
    expect_shape("the key", &types[1], &[2])?;
    if !(0.0..=1.0).contains(&rate) {
        return Err(Error::new(format!("rate {rate} is not between 0 and 1")));
    }
    let drop = |b: &mut Builder, x: Value, key: Value| {
        let zero = b.zeros_like(x);
        if rate >= 1.0 {
            return zero;
        }
        let bits = b.random_bits(key, &types[0].shape);
        let threshold = (rate * 2f64.powi(32)).min(f64::from(u32::MAX)) as i64;
        let threshold = b.full(b.ty(bits).clone(), threshold);
        let keep = b.ge(bits, threshold);
        let scaled = b.scale(x, 1.0 / (1.0 - rate));
        b.select(keep, scaled, zero)
    };
    let attributes = vec![("rate", number(rate))];
    let own = Own {
        names: ("dropout", "dropout_backward"),
        forward: function("dropout", attributes, types, |b, x| vec![drop(b, x[0], x[1])])?,
        results: 1,
        keep: &[Keep::Input(1)],
    };
    with_own(own, |b, kept, dy| vec![drop(b, dy[0], kept[0])])
}
