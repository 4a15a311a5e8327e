//! Loops with carried state. Their derivatives are in `scan/derivative.rs`.

mod derivative;

use super::control::expect_arguments;
use super::{Attribute, AttributeValue, Loops, Operand, Rules, Tangents};
use crate::error::{Error, Result};
use crate::evaluate::Evaluator;
use crate::literal::Literal;
use crate::program::{Builder, Function, Value};
use crate::transform::batch;
use crate::types::Type;
use std::sync::Arc;

/// What the backward pass finds of the forward pass's intermediate values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Save {
    /// Those of every iteration.
    All,
    /// The carries before every `k`-th iteration; the rest is computed again, `k` iterations at a
    /// time.
    Every(usize),
    /// Nothing but the operands; all iterations are computed again.
    None,
}

impl AttributeValue for Save {
    fn to_attribute(&self) -> Attribute {
        match self {
            Save::All => Attribute::Word("all".into()),
            Save::Every(k) => k.to_attribute(),
            Save::None => Attribute::Word("none".into()),
        }
    }

    fn from_attribute(a: Attribute) -> Option<Self> {
        match a {
            Attribute::Word(w) if w == "all" => Some(Save::All),
            Attribute::Word(w) if w == "none" => Some(Save::None),
            other => usize::from_attribute(other).map(Save::Every),
        }
    }
}

/// Applies `body` `length` times. Operands: `constants`, initial `carries`, then stacked inputs
/// with a leading dimension of `length`. Body: `(constants, carries, one slice of each stacked
/// input) -> (carries, slices)`. Results: the last carries, then the stacked slices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// One iteration.
    pub body: Arc<Function>,
    /// How many operands are the same in every iteration.
    pub constants: usize,
    /// How many values go from one iteration to the next.
    pub carries: usize,
    /// Number of iterations.
    pub length: usize,
    /// Whether the last slices come first.
    pub reverse: bool,
    /// What a backward pass finds.
    pub save: Save,
}

super::attribute::attributes!(Scan { body, constants, carries, length, reverse, save });

impl Scan {
    /// Operands, or anything that there is one of for each operand, by their parts: constants,
    /// carries, stacked inputs.
    pub fn parts<'a, T>(&self, all: &'a [T]) -> (&'a [T], &'a [T], &'a [T]) {
        let (constants, rest) = all.split_at(self.constants);
        let (carries, stacked) = rest.split_at(self.carries);
        (constants, carries, stacked)
    }

    /// A value of every iteration, for a value of one.
    fn stacked(&self, slice: &Type) -> Type {
        slice.with_shape([&[self.length], &slice.shape[..]].concat())
    }
}

/// Elements `i` along the leading dimension.
fn slice(x: &Literal, i: usize) -> Literal {
    let ty = x.ty.with_shape(&x.ty.shape[1..]);
    let n = ty.elements();
    Literal::build(ty, |j| x.get(i * n + j))
}

impl Rules for Scan {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
        let (given, results) = (self.body.parameter_types(), self.body.result_types());
        if inputs.len() != given.len()
            || given.len() < self.constants + self.carries
            || results.len() < self.carries
        {
            let (name, n, m) = (&self.body.name, given.len(), inputs.len());
            return Err(Error::new(format!(
                "body `{name}` takes {n} parameters and gives {} results, which does not fit {} \
                 constants and {} carries of {m} operands",
                results.len(),
                self.constants,
                self.carries
            )));
        }
        if self.save == Save::Every(0) {
            return Err(Error::new("cannot save every 0 iterations").help("use at least 1"));
        }
        let (_, _, stacked) = self.parts(inputs);
        let mut one: Vec<Type> = inputs.iter().map(|&t| t.clone()).collect();
        for (ty, slot) in stacked.iter().zip(&mut one[self.constants + self.carries..]) {
            if ty.shape.first() != Some(&self.length) {
                return Err(Error::new(format!("{ty} is not stacked {} times", self.length)));
            }
            slot.shape.remove(0);
        }
        expect_arguments(&self.body, &one.iter().collect::<Vec<_>>())?;
        let (_, carries, _) = self.parts(&one);
        for (i, (before, after)) in carries.iter().zip(&results).enumerate() {
            if before != *after {
                let name = &self.body.name;
                return Err(Error::new(format!(
                    "carry {i} enters `{name}` as {before} and leaves as {after}"
                )));
            }
        }
        let slices = results[self.carries..].iter().map(|t| self.stacked(t));
        Ok(carries.iter().cloned().chain(slices).collect())
    }

    fn loops(&self, _: &[&Type]) -> Option<Loops> {
        None
    }

    fn evaluate(
        &self,
        cx: &Evaluator,
        inputs: &[&Literal],
        outputs: &[&Type],
    ) -> Result<Vec<Literal>> {
        let (constants, carries, stacked) = self.parts(inputs);
        let mut carries: Vec<Literal> = carries.iter().map(|&c| c.clone()).collect();
        let mut rows: Vec<Vec<Literal>> = Vec::new();
        for step in 0..self.length {
            let i = if self.reverse { self.length - 1 - step } else { step };
            let slices: Vec<Literal> = stacked.iter().map(|x| slice(x, i)).collect();
            let args: Vec<&Literal> =
                constants.iter().copied().chain(&carries).chain(&slices).collect();
            let mut results = cx.call(&self.body, &args)?;
            rows.push(results.split_off(self.carries));
            carries = results;
        }
        if self.reverse {
            rows.reverse();
        }
        let stack = |(k, ty): (usize, &&Type)| {
            let n: usize = ty.shape[1..].iter().product();
            Literal::build((*ty).clone(), |i| rows[i / n][k].get(i % n))
        };
        let stacks: Vec<Literal> = outputs[self.carries..].iter().enumerate().map(stack).collect();
        Ok(carries.into_iter().chain(stacks).collect())
    }

    fn jvp(
        &self,
        b: &mut Builder,
        x: &[Value],
        y: &mut Vec<Value>,
        dx: &[Option<Value>],
    ) -> Result<Tangents> {
        match self.save {
            _ if !b.reverse() => self.forward_mode(b, x, y, dx),
            Save::All => self.reverse_mode(b, x, y, dx),
            Save::Every(k) => self.in_segments(k.min(self.length), b, x, y, dx),
            Save::None => self.in_segments(self.length, b, x, y, dx),
        }
    }

    fn transpose(
        &self,
        b: &mut Builder,
        inputs: &[Operand],
        dy: &[Option<Value>],
    ) -> Result<Tangents> {
        self.transpose_linear(b, inputs, dy)
    }

    fn batch(
        &self,
        b: &mut Builder,
        inputs: &[Value],
        batched: &[bool],
        size: usize,
    ) -> Result<Vec<Value>> {
        // A carry is batched if it starts so or becomes so in some iteration.
        let mut marks = batched.to_vec();
        loop {
            let found = batch::depends(&self.body, &marks);
            let carries = &mut marks[self.constants..][..self.carries];
            let grows = carries.iter().zip(&found).any(|(c, f)| !c && *f);
            carries.iter_mut().zip(found).for_each(|(c, f)| *c |= f);
            if !grows {
                break;
            }
        }
        let (_, carried, _) = self.parts(&marks);
        let mut required = carried.to_vec();
        required.resize(self.body.results().len(), true);
        let body = batch::batched(&self.body, &marks, &required, size)?;
        let mut args = inputs.to_vec();
        for (i, arg) in args.iter_mut().enumerate() {
            let is_carry = (self.constants..self.constants + self.carries).contains(&i);
            if is_carry && marks[i] && !batched[i] {
                *arg = b.add_batch(*arg, size);
            } else if i >= self.constants + self.carries && batched[i] {
                *arg = b.move_dim(*arg, 0, 1);
            }
        }
        let mut results = b.emit(Scan { body, ..self.clone() }, &args);
        for (i, result) in results.iter_mut().enumerate() {
            if i >= self.carries {
                *result = b.move_dim(*result, 0, 1);
            } else if !carried[i] {
                *result = b.add_batch(*result, size);
            }
        }
        Ok(results)
    }
}
