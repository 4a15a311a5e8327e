//! For tests, of this crate and of those above it: seeded random numbers, literals and programs,
//! and checks of transforms against what they mean.
//!
//! | file | what |
//! |---|---|
//! | `check` | derivatives against finite differences, `vmap` against a loop |
//! | `case` | random nodes of every primitive |
//! | `program` | random programs made of such nodes |
//! | `fuzz` | mutations of good input, for parsers |

mod case;
mod check;
mod fuzz;
mod program;

pub use case::{Case, Domain, case};
pub use check::{
    Difference, check_batch, check_gradient, check_second_derivative, evaluate, function_of,
};
pub use fuzz::fuzz;
pub use program::{Options, property_programs, random_arguments, random_program};

use crate::DType;
use crate::literal::{Literal, Scalar};
use crate::primitive::random::random_block;
use crate::types::Type;

/// A seeded source of random numbers, the same on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 2],
    drawn: u64,
}

impl Random {
    /// The stream number `seed`.
    pub fn new(seed: u64) -> Self {
        Random { key: [seed as u32, (seed >> 32) as u32], drawn: 0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, ..] = random_block(self.key, self.drawn);
        self.drawn += 1;
        u64::from(a) << 32 | u64::from(b)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// A number between `low` and `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the items, of which there must be some.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Uniform in `low..high`.
    pub fn float(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// A value of type `ty`: floats uniform in -1..1, integers in 0..4, fair truth values.
    pub fn literal(&mut self, ty: &Type) -> Literal {
        let dtype = ty.dtype;
        let top = if dtype == DType::Bool { 2 } else { 4 };
        let x = Literal::build(ty.clone(), |_| {
            if dtype.is_float() {
                Scalar::Float(self.float(-1.0, 1.0))
            } else {
                Scalar::Int(self.below(top) as i64)
            }
        });
        x.rounded()
    }
}
