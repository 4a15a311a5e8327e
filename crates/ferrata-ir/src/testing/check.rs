//! Checks of transforms against what they mean. Failures are texts that say what differs.

use super::Random;
use crate::error::Result;
use crate::evaluate::{Evaluator, Precision};
use crate::literal::Literal;
use crate::program::{Builder, Function, Value};
use crate::transform::{jvp, value_and_grad, vmap};
use crate::types::Type;
use std::sync::Arc;

/// Results in exact arithmetic.
///
/// # Errors
/// Those of the evaluator.
pub fn evaluate(function: &Function, args: &[Literal]) -> Result<Vec<Literal>> {
    Evaluator::new(Precision::Exact).call(function, &args.iter().collect::<Vec<_>>())
}

/// The float parameters.
fn floats(function: &Function) -> Vec<bool> {
    function.parameter_types().iter().map(|t| t.dtype.is_float()).collect()
}

/// Random directions, one for each float parameter.
fn directions(function: &Function, random: &mut Random) -> Vec<Literal> {
    let types = function.parameter_types().into_iter().filter(|t| t.dtype.is_float());
    types.map(|ty| random.literal(&exact(ty))).collect()
}

/// Directions are not rounded to the parameter's dtype, as exact evaluation does not either.
fn exact(ty: &Type) -> Type {
    ty.with_dtype(crate::DType::F64)
}

/// `args` moved by `by` times the directions.
fn moved(args: &[Literal], directions: &[Literal], by: f64) -> Vec<Literal> {
    let mut directions = directions.iter();
    let step = |x: &Literal| {
        if !x.ty.dtype.is_float() {
            return x.clone();
        }
        let d = directions.next().map(Literal::to_f64).unwrap_or_default();
        let sum = x.to_f64().iter().zip(d).map(|(x, d)| x + by * d).collect();
        Literal::float(x.ty.clone(), sum)
    };
    args.iter().map(step).collect()
}

fn inner(x: &[Literal], y: &[Literal]) -> f64 {
    let one = |(x, y): (&Literal, &Literal)| -> f64 {
        x.to_f64().iter().zip(y.to_f64()).map(|(x, y)| x * y).sum()
    };
    x.iter().zip(y).map(one).sum()
}

/// A derivative by extrapolated central differences.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The derivative.
    pub value: f64,
    /// An estimate of its error; large where the function is not smooth.
    pub error: f64,
}

fn difference(f: impl Fn(f64) -> Result<f64>) -> Result<Difference> {
    let central = |h: f64| -> Result<f64> { Ok((f(h)? - f(-h)?) / (2.0 * h)) };
    let (coarse, fine) = (central(2e-4)?, central(1e-4)?);
    Ok(Difference { value: (4.0 * fine - coarse) / 3.0, error: (fine - coarse).abs() })
}

/// `loss(parameters) = Σ weights · float results`, a scalar.
fn weighted(function: &Arc<Function>, weights: &[Literal]) -> Result<Function> {
    let mut b = Builder::new("loss");
    let types: Vec<Type> = function.parameter_types().into_iter().cloned().collect();
    let args = b.parameters(&types);
    let results = b.call(function, &args);
    let mut loss = b.full(Type::scalar(crate::DType::F64), 0.0);
    let mut weights = weights.iter();
    for y in results {
        if !b.ty(y).dtype.is_float() {
            continue;
        }
        let Some(w) = weights.next() else { break };
        let w = b.emit1(crate::primitive::Dense { value: Arc::new(w.clone()) }, &[]);
        let y = b.cast(y, crate::DType::F64);
        let product = b.mul(y, w);
        let all: Vec<usize> = (0..b.ty(product).rank()).collect();
        let term = b.sum(product, &all);
        loss = b.add(loss, term);
    }
    b.finish(&[loss])
}

/// Checks, in exact arithmetic at `args` and along random directions, that reverse mode and
/// forward mode agree with each other and with finite differences of the float results.
///
/// # Errors
/// Names what differs; or an error of transform or evaluation.
pub fn check_gradient(function: &Arc<Function>, args: &[Literal], seed: u64) -> Result<Difference> {
    let random = &mut Random::new(seed);
    let weights: Vec<Literal> = function
        .result_types()
        .into_iter()
        .filter(|t| t.dtype.is_float())
        .map(|t| random.literal(&exact(t)))
        .collect();
    check_scalar(&Arc::new(weighted(function, &weights)?), args, random)
}

/// Checks the derivative of a random directional derivative in the same way.
///
/// # Errors
/// Names what differs; or an error of transform or evaluation.
pub fn check_second_derivative(
    function: &Arc<Function>,
    args: &[Literal],
    seed: u64,
) -> Result<Difference> {
    let random = &mut Random::new(seed);
    let weights: Vec<Literal> = function
        .result_types()
        .into_iter()
        .filter(|t| t.dtype.is_float())
        .map(|t| random.literal(&exact(t)))
        .collect();
    let loss = Arc::new(weighted(function, &weights)?);
    let gradient = Arc::new(value_and_grad(&loss, &floats(&loss))?);
    let mut weights = vec![Literal::float(Type::scalar(crate::DType::F64), vec![0.0])];
    weights.extend(directions(&loss, random));
    check_scalar(&Arc::new(weighted(&gradient, &weights)?), args, random)
}

/// Forward and reverse mode of a scalar function against finite differences.
fn check_scalar(loss: &Arc<Function>, args: &[Literal], random: &mut Random) -> Result<Difference> {
    let wrt = floats(loss);
    let direction = directions(loss, random);
    let grads = evaluate(&value_and_grad(loss, &wrt)?, args)?;
    let reverse = inner(&grads[1..], &direction);
    let types = loss.parameter_types().into_iter().filter(|t| t.dtype.is_float());
    let tangents = direction.iter().zip(types);
    let tangents = tangents.map(|(d, ty)| Literal { ty: ty.clone(), elements: d.elements.clone() });
    let both: Vec<Literal> = args.iter().cloned().chain(tangents).collect();
    let forward = evaluate(&*jvp(loss, &wrt)?, &both)?[1].to_f64()[0];
    let want = difference(|h| Ok(evaluate(loss, &moved(args, &direction, h))?[0].to_f64()[0]))?;
    // Written so that NaN agrees with nothing.
    let agree =
        |x: f64, y: f64, tolerance: f64| (x - y).abs() <= tolerance * (1.0 + x.abs().max(y.abs()));
    if !agree(reverse, forward, 1e-9) {
        return Err(format!("reverse mode gives {reverse}, forward mode {forward}").into());
    }
    if !agree(reverse, want.value, 2e-7 + 4.0 * want.error) {
        let Difference { value, error } = want;
        return Err(format!(
            "the derivative is {reverse}, finite differences give {value} ± {error:e}"
        )
        .into());
    }
    Ok(want)
}

/// Checks that `vmap` over the parameters in `batched` gives what a loop of `size` calls gives.
/// The batched parameters get random values around `args`.
///
/// # Errors
/// Names the result that differs; or an error of transform or evaluation.
pub fn check_batch(
    function: &Arc<Function>,
    args: &[Literal],
    batched: &[bool],
    size: usize,
    seed: u64,
) -> Result<()> {
    let random = &mut Random::new(seed);
    let samples: Vec<Vec<Literal>> = (0..size)
        .map(|_| {
            args.iter()
                .map(
                    |x| if x.ty.dtype.is_float() { nudged(x, random) } else { shuffled(x, random) },
                )
                .collect()
        })
        .collect();
    let stacked = |i: usize| {
        let ty = args[i].ty.with_shape([&[size], &args[i].ty.shape[..]].concat());
        let n = args[i].ty.elements();
        Literal::build(ty, |j| samples[j / n][i].get(j % n))
    };
    let inputs: Vec<Literal> =
        (0..args.len()).map(|i| if batched[i] { stacked(i) } else { args[i].clone() }).collect();
    let many = evaluate(&*vmap(function, batched, size)?, &inputs)?;
    for (k, sample) in samples.iter().enumerate() {
        let inputs: Vec<Literal> = (0..args.len())
            .map(|i| if batched[i] { sample[i].clone() } else { args[i].clone() })
            .collect();
        for (r, (one, all)) in evaluate(function, &inputs)?.iter().zip(&many).enumerate() {
            let n = one.ty.elements();
            for i in 0..n {
                let (got, want) = (all.get(k * n + i).as_f64(), one.get(i).as_f64());
                let close = (got - want).abs() <= 1e-9 * (1.0 + want.abs());
                if !close && got != want && !(got.is_nan() && want.is_nan()) {
                    return Err(format!(
                        "sample {k}, element {i} of result {r}: vmap gives {got}, the loop {want}"
                    )
                    .into());
                }
            }
        }
    }
    Ok(())
}

/// `x` with a little noise.
fn nudged(x: &Literal, random: &mut Random) -> Literal {
    Literal::float(x.ty.clone(), x.to_f64().iter().map(|x| x + random.float(-0.05, 0.05)).collect())
}

/// The elements of `x` in another order.
fn shuffled(x: &Literal, random: &mut Random) -> Literal {
    let order = random.permutation(x.ty.elements());
    Literal::build(x.ty.clone(), |i| x.get(order[i]))
}

/// A parameter for each of `args`, then what `build` makes of them.
pub fn function_of(
    args: &[Literal],
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> Result<Arc<Function>> {
    let mut b = Builder::new("f");
    let types: Vec<Type> = args.iter().map(|a| a.ty.clone()).collect();
    let x = b.parameters(&types);
    let y = build(&mut b, &x);
    Ok(Arc::new(b.finish(&y)?))
}
