//! Random nodes: for every primitive its attributes, operand types, and what the operands must
//! hold for the result to be finite and smooth.

use super::Random;
use super::program::{Options, random_function};
use crate::DType;
use crate::literal::{Literal, Scalar};
use crate::primitive::elementwise::{self, Signature};
use crate::primitive::*;
use crate::types::Type;
use std::sync::Arc;

/// What an operand may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Domain {
    /// Anything.
    Free,
    /// Floats between the two.
    Range(f64, f64),
    /// Floats 0.8 apart from each other, at this distance (at most 0.1 off) above whole numbers.
    Apart(f64),
    /// Integers from the first to the second, both included.
    Ints(i64, i64),
    /// Matrices with about 2, 3, 4, … on their diagonals and about 0 elsewhere.
    Diagonal,
}

/// Element `i` of the matrices that are `Diagonal`.
pub(super) fn on_diagonal(ty: &Type, i: usize) -> Scalar {
    let [rows, columns] = ty.shape[..].last_chunk::<2>().copied().unwrap_or([1, 1]);
    let (row, column) = (i / columns % rows, i % columns);
    Scalar::Float(if row == column { 2.0 + row as f64 } else { 0.0 })
}

/// A primitive with operands that suit it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is applied.
    pub op: Primitive,
    /// Type of each operand, and what it may hold.
    pub operands: Vec<(Type, Domain)>,
}

impl Case {
    fn new(op: impl Into<Primitive>, operands: Vec<(Type, Domain)>) -> Option<Case> {
        Some(Case { op: op.into(), operands })
    }

    /// Random operands.
    pub fn literals(&self, random: &mut Random) -> Vec<Literal> {
        self.operands.iter().map(|(ty, domain)| domain.literal(ty, random)).collect()
    }
}

impl Domain {
    /// A random value inside.
    pub fn literal(self, ty: &Type, random: &mut Random) -> Literal {
        let n = ty.elements();
        let x = match self {
            Domain::Free => random.literal(ty),
            Domain::Range(low, high) => {
                Literal::build(ty.clone(), |_| Scalar::Float(random.float(low, high)))
            }
            Domain::Apart(above) => {
                let steps = random.permutation(n);
                Literal::build(ty.clone(), |i| {
                    let whole = steps[i] as f64 - (n / 2) as f64;
                    Scalar::Float(whole + above + random.float(-0.1, 0.1))
                })
            }
            Domain::Ints(low, high) => Literal::build(ty.clone(), |_| {
                Scalar::Int(low + random.below((high - low + 1) as usize) as i64)
            }),
            Domain::Diagonal => Literal::build(ty.clone(), |i| {
                Scalar::Float(on_diagonal(ty, i).as_f64() + random.float(-0.1, 0.1))
            }),
        };
        x.rounded()
    }
}

/// Sizes of up to `rank` dimensions.
fn shape(random: &mut Random, options: &Options, rank: usize) -> Vec<usize> {
    let rank = random.between(0, rank);
    (0..rank).map(|_| size(random, options)).collect()
}

fn size(random: &mut Random, options: &Options) -> usize {
    *random.pick(&options.sizes)
}

/// A shape with at least one dimension, and one of its dimensions.
fn shape_and_dim(random: &mut Random, options: &Options) -> (Vec<usize>, usize) {
    let mut shape = shape(random, options, 2);
    let dim = random.between(0, shape.len());
    shape.insert(dim, size(random, options).max(1));
    (shape, dim)
}

fn subset(random: &mut Random, n: usize) -> Vec<usize> {
    (0..n).filter(|_| random.one_in(2)).collect()
}

const ABOVE: [f64; 3] = [0.25, 0.75, 0.5];

/// Values without ties, or any integers.
fn apart(dtype: DType, i: usize) -> Domain {
    if dtype.is_float() { Domain::Apart(ABOVE[i]) } else { Domain::Free }
}

/// Floats around 0, or any integers.
fn small(dtype: DType) -> Domain {
    if dtype.is_float() { Domain::Range(-1.0, 1.0) } else { Domain::Free }
}

/// A random node of the primitive called `name`; `None` if the dtypes of `options` do not allow
/// one, or it never stands in a finished program.
pub fn case(name: &str, random: &mut Random, options: &Options) -> Option<Case> {
    let any = *random.pick(&options.dtypes);
    if let Some(op) = elementwise::find(name) {
        return elementwise_case(op, random, options);
    }
    match name {
        "cast" => {
            let to = *random.pick(&options.dtypes);
            let domain = if to.is_float() { Domain::Free } else { apart(any, 0) };
            Case::new(Cast { dtype: to }, vec![(Type::new(any, shape(random, options, 3)), domain)])
        }
        "constant" | "dense" | "iota" => nullary(name, any, random, options),
        "broadcast" | "reshape" | "transpose" | "slice" | "reverse" | "windows" | "pad"
        | "concatenate" => moving(name, any, random, options),
        "gather" | "scatter" | "dynamic_slice" | "dynamic_update" => {
            indexing(name, any, random, options)
        }
        "reduce" | "arg_reduce" | "cumulative" | "sort" | "top_k" => {
            along(name, any, random, options)
        }
        "dot" => dot(random, options),
        "convolution" => convolution(random, options),
        "dft" => {
            let dtypes = options.dtypes.iter().filter(|d| matches!(d, DType::F32 | DType::F64));
            let dtypes: Vec<DType> = dtypes.copied().collect();
            let dtype = if dtypes.is_empty() { return None } else { *random.pick(&dtypes) };
            let mut shape = shape(random, options, 1);
            shape.extend([size(random, options) + random.between(0, 3), 2]);
            let op = Dft { inverse: random.one_in(2) };
            Case::new(op, vec![(Type::new(dtype, shape), Domain::Free)])
        }
        "factorize" | "triangular_solve" => matrices(name, random, options),
        "random_bits" => {
            let mut keys = shape(random, options, 1);
            keys.push(2);
            let op = RandomBits { shape: shape(random, options, 2) };
            Case::new(op, vec![(Type::new(DType::U32, keys), Domain::Free)])
        }
        "fold_key" => {
            let data = shape(random, options, 2);
            let keys = [&data[..], &[2]].concat();
            let u32s = |shape| (Type::new(DType::U32, shape), Domain::Free);
            Case::new(FoldKey {}, vec![u32s(keys), u32s(data)])
        }
        "stop_gradient" => Case::new(
            StopGradient {},
            vec![(Type::new(any, shape(random, options, 3)), Domain::Free)],
        ),
        "annotate" => {
            let ty = Type::new(any, shape(random, options, 3));
            if ty.rank() == 0 {
                return None;
            }
            let names = vec!["batch"; ty.rank()].join(",");
            Case::new(Annotate { names }, vec![(ty, Domain::Free)])
        }
        "debug_print" => {
            let op = DebugPrint { label: "x".into() };
            Case::new(op, vec![(Type::new(any, shape(random, options, 2)), Domain::Free)])
        }
        "barrier" => {
            let count = random.between(1, 3);
            let operand = |random: &mut Random| {
                (Type::new(*random.pick(&options.dtypes), shape(random, options, 2)), Domain::Free)
            };
            Case::new(Barrier {}, (0..count).map(|_| operand(random)).collect())
        }
        "call" | "scan" | "cond" => control(name, random, options),
        _ => None,
    }
}

fn elementwise_case(
    op: &'static elementwise::ElementwiseOp,
    random: &mut Random,
    options: &Options,
) -> Option<Case> {
    let shape = shape(random, options, 3);
    let accepted = |d: &&DType| match op.signature {
        Signature::Float(_) | Signature::Test => d.is_float(),
        Signature::Number(_) => **d != DType::Bool,
        Signature::Bits(_) => !d.is_float(),
        Signature::Bool(_) => **d == DType::Bool,
        Signature::Compare | Signature::Select => true,
    };
    let dtypes: Vec<DType> = options.dtypes.iter().filter(accepted).copied().collect();
    let dtype = if dtypes.is_empty() { return None } else { *random.pick(&dtypes) };
    let operand = |i: usize| {
        if op.signature == Signature::Select && i == 0 {
            return (Type::new(DType::Bool, shape.clone()), Domain::Free);
        }
        let domain = if dtype.is_float() { float_domain(op.name, i) } else { Domain::Free };
        (Type::new(dtype, shape.clone()), domain)
    };
    Case::new(Elementwise(op), (0..op.signature.operands()).map(operand).collect())
}

/// Where operation `name` is smooth in its operand `i`.
fn float_domain(name: &str, i: usize) -> Domain {
    match (name, i) {
        ("log" | "sqrt" | "rsqrt", _) | ("pow", 0) => Domain::Range(0.3, 2.0),
        ("log1p", _) => Domain::Range(-0.6, 2.0),
        ("asin" | "acos" | "atanh" | "erf_inv", _) => Domain::Range(-0.8, 0.8),
        ("acosh", _) => Domain::Range(1.3, 3.0),
        ("lgamma" | "digamma", _) => Domain::Range(0.6, 3.0),
        ("atan2", _) | ("div", 1) => Domain::Range(0.5, 2.0),
        ("rem", 0) => Domain::Range(2.2, 2.6),
        ("rem", 1) => Domain::Range(0.95, 1.05),
        ("abs" | "sign" | "floor" | "ceil" | "round" | "trunc", _) => Domain::Apart(0.25),
        ("max" | "min" | "clamp" | "eq" | "ne" | "lt" | "le" | "gt" | "ge", _) => {
            Domain::Apart(ABOVE[i])
        }
        ("select" | "neg" | "add" | "sub", _) => Domain::Free,
        _ => Domain::Range(-1.0, 1.0),
    }
}

fn nullary(name: &str, dtype: DType, random: &mut Random, options: &Options) -> Option<Case> {
    let ty = Type::new(dtype, shape(random, options, 3));
    match name {
        "constant" => {
            let value = random.literal(&Type::scalar(dtype)).get(0);
            Case::new(Constant { ty, value }, vec![])
        }
        "dense" => Case::new(Dense { value: Arc::new(random.literal(&ty)) }, vec![]),
        _ => {
            let (shape, dim) = shape_and_dim(random, options);
            Case::new(Iota { ty: ty.with_shape(shape), dim }, vec![])
        }
    }
}

fn moving(name: &str, dtype: DType, random: &mut Random, options: &Options) -> Option<Case> {
    let shape = shape(random, options, 3);
    let rank = shape.len();
    let x = (Type::new(dtype, shape.clone()), Domain::Free);
    match name {
        "broadcast" => {
            let dims = subset(random, rank);
            let one = |d: &usize, random: &mut Random| if random.one_in(4) { 1 } else { shape[*d] };
            let from: Vec<usize> = dims.iter().map(|d| one(d, random)).collect();
            let x = (Type::new(dtype, from), Domain::Free);
            Case::new(Broadcast { shape, dims }, vec![x])
        }
        "reshape" => {
            // Cut the sizes into prime factors, and merge some of them again.
            let mut to: Vec<usize> = Vec::new();
            for &s in &shape {
                if to.is_empty() || random.one_in(2) {
                    to.push(s);
                } else if let Some(last) = to.last_mut() {
                    *last *= s;
                }
                if random.one_in(4) {
                    to.push(1);
                }
            }
            Case::new(Reshape { shape: to }, vec![x])
        }
        "transpose" => Case::new(Transpose { permutation: random.permutation(rank) }, vec![x]),
        "slice" => {
            let start: Vec<usize> = shape.iter().map(|&s| random.between(0, s)).collect();
            let limit = start.iter().zip(&shape).map(|(&a, &s)| random.between(a, s)).collect();
            let stride = shape.iter().map(|_| random.between(1, 2)).collect();
            Case::new(Slice { start, limit, stride }, vec![x])
        }
        "reverse" => Case::new(Reverse { dims: subset(random, rank) }, vec![x]),
        "windows" => {
            let (mut shape, dim) = shape_and_dim(random, options);
            // Enough for a few windows, or for none.
            shape[dim] += random.between(0, 3);
            let mut step = || random.between(1, 3);
            let op = Windows { dim, size: step(), stride: step(), dilation: step() };
            Case::new(op, vec![(Type::new(dtype, shape), Domain::Free)])
        }
        "pad" => {
            let interior: Vec<usize> = shape.iter().map(|_| random.between(0, 1)).collect();
            let inner = |d: usize| (shape[d] + shape[d].saturating_sub(1) * interior[d]) as i64;
            let low: Vec<i64> = (0..rank).map(|_| random.between(0, 2) as i64 - 1).collect();
            let high = (0..rank)
                .map(|d| (random.between(0, 2) as i64 - 1).max(-(inner(d) + low[d])))
                .collect();
            let fill = (Type::scalar(dtype), Domain::Free);
            let low = (0..rank).map(|d| low[d].max(-inner(d))).collect();
            Case::new(Pad { low, high, interior }, vec![x, fill])
        }
        _ => {
            let (shape, dim) = shape_and_dim(random, options);
            let part = |random: &mut Random| {
                let mut shape = shape.clone();
                shape[dim] = size(random, options);
                (Type::new(dtype, shape), Domain::Free)
            };
            let count = random.between(1, 3);
            Case::new(Concatenate { dim }, (0..count).map(|_| part(random)).collect())
        }
    }
}

fn indexing(name: &str, dtype: DType, random: &mut Random, options: &Options) -> Option<Case> {
    let positions_around = Domain::Ints(-1, options.sizes.iter().fold(0, |a, &b| a.max(b)) as i64);
    let starts_type = |rank: usize, random: &mut Random| {
        Type::new(*random.pick(&[DType::I64, DType::I32]), [rank])
    };
    if name == "dynamic_slice" || name == "dynamic_update" {
        let shape = shape(random, options, 3);
        let sizes: Vec<usize> = shape.iter().map(|&s| random.between(0, s)).collect();
        let starts = (starts_type(shape.len(), random), positions_around);
        let x = (Type::new(dtype, shape), Domain::Free);
        let window = (Type::new(dtype, sizes.clone()), Domain::Free);
        return if name == "dynamic_slice" {
            Case::new(DynamicSlice { sizes }, vec![x, starts])
        } else {
            Case::new(DynamicUpdate {}, vec![x, window, starts])
        };
    }
    let (batch, slices) = (shape(random, options, 1), shape(random, options, 1));
    let (addressed, positions) = (shape(random, options, 2), shape(random, options, 2));
    let bad = *random.pick(&[BadIndex::Clip, BadIndex::Drop]);
    let (b, k) = (batch.len(), addressed.len());
    let operand = [&batch[..], &addressed, &slices].concat();
    let updates = [&batch[..], &positions, &slices].concat();
    let mut indices = starts_type(k, random);
    indices.shape = [&batch[..], &positions, &[k]].concat();
    let indices = (indices, positions_around);
    if name == "gather" {
        let x = (Type::new(dtype, operand), Domain::Free);
        return Case::new(Gather { batch: b, indexed: k, bad }, vec![x, indices]);
    }
    let kinds = [ScatterKind::Set, ScatterKind::Add, ScatterKind::Max, ScatterKind::Min];
    let kind = *random.pick(&kinds);
    let numbers: Vec<DType> =
        options.dtypes.iter().filter(|d| **d != DType::Bool).copied().collect();
    let dtype = *random.pick(&numbers);
    let domain = |i| match kind {
        ScatterKind::Max | ScatterKind::Min => apart(dtype, i),
        _ => Domain::Free,
    };
    let x = (Type::new(dtype, operand), domain(0));
    let updates = (Type::new(dtype, updates), domain(1));
    Case::new(Scatter { batch: b, indexed: k, kind, bad }, vec![x, indices, updates])
}

fn along(name: &str, dtype: DType, random: &mut Random, options: &Options) -> Option<Case> {
    let (shape, dim) = shape_and_dim(random, options);
    if matches!(name, "sort" | "top_k" | "arg_reduce") {
        let x = (Type::new(dtype, shape.clone()), apart(dtype, 0));
        let flag = random.one_in(2);
        return match name {
            "sort" => Case::new(Sort { dim, descending: flag }, vec![x]),
            "top_k" => {
                let k = random.between(0, shape[dim]);
                Case::new(TopK { k, dim, largest: flag }, vec![x])
            }
            _ => {
                let kind = if flag { Extremum::Max } else { Extremum::Min };
                Case::new(ArgReduce { kind, dim }, vec![x])
            }
        };
    }
    let kinds = [
        ReduceKind::Sum,
        ReduceKind::Product,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::And,
        ReduceKind::Or,
    ];
    let kind = *random.pick(&kinds);
    let dtypes: Vec<DType> =
        options.dtypes.iter().filter(|d| kind.accepts(**d).is_ok()).copied().collect();
    let dtype = if dtypes.is_empty() { return None } else { *random.pick(&dtypes) };
    let extreme = matches!(kind, ReduceKind::Max | ReduceKind::Min);
    let domain = if extreme { apart(dtype, 0) } else { small(dtype) };
    let x = (Type::new(dtype, shape.clone()), domain);
    if name == "cumulative" {
        return Case::new(Cumulative { kind, dim, reverse: random.one_in(2) }, vec![x]);
    }
    // An extremum over nothing is infinite.
    let mut dims = subset(random, shape.len());
    dims.retain(|&d| !extreme || shape[d] > 0);
    Case::new(Reduce { kind, dims }, vec![x])
}

fn dot(random: &mut Random, options: &Options) -> Option<Case> {
    let numbers: Vec<DType> =
        options.dtypes.iter().filter(|d| **d != DType::Bool).copied().collect();
    let dtype = if numbers.is_empty() { return None } else { *random.pick(&numbers) };
    let (batch, contract) = (shape(random, options, 1), shape(random, options, 2));
    // Each side has its dimensions in an order of its own.
    let side = |random: &mut Random| {
        let free = shape(random, options, 1);
        let sizes = [&batch[..], &contract, &free].concat();
        let place = random.permutation(sizes.len());
        let mut shape = vec![0; sizes.len()];
        place.iter().zip(sizes).for_each(|(&p, s)| shape[p] = s);
        let (b, k) = (batch.len(), batch.len() + contract.len());
        (place[..b].to_vec(), place[b..k].to_vec(), (Type::new(dtype, shape), small(dtype)))
    };
    let (left_batch, left_contract, left) = side(random);
    let (right_batch, right_contract, right) = side(random);
    Case::new(Dot { left_batch, right_batch, left_contract, right_contract }, vec![left, right])
}

fn matrices(name: &str, random: &mut Random, options: &Options) -> Option<Case> {
    let dtypes = options.dtypes.iter().filter(|d| matches!(d, DType::F32 | DType::F64));
    let dtypes: Vec<DType> = dtypes.copied().collect();
    let dtype = if dtypes.is_empty() { return None } else { *random.pick(&dtypes) };
    let batch = shape(random, options, 1);
    let (m, n) = (size(random, options), size(random, options));
    let operand =
        |rows, columns, domain| (Type::new(dtype, [&batch[..], &[rows, columns]].concat()), domain);
    if name == "triangular_solve" {
        let op = TriangularSolve { lower: random.one_in(2), unit: random.one_in(2) };
        let right = operand(m, n, Domain::Range(-1.0, 1.0));
        return Case::new(op, vec![operand(m, m, Domain::Diagonal), right]);
    }
    let kinds = [
        Factorization::Cholesky,
        Factorization::Lu,
        Factorization::Qr,
        Factorization::Eigh,
        Factorization::Svd,
    ];
    let kind = *random.pick(&kinds);
    let columns = if matches!(kind, Factorization::Qr | Factorization::Svd) { n } else { m };
    Case::new(Factorize { kind }, vec![operand(m, columns, Domain::Diagonal)])
}

fn convolution(random: &mut Random, options: &Options) -> Option<Case> {
    let numbers: Vec<DType> =
        options.dtypes.iter().filter(|d| **d != DType::Bool).copied().collect();
    let dtype = if numbers.is_empty() { return None } else { *random.pick(&numbers) };
    let [batch, groups, channels, results] = std::array::from_fn(|_| size(random, options));
    let mut op = Convolution::plain(random.between(0, 2));
    let mut x = vec![batch, groups, channels];
    let mut w = vec![groups, results, channels];
    for d in 0..op.spatial() {
        x.push(size(random, options) + random.between(0, 3));
        w.push(random.between(1, 3));
        op.stride[d] = random.between(1, 2);
        op.dilation[d] = random.between(1, 2);
        op.spread[d] = random.between(1, 2);
        op.low[d] = random.between(0, 3) as i64 - 1;
        op.high[d] = random.between(0, 3) as i64 - 1;
        if op.padded(d, x[d + 3]).is_none() {
            (op.low[d], op.high[d]) = (0, 0);
        }
    }
    let operand = |shape| (Type::new(dtype, shape), small(dtype));
    Case::new(op, vec![operand(x), operand(w)])
}

fn control(name: &str, random: &mut Random, options: &Options) -> Option<Case> {
    if options.depth == 0 {
        return None;
    }
    let ty =
        |random: &mut Random| Type::new(*random.pick(&options.dtypes), shape(random, options, 2));
    let types = |random: &mut Random, low: usize| -> Vec<Type> {
        (0..random.between(low, 2)).map(|_| ty(random)).collect()
    };
    let inner = Options { nodes: 3, depth: options.depth - 1, ..options.clone() };
    let operand = |ty: &Type| (ty.clone(), small(ty.dtype));
    let parameters = types(random, 1);
    match name {
        "call" => {
            let results = types(random, 1);
            let function = random_function(random, &inner, "callee", &parameters, &results);
            let op = Call { function: Arc::new(function), recompute: random.one_in(2) };
            Case::new(op, parameters.iter().map(operand).collect())
        }
        "cond" => {
            let results = types(random, 1);
            let mut branch =
                |name| Arc::new(random_function(random, &inner, name, &parameters, &results));
            let op = Cond { branches: [branch("then"), branch("else")] };
            let condition = (Type::scalar(DType::Bool), Domain::Free);
            Case::new(op, [condition].into_iter().chain(parameters.iter().map(operand)).collect())
        }
        _ => {
            let (carries, slices) = (types(random, 0), types(random, 0));
            let stacked = types(random, if carries.is_empty() { 1 } else { 0 });
            let given = [&parameters[..], &carries, &stacked].concat();
            let mut results = [&carries[..], &slices].concat();
            if results.is_empty() {
                results.push(ty(random));
            }
            let body = Arc::new(random_function(random, &inner, "body", &given, &results));
            // Longer loops can amplify rounding beyond all bounds.
            let length = size(random, options).min(3);
            let save = *random.pick(&[Save::All, Save::Every(1), Save::Every(2), Save::None]);
            let (constants, carries) = (parameters.len(), carries.len());
            let op = Scan { body, constants, carries, length, reverse: random.one_in(2), save };
            let mut operands: Vec<(Type, Domain)> = given.iter().map(operand).collect();
            for (ty, _) in &mut operands[constants + carries..] {
                ty.shape.insert(0, length);
            }
            Case::new(op, operands)
        }
    }
}
