//! Counter-based random bits: Philox 4×32-10 (Salmon et al. 2011), keyed by explicit keys. Bits
//! depend on the key and on the element's index alone, so they are the same on any device, thread
//! count and sharding.

use super::attribute::attributes;
use super::{Loops, Rules, expect_inputs, integer_results};
use crate::DType;
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::{Literal, Scalar};
use crate::program::{Builder, Value};
use crate::types::Type;

/// Random bits for each key: keys u32`[.., 2]` give u32`[.., shape]`. Element `i` (row-major in
/// `shape`) is word `i % 4` of [`philox`] at counter `i / 4`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RandomBits {
    /// Shape of the bits of one key.
    pub shape: Vec<usize>,
}

attributes!(RandomBits { shape });

/// New keys from keys u32`[.., 2]` and data u32`[..]`; different data give independent keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FoldKey {}

attributes!(FoldKey {});

/// The block cipher Philox 4×32 with 10 rounds.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let (left, right) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
        counter = [
            (right >> 32) as u32 ^ b ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ d ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Words `4 block ..` of the random bits of a key.
pub fn random_block(key: [u32; 2], block: u64) -> [u32; 4] {
    philox([block as u32, (block >> 32) as u32, 0, 0], key)
}

/// The key that `data` makes of `key`. The last counter word keeps this apart from random bits.
pub fn fold_key(key: [u32; 2], data: u32) -> [u32; 2] {
    let [a, b, ..] = philox([data, 0, 0, 1], key);
    [a, b]
}

/// Checks for keys u32`[.., 2]` and gives their leading shape.
fn expect_keys(ty: &Type) -> Result<Vec<usize>> {
    match ty.shape.split_last() {
        Some((2, leading)) if ty.dtype == DType::U32 => Ok(leading.to_vec()),
        _ => Err(Error::new(format!("keys are {ty}, but must be u32[.., 2]"))),
    }
}

fn key_at(keys: &Literal, i: usize) -> [u32; 2] {
    [0, 1].map(|word| keys.get(2 * i + word).as_i64() as u32)
}

impl Rules for RandomBits {
    fn name(&self) -> &'static str {
        "random_bits"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 1)?;
        let mut shape = expect_keys(inputs[0])?;
        shape.extend(&self.shape);
        Ok(vec![Type::new(DType::U32, shape)])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let each: usize = self.shape.iter().product();
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            let (key, i) = (key_at(inputs[0], i / each), i % each);
            Scalar::Int(i64::from(random_block(key, i as u64 / 4)[i % 4]))
        })])
    }

    integer_results!();

    fn batch(&self, b: &mut Builder, inputs: &[Value], _: &[bool], _: usize) -> Result<Vec<Value>> {
        Ok(b.emit(self.clone(), inputs))
    }
}

impl Rules for FoldKey {
    fn name(&self) -> &'static str {
        "fold_key"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        expect_inputs(inputs, 2)?;
        let want = Type::new(DType::U32, expect_keys(inputs[0])?);
        if *inputs[1] != want {
            return Err(Error::new(format!("data is {}, not {want}", inputs[1])));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        _: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        Ok(vec![Literal::build(outputs[0].clone(), |i| {
            let data = inputs[1].get(i / 2).as_i64() as u32;
            Scalar::Int(i64::from(fold_key(key_at(inputs[0], i / 2), data)[i % 2]))
        })])
    }

    integer_results!();

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        let inputs = b.batch_all(inputs, batched, size);
        Ok(b.emit(self.clone(), &inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123.
    #[test]
    fn philox_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox(counter, key), want);
        }
    }
}
