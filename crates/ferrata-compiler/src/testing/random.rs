//! Random programs, run by whatever a test is about, against the reference evaluator.

use ferrata_ir::testing::{Options, Random, property_programs, random_arguments, random_program};
use ferrata_ir::transform::{vjp, vmap};
use ferrata_ir::{DType, Error, Evaluator, Function, Literal, Precision, Result};
use std::sync::Arc;

/// What is made of a random program before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The program itself.
    Plain,
    /// Its gradient by every float parameter.
    Gradient,
    /// `vmap` over all parameters.
    Batched,
}

/// A program to run, and what it must give.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What is compiled.
    pub program: Arc<Function>,
    /// Its arguments.
    pub arguments: Vec<Literal>,
    /// Which of them may be overwritten.
    pub donated: Vec<bool>,
    /// The evaluator's results, and how far each may be off.
    want: Vec<(Literal, f64)>,
}

impl Trial {
    fn new(form: Form, options: &Options, seed: u64) -> Result<Trial> {
        let program = random_program(seed, options);
        let program = match form {
            Form::Plain => program,
            Form::Gradient => {
                let types = program.parameter_types();
                let wrt: Vec<bool> = types.iter().map(|t| t.dtype.is_float()).collect();
                Arc::new(vjp(&program, &wrt)?)
            }
            Form::Batched => vmap(&program, &vec![true; program.parameters().len()], 3)?,
        };
        let arguments = random_arguments(&program, seed);
        let random = &mut Random::new(seed);
        let donated = arguments.iter().map(|_| random.one_in(2)).collect();
        let inputs: Vec<&Literal> = arguments.iter().collect();
        let evaluate = |precision| Evaluator::new(precision).call(&program, &inputs);
        let (typed, exact) = (evaluate(Precision::Typed)?, evaluate(Precision::Exact)?);
        let rounding = |(typed, exact): (Literal, Literal)| {
            let pairs = typed.to_f64().into_iter().zip(exact.to_f64());
            let moved = pairs.map(|(t, e)| (t - e).abs()).filter(|d| d.is_finite());
            (typed, 8.0 * moved.fold(0.0, f64::max) + least_tolerance(options))
        };
        let want = typed.into_iter().zip(exact).map(rounding).collect();
        Ok(Trial { program, arguments, donated, want })
    }

    /// Compares results with the evaluator's. What rounding alone does to the program, seen by
    /// evaluating it with and without, may happen to the results several times over.
    ///
    /// # Errors
    /// The first element that differs.
    pub fn agrees(&self, results: &[Literal]) -> Result<()> {
        for (r, (got, (want, allowed))) in results.iter().zip(&self.want).enumerate() {
            if let Some(difference) = difference(want, got, *allowed) {
                return Err(Error::new(format!("result {r}, {difference}")));
            }
        }
        Ok(())
    }
}

/// What results may differ by where rounding happens to cancel: values inside of a random program
/// are about 1 and may be of the narrowest dtype; a function may be taken of a sum of hundreds,
/// whose order moves it by up to as many roundings of its size.
fn least_tolerance(options: &Options) -> f64 {
    let epsilons = options.dtypes.iter().map(|d| d.epsilon());
    match epsilons.fold(0.0, f64::max) {
        wide if wide <= DType::F64.epsilon() => 1e-11,
        single if single <= DType::F32.epsilon() => 2e-3,
        _ => 3e-2,
    }
}

/// Checks random programs of this form, `default` many unless the environment says otherwise.
///
/// # Errors
/// The first program that cannot be made or fails the check, with its seed.
pub fn check_random(
    form: Form,
    options: &Options,
    default: u64,
    check: impl Fn(&Trial) -> Result<()>,
) -> Result<()> {
    for seed in 0..property_programs(default) {
        let what = |e: Error| Error::new(format!("{form:?} program of seed {seed}: {e}"));
        let trial = Trial::new(form, options, seed).map_err(what)?;
        check(&trial).map_err(|e| Error::new(format!("{}\n{}", what(e), trial.program)))?;
    }
    Ok(())
}

/// The first element that differs by more than `allowed` and the rounding of a few operations.
/// Integers must be equal.
pub fn difference(want: &Literal, got: &Literal, allowed: f64) -> Option<String> {
    if want.ty != got.ty {
        return Some(format!("the type is {}, not {}", got.ty, want.ty));
    }
    let (w, g) = (want.to_f64(), got.to_f64());
    let largest = w.iter().filter(|x| x.is_finite()).fold(0.0f64, |a, x| a.max(x.abs()));
    let allowed = match want.ty.dtype.is_float() {
        true => allowed + 64.0 * want.ty.dtype.epsilon() * (largest + 1e-3),
        false => 0.0,
    };
    let same = |w: f64, g: f64| w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= allowed;
    let at = w.iter().zip(&g).position(|(w, g)| !same(*w, *g))?;
    Some(format!("element {at} of {}: {} instead of {} ± {allowed:e}", want.ty, g[at], w[at]))
}
