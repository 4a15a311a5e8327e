//! Rotary positions.

use super::{call, expect_dtype, expect_float, function};
use crate::DType;
use crate::error::{Error, Result};
use crate::literal::Literal;
use crate::primitive::{AttributeValue, Dense, attribute_words};
use crate::program::{Builder, Value};
use crate::types::Type;
use std::sync::Arc;

/// Which elements of a head of size `D` are rotated together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// `j` and `j + D / 2`, as Llama has it.
    #[default]
    Half,
    /// `2 j` and `2 j + 1`, as GPT-J has it.
    Interleaved,
}

attribute_words!(Pairing { Half => "half", Interleaved => "interleaved" });

/// Frequencies `theta^(-2 j / size)` of a head of that size, in radians per position.
pub fn rope_frequencies(theta: f64, size: usize) -> Vec<f64> {
    (0..size / 2).map(|j| theta.powf(-2.0 * j as f64 / size as f64)).collect()
}

/// `rope_table`: cosine and sine, `[.., frequencies]` in `dtype`, of the angles
/// `position * frequency` for i64 `positions [..]`. Angles are f64, so that far positions keep
/// their digits. One table serves all layers.
pub fn rope_table(
    b: &mut Builder,
    positions: Value,
    frequencies: &[f64],
    dtype: DType,
) -> (Value, Value) {
    let results = call(b, "rope_table", &[positions], 2, |types| {
        expect_dtype("positions", &types[0], DType::I64)?;
        expect_float("the table", &Type::scalar(dtype))?;
        let n = frequencies.len();
        function("rope_table", vec![], types, |b, x| {
            let list = Literal::float(Type::new(DType::F64, [n]), frequencies.to_vec());
            let list = b.emit1(Dense { value: Arc::new(list) }, &[]);
            let mut shape = types[0].shape.clone();
            shape.push(n);
            let list = b.broadcast(list, &shape, &[shape.len() - 1]);
            let x = b.cast(x[0], DType::F64);
            let x = b.broadcast_reduced(x, &shape, &[shape.len() - 1]);
            let angle = b.mul(x, list);
            let (cos, sin) = (b.cos(angle), b.sin(angle));
            vec![b.cast(cos, dtype), b.cast(sin, dtype)]
        })
    });
    (results[0], results[1])
}

/// `rope`: rotates each pair `(p, q)` of the last dimension of `x [.., T, D]` to
/// `(p cos - q sin, q cos + p sin)`. The tables have shape `[.., T, D / 2]` in the dtype of `x`,
/// aligned at the last dimensions and repeated along dimensions of size 1. Attribute: `pairing`.
pub fn rope(b: &mut Builder, x: Value, cos: Value, sin: Value, pairing: Pairing) -> Value {
    call(b, "rope", &[x, cos, sin], 1, |types| {
        let shape = check(types)?;
        function("rope", vec![("pairing", pairing.to_attribute())], types, |b, v| {
            // The two members of a pair along a dimension of their own.
            let (half, rank) = (shape[shape.len() - 1], shape.len());
            let (pair, member) = match pairing {
                Pairing::Half => (rank - 1, rank),
                Pairing::Interleaved => (rank, rank - 1),
            };
            let mut split = shape.clone();
            split.insert(pair, 2);
            let x = b.reshape(v[0], &split);
            let place: Vec<usize> = (0..rank - 1).chain([member]).collect();
            let table = |b: &mut Builder, t: Value| {
                let skip = rank - b.ty(t).rank();
                b.broadcast(t, &split, &place[skip..])
            };
            let (cos, sin) = (table(b, v[1]), table(b, v[2]));
            let second = b.iota(Type::new(DType::I64, split.clone()), pair);
            let zero = b.full(b.ty(second).clone(), 0i64);
            let is_first = b.eq(second, zero);
            let minus = b.neg(sin);
            let turn = b.select(is_first, minus, sin);
            let straight = b.mul(x, cos);
            let other = b.flip(x, &[pair]);
            let crossed = b.mul(other, turn);
            let y = b.add(straight, crossed);
            debug_assert_eq!(split[member], half);
            vec![b.reshape(y, &types[0].shape)]
        })
    })[0]
}

/// The shape `[.., T, D / 2]` of one member of all pairs.
fn check(types: &[Type]) -> Result<Vec<usize>> {
    expect_float("the operand", &types[0])?;
    let mut shape = types[0].shape.clone();
    match shape.last_mut() {
        Some(size) if *size % 2 == 0 => *size /= 2,
        _ => {
            return Err(Error::new(format!("the last dimension of {} is not even", types[0]))
                .help("rotary positions turn pairs of elements"));
        }
    }
    for table in &types[1..] {
        expect_dtype("a table", table, types[0].dtype)?;
        let fits = table.rank() >= 1
            && table.rank() <= shape.len()
            && table.shape.last() == shape.last()
            && table.shape.iter().rev().zip(shape.iter().rev()).all(|(&a, &s)| a == 1 || a == s);
        if !fits {
            return Err(Error::new(format!("the table {table} does not broadcast to {shape:?}")));
        }
    }
    Ok(shape)
}
