//! Random programs: nodes of random primitives, joined by whatever brings an earlier value into
//! the shape and range that the next node needs, so that values stay finite and smooth.

use super::Random;
use super::case::{Domain, case, on_diagonal};
use crate::DType;
use crate::literal::{Literal, Scalar};
use crate::primitive::{Dense, Primitive};
use crate::program::{Builder, Function, Value};
use crate::types::Type;
use std::collections::HashSet;
use std::sync::Arc;

/// What random programs are made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many random nodes a function has, beside those that join them.
    pub nodes: usize,
    /// Dtypes of parameters and, where a primitive does not say otherwise, of operands.
    pub dtypes: Vec<DType>,
    /// Sizes of dimensions; those that stand here more often are drawn more often.
    pub sizes: Vec<usize>,
    /// How deep calls, loops and branches may stand in one another.
    pub depth: usize,
    /// Primitives that must not appear, by name.
    pub without: Vec<&'static str>,
}

impl Default for Options {
    /// Twelve nodes of all dtypes, f64 more often than others; sizes mostly 2 or 3, sometimes 1,
    /// rarely 0; control flow two deep.
    fn default() -> Self {
        let mut dtypes = DType::ALL.to_vec();
        dtypes.extend([DType::F64; 8]);
        let sizes = vec![2, 3, 2, 3, 2, 3, 1, 1, 1, 0];
        Options { nodes: 12, dtypes, sizes, depth: 2, without: vec![] }
    }
}

impl Options {
    /// For comparisons with finite differences: no primitive whose derivative is not that of its
    /// values, and f64 as the only float, as narrower constants are rounded in exact arithmetic
    /// too.
    pub fn differentiable() -> Self {
        let dtypes = Options::default().dtypes.into_iter();
        let dtypes = dtypes.filter(|&d| !d.is_float() || d == DType::F64).collect();
        Options { without: vec!["stop_gradient"], dtypes, ..Options::default() }
    }
}

/// A random well-typed program; the same for the same seed and options.
///
/// ```
/// use ferrata_ir::testing::{Options, evaluate, random_arguments, random_program};
/// let program = random_program(7, &Options::default());
/// ferrata_ir::verify(&program).unwrap();
/// let results = evaluate(&program, &random_arguments(&program, 8)).unwrap();
/// assert_eq!(results.len(), program.results().len());
/// ```
pub fn random_program(seed: u64, options: &Options) -> Arc<Function> {
    let random = &mut Random::new(seed);
    let ty = |random: &mut Random| {
        let rank = random.between(0, 2);
        let shape: Vec<usize> = (0..rank).map(|_| (*random.pick(&options.sizes)).max(1)).collect();
        Type::new(*random.pick(&options.dtypes), shape)
    };
    let mut parameters: Vec<Type> = (0..random.between(1, 3)).map(|_| ty(random)).collect();
    let mut results: Vec<Type> = (0..random.between(1, 2)).map(|_| ty(random)).collect();
    // At least one of each is a float, so that there is a derivative.
    let floats: Vec<DType> = options.dtypes.iter().filter(|d| d.is_float()).copied().collect();
    if !floats.is_empty() {
        for types in [&mut parameters, &mut results] {
            let shape = ty(random).shape;
            types.push(Type::new(*random.pick(&floats), shape));
        }
    }
    let name = format!("random_{seed}");
    Arc::new(random_function(random, options, &name, &parameters, &results))
}

/// How many random programs a property test tries: what `FERRATA_PROPERTY_PROGRAMS` says, else
/// `default`.
pub fn property_programs(default: u64) -> u64 {
    let asked = std::env::var("FERRATA_PROPERTY_PROGRAMS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(default)
}

/// Random arguments that keep the values of a random program finite and smooth.
pub fn random_arguments(function: &Function, seed: u64) -> Vec<Literal> {
    let random = &mut Random::new(seed);
    function.parameter_types().into_iter().map(|ty| random.literal(ty)).collect()
}

/// A random function with parameters and results of the given types.
pub(super) fn random_function(
    random: &mut Random,
    options: &Options,
    name: &str,
    parameters: &[Type],
    results: &[Type],
) -> Function {
    let mut b = Builder::new(name);
    let pool = b.parameters(parameters);
    let unused = pool.iter().copied().collect();
    let mut maker = Maker { random, b, pool, unused };
    let names: Vec<&str> =
        Primitive::names().into_iter().filter(|n| !options.without.contains(n)).collect();
    let mut made = 0;
    while made < options.nodes {
        // Control flow stands for one in eight nodes, though it has only three names.
        let name = if options.depth > 0 && maker.random.one_in(8) {
            *maker.random.pick(&["call", "scan", "cond"])
        } else {
            *maker.random.pick(&names)
        };
        let Some(case) = case(name, maker.random, options) else { continue };
        let args: Vec<Value> =
            case.operands.iter().map(|(ty, domain)| maker.operand(ty, *domain)).collect();
        let outputs = maker.b.emit(case.op, &args);
        maker.unused.extend(&outputs);
        maker.pool.extend(outputs);
        made += 1;
    }
    let range = |ty: &Type| {
        if ty.dtype.is_float() { Domain::Range(-1.0, 1.0) } else { Domain::Free }
    };
    let results: Vec<Value> = results.iter().map(|ty| maker.operand(ty, range(ty))).collect();
    // Only tests run this, and a generator that makes an ill-typed node is broken.
    maker.b.finish(&results).expect("random nodes are well-typed")
}

struct Maker<'a> {
    random: &'a mut Random,
    b: Builder,
    pool: Vec<Value>,
    unused: HashSet<Value>,
}

impl Maker<'_> {
    /// A value of this type inside the domain, made of an earlier one where there is one.
    fn operand(&mut self, ty: &Type, domain: Domain) -> Value {
        let kind = |d: DType| (d.is_float(), d == DType::Bool);
        let fits = |v: &&Value| {
            let have = self.b.ty(**v);
            kind(have.dtype) == kind(ty.dtype) && (have.elements() > 0 || ty.elements() == 0)
        };
        let candidates: Vec<Value> = self.pool.iter().filter(fits).copied().collect();
        if candidates.is_empty() {
            let value = domain.literal(ty, self.random);
            return self.dense(value);
        }
        // Values that nobody uses yet are taken first, so that most nodes count in the results.
        let unused: Vec<Value> =
            candidates.iter().filter(|v| self.unused.contains(v)).copied().collect();
        let first = !unused.is_empty() && !self.random.one_in(4);
        let v = *self.random.pick(if first { &unused } else { &candidates });
        self.unused.remove(&v);
        let v = self.b.cast(v, ty.dtype);
        let v = self.fit(v, &ty.shape);
        self.confine(v, domain)
    }

    fn dense(&mut self, value: Literal) -> Value {
        self.b.emit1(Dense { value: Arc::new(value) }, &[])
    }

    /// The elements of `v`, repeated or cut, in another shape.
    fn fit(&mut self, v: Value, shape: &[usize]) -> Value {
        let b = &mut self.b;
        let (have, want) = (b.ty(v).elements(), shape.iter().product::<usize>());
        if b.ty(v).shape == shape {
            return v;
        }
        let mut flat = b.reshape(v, &[have]);
        if have < want {
            let times = want.div_ceil(have);
            let many = b.broadcast(flat, &[times, have], &[1]);
            flat = b.reshape(many, &[times * have]);
        }
        if b.ty(flat).shape[0] > want {
            flat = b.slice_dim(flat, 0, 0, want);
        }
        b.reshape(flat, shape)
    }

    /// `v` brought into the domain, smoothly where it is a float.
    fn confine(&mut self, v: Value, domain: Domain) -> Value {
        let ty = self.b.ty(v).clone();
        match domain {
            Domain::Free => v,
            Domain::Range(low, high) => {
                let wave = self.b.sin(v);
                let wave = self.b.scale(wave, (high - low) / 2.0);
                self.b.offset(wave, (high + low) / 2.0)
            }
            Domain::Apart(above) => {
                let n = ty.elements();
                let steps = self.random.permutation(n);
                let steps =
                    Literal::build(ty, |i| Scalar::Float(steps[i] as f64 - (n / 2) as f64 + above));
                let steps = self.dense(steps.rounded());
                let wave = self.b.sin(v);
                let wave = self.b.scale(wave, 0.1);
                self.b.add(steps, wave)
            }
            Domain::Diagonal => {
                let diagonal = Literal::build(ty.clone(), |i| on_diagonal(&ty, i));
                let diagonal = self.dense(diagonal);
                let wave = self.b.sin(v);
                let wave = self.b.scale(wave, 0.1);
                self.b.add(diagonal, wave)
            }
            Domain::Ints(low, high) => {
                let count = self.b.full(ty.clone(), high - low + 1);
                let low = self.b.full(ty, low);
                let rest = self.b.rem(v, count);
                let rest = self.b.add(rest, count);
                let rest = self.b.rem(rest, count);
                self.b.add(rest, low)
            }
        }
    }
}
