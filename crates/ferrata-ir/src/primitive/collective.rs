//! Collectives: what the program of one rank does together with other ranks.
//!
//! They stand only in programs that a mesh has been cut out of, behind differentiation and
//! batching. A `group` lists the ranks that take part; all of them have the same node at the same
//! place of their programs, and nothing reorders collectives.

use super::attribute::attributes;
use super::{Loops, Operand, ReduceKind, Rules, Tangents, expect_dim, expect_inputs, unsupported};
use crate::DType;
use crate::communicator::{Communicator, split, split_mut};
use crate::error::{Error, Result};
use crate::evaluate::{Evaluator, Precision};
use crate::literal::{Elements, Literal};
use crate::program::{Builder, Value};
use crate::types::Type;

/// The combination of the operands of all members, on every member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllReduce {
    /// How operands are combined.
    pub kind: ReduceKind,
    /// The ranks that take part.
    pub group: Vec<usize>,
}

attributes!(AllReduce { kind, group });

/// The operands of all members, one after the other along `dim`, on every member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllGather {
    /// The dimension along which sizes add up.
    pub dim: usize,
    /// The ranks that take part.
    pub group: Vec<usize>,
    /// The size of each member's operand along `dim`.
    pub sizes: Vec<usize>,
}

attributes!(AllGather { dim, group, sizes });

/// The combination of the operands of all members, of which each member gets one part along `dim`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReduceScatter {
    /// How operands are combined.
    pub kind: ReduceKind,
    /// The dimension that is cut.
    pub dim: usize,
    /// The ranks that take part.
    pub group: Vec<usize>,
    /// The size of each member's part along `dim`.
    pub sizes: Vec<usize>,
    /// Which member this is.
    pub place: usize,
}

attributes!(ReduceScatter { kind, dim, group, sizes, place });

/// Every member cuts its operand along `split` and gives each member a part; what a member gets is
/// put together along `join`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllToAll {
    /// The dimension that is cut.
    pub split: usize,
    /// The size of each member's result along `split`.
    pub split_sizes: Vec<usize>,
    /// The dimension that is put together.
    pub join: usize,
    /// The size of each member's operand along `join`.
    pub join_sizes: Vec<usize>,
    /// The ranks that take part.
    pub group: Vec<usize>,
    /// Which member this is.
    pub place: usize,
}

attributes!(AllToAll { split, split_sizes, join, join_sizes, group, place });

/// Passes the operand on to other ranks, without waiting for them, and gives what comes from
/// another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permute {
    /// The ranks that get the operand.
    pub to: Vec<usize>,
    /// The rank whose operand this is the result of; nothing comes if there is none.
    pub from: Option<usize>,
    /// The type of what comes; without elements if nothing does.
    pub ty: Type,
}

attributes!(Permute { to, from, ty });

/// Checks that there is a member for each size, and that the sizes are those of the dimension.
fn expect_parts(
    ty: &Type,
    dim: usize,
    group: &[usize],
    sizes: &[usize],
    whole: bool,
) -> Result<()> {
    expect_dim(ty, dim)?;
    let size = ty.shape[dim];
    let fits = if whole { sizes.iter().sum::<usize>() == size } else { sizes.contains(&size) };
    if sizes.len() == group.len() && fits {
        return Ok(());
    }
    Err(Error::new(format!(
        "ranks {group:?} cannot have parts {sizes:?} of dimension {dim} of {ty}"
    )))
}

fn with_size(ty: &Type, dim: usize, size: usize) -> Type {
    let mut shape = ty.shape.clone();
    shape[dim] = size;
    ty.with_shape(shape)
}

/// How many times a dimension is run through, and how many elements stand at each of its indices.
fn rows(ty: &Type, dim: usize) -> (usize, usize) {
    let outer = ty.shape[..dim].iter().product();
    let inner = ty.shape[dim + 1..].iter().product();
    (outer, inner)
}

/// Calls `copy(packed, strided, length)`, in elements, for every run of the elements that part `i`
/// of `sizes` along `dim` has: the parts one after the other, against their places in `ty`.
fn each_run(ty: &Type, dim: usize, sizes: &[usize], mut copy: impl FnMut(usize, usize, usize)) {
    let (outer, inner) = rows(ty, dim);
    let whole: usize = sizes.iter().sum();
    let (mut packed, mut first) = (0, 0);
    for &size in sizes {
        for row in 0..outer {
            copy(packed, (row * whole + first) * inner, size * inner);
            packed += size * inner;
        }
        first += size;
    }
}

/// The bytes of each part along a dimension.
fn part_bytes(ty: &Type, dim: usize, sizes: &[usize]) -> Vec<usize> {
    let (outer, inner) = rows(ty, dim);
    sizes.iter().map(|size| outer * size * inner * ty.dtype.size()).collect()
}

impl AllReduce {
    /// Combines `data` in place.
    ///
    /// # Errors
    /// When a member is lost.
    pub fn run(&self, with: &dyn Communicator, dtype: DType, data: &mut [u8]) -> Result<()> {
        with.all_reduce(&self.group, self.kind, dtype, data)
    }
}

impl AllGather {
    /// From this member's bytes to the bytes of all, in the order of the group.
    ///
    /// # Errors
    /// When a member is lost.
    pub fn run(
        &self,
        with: &dyn Communicator,
        to: &Type,
        part: &[u8],
        all: &mut [u8],
    ) -> Result<()> {
        with.all_gather(&self.group, part, &part_bytes(to, self.dim, &self.sizes), all)
    }
}

impl ReduceScatter {
    /// From the bytes of all parts, one after the other, to those of this member's part.
    ///
    /// # Errors
    /// When a member is lost.
    pub fn run(
        &self,
        with: &dyn Communicator,
        of: &Type,
        all: &[u8],
        part: &mut [u8],
    ) -> Result<()> {
        let sizes = part_bytes(of, self.dim, &self.sizes);
        with.reduce_scatter(&self.group, self.kind, of.dtype, all, &sizes, part)
    }
}

impl AllToAll {
    /// From the bytes of all parts along `split` to those of all parts along `join`.
    ///
    /// # Errors
    /// When a member is lost.
    pub fn run(
        &self,
        with: &dyn Communicator,
        (from, to): (&Type, &Type),
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        let parts = split(send, &part_bytes(from, self.split, &self.split_sizes));
        let mut places = split_mut(receive, &part_bytes(to, self.join, &self.join_sizes));
        with.exchange(&self.group, &parts, &mut places)
    }
}

impl Permute {
    /// Sends bytes and receives others.
    ///
    /// # Errors
    /// When a member is lost.
    pub fn run(&self, with: &dyn Communicator, send: &[u8], receive: &mut [u8]) -> Result<()> {
        if self.to.iter().chain(&self.from).any(|&rank| rank == with.rank()) {
            return Err(Error::new("a rank cannot pass a value on to itself"));
        }
        self.to.iter().try_for_each(|&to| with.post(to, send))?;
        self.from.map_or(Ok(()), |from| with.receive(from, receive))
    }
}

/// How the evaluator's values travel: rounded, or as the f64 and i64 that they are.
struct Travelling {
    dtype: DType,
    exact: bool,
}

impl Travelling {
    fn of(cx: &Evaluator, ty: &Type) -> Travelling {
        let exact = cx.precision() == Precision::Exact && ty.dtype.is_float();
        Travelling { dtype: if exact { DType::F64 } else { ty.dtype }, exact }
    }

    fn ty(&self, ty: &Type) -> Type {
        Type { dtype: self.dtype, ..ty.clone() }
    }

    fn bytes(&self, x: &Literal) -> Vec<u8> {
        match &x.elements {
            Elements::Float(v) if self.exact => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => x.to_bytes(),
        }
    }

    fn literal(&self, ty: &Type, bytes: &[u8]) -> Result<Literal> {
        let mut x = Literal::from_bytes(self.ty(ty), bytes)?;
        x.ty = ty.clone();
        Ok(x)
    }

    /// The parts of a value along a dimension, one after the other.
    fn packed(&self, x: &Literal, dim: usize, sizes: &[usize]) -> Vec<u8> {
        let (size, bytes) = (self.dtype.size(), self.bytes(x));
        let mut out = vec![0; bytes.len()];
        each_run(&x.ty, dim, sizes, |packed, strided, n| {
            out[packed * size..][..n * size].copy_from_slice(&bytes[strided * size..][..n * size]);
        });
        out
    }

    /// The value whose parts along a dimension are `bytes`.
    fn unpacked(&self, ty: &Type, dim: usize, sizes: &[usize], bytes: &[u8]) -> Result<Literal> {
        let size = self.dtype.size();
        let mut out = vec![0; bytes.len()];
        each_run(ty, dim, sizes, |packed, strided, n| {
            out[strided * size..][..n * size].copy_from_slice(&bytes[packed * size..][..n * size]);
        });
        self.literal(ty, &out)
    }
}

macro_rules! collective {
    ($name:ident, $text:literal, $infer:expr, $evaluate:expr) => {
        impl Rules for $name {
            fn name(&self) -> &'static str {
                $text
            }

            fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>> {
                expect_inputs(inputs, 1)?;
                let infer: fn(&$name, &Type) -> Result<Type> = $infer;
                Ok(vec![infer(self, inputs[0])?])
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
                let (with, way) = (cx.communicator()?, Travelling::of(cx, &inputs[0].ty));
                let evaluate: fn(&$name, &dyn Communicator, Travelling, &Literal, &Type) -> _ =
                    $evaluate;
                Ok(vec![evaluate(self, with, way, inputs[0], outputs[0])?])
            }

            fn jvp(
                &self,
                _: &mut Builder,
                _: &[Value],
                _: &mut Vec<Value>,
                _: &[Option<Value>],
            ) -> Result<Tangents> {
                unsupported("collectives are put in after differentiation")
            }

            fn transpose(
                &self,
                _: &mut Builder,
                _: &[Operand],
                _: &[Option<Value>],
            ) -> Result<Tangents> {
                unsupported("collectives are put in after differentiation")
            }

            fn batch(
                &self,
                _: &mut Builder,
                _: &[Value],
                _: &[bool],
                _: usize,
            ) -> Result<Vec<Value>> {
                Err(Error::new("collectives are put in after batching"))
            }
        }
    };
}

collective!(
    AllReduce,
    "all_reduce",
    |op, x| op.kind.accepts(x.dtype).map(|()| x.clone()),
    |op, with, way, x, to| {
        let mut bytes = way.bytes(x);
        op.run(with, way.dtype, &mut bytes)?;
        way.literal(to, &bytes)
    }
);

collective!(
    AllGather,
    "all_gather",
    |op, x| {
        expect_parts(x, op.dim, &op.group, &op.sizes, false)?;
        Ok(with_size(x, op.dim, op.sizes.iter().sum()))
    },
    |op, with, way, x, to| {
        let mut all = vec![0; way.ty(to).bytes()];
        op.run(with, &way.ty(to), &way.bytes(x), &mut all)?;
        way.unpacked(to, op.dim, &op.sizes, &all)
    }
);

collective!(
    ReduceScatter,
    "reduce_scatter",
    |op, x| {
        op.kind.accepts(x.dtype)?;
        expect_parts(x, op.dim, &op.group, &op.sizes, true)?;
        let size = op.sizes.get(op.place).copied();
        let size = size.ok_or_else(|| Error::new(format!("there is no member {}", op.place)))?;
        Ok(with_size(x, op.dim, size))
    },
    |op, with, way, x, to| {
        let mut part = vec![0; way.ty(to).bytes()];
        op.run(with, &way.ty(&x.ty), &way.packed(x, op.dim, &op.sizes), &mut part)?;
        way.literal(to, &part)
    }
);

collective!(
    AllToAll,
    "all_to_all",
    |op, x| {
        expect_parts(x, op.split, &op.group, &op.split_sizes, true)?;
        expect_parts(x, op.join, &op.group, &op.join_sizes, false)?;
        let mine = op.split_sizes.get(op.place).copied();
        let mine = mine.ok_or_else(|| Error::new(format!("there is no member {}", op.place)))?;
        if op.split == op.join {
            return Err(Error::new("a dimension cannot be cut and put together at once"));
        }
        Ok(with_size(&with_size(x, op.split, mine), op.join, op.join_sizes.iter().sum()))
    },
    |op, with, way, x, to| {
        let send = way.packed(x, op.split, &op.split_sizes);
        let mut receive = vec![0; way.ty(to).bytes()];
        op.run(with, (&way.ty(&x.ty), &way.ty(to)), &send, &mut receive)?;
        way.unpacked(to, op.join, &op.join_sizes, &receive)
    }
);

collective!(
    Permute,
    "permute",
    |op, x| match op.ty.dtype == x.dtype {
        true => Ok(op.ty.clone()),
        false => Err(Error::new(format!("{} comes where {x} goes", op.ty))),
    },
    |op, with, way, x, to| {
        let mut receive = vec![0; way.ty(to).bytes()];
        op.run(with, &way.bytes(x), &mut receive)?;
        way.literal(to, &receive)
    }
);
