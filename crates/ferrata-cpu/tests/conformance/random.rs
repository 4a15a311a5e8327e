//! Random programs on every path: everything that the compiler makes of a program, in whatever
//! kernels it falls into. `FERRATA_PROPERTY_PROGRAMS` says how many.

use crate::support::{devices, run};
use ferrata_compiler::testing::{Form, check_random};
use ferrata_ir::testing::Options;
use ferrata_ir::{DType, Error};

/// Runs programs on all paths.
fn check(form: Form, options: &Options, default: u64) {
    let done = check_random(form, options, default, |trial| {
        for device in devices() {
            let results = run(device, &trial.program, &trial.arguments, &trial.donated);
            let agree = results.and_then(|results| trial.agrees(&results));
            agree.map_err(|e| Error::new(format!("{}: {e}", device.isa())))?;
        }
        Ok(())
    });
    done.unwrap_or_else(|e| panic!("{e}"));
}

/// Integers of all kinds, and floats of one.
fn only(float: DType) -> Options {
    let mut dtypes: Vec<DType> = DType::ALL.into_iter().filter(|d| !d.is_float()).collect();
    dtypes.extend([float; 8]);
    Options { dtypes, ..Options::default() }
}

/// Sizes around those of vectors and tiles.
fn wide(options: Options) -> Options {
    Options { sizes: vec![1, 2, 3, 5, 8, 16, 17, 33, 0], nodes: 8, ..options }
}

#[test]
fn small_programs_of_all_dtypes() {
    check(Form::Plain, &Options::default(), 200);
}

#[test]
fn wide_programs_in_f32() {
    check(Form::Plain, &wide(only(DType::F32)), 100);
}

#[test]
fn wide_programs_in_f64() {
    check(Form::Plain, &wide(only(DType::F64)), 50);
}

#[test]
fn gradients() {
    let options = Options::differentiable();
    check(Form::Gradient, &options, 60);
    check(Form::Gradient, &Options { without: options.without.clone(), ..only(DType::F32) }, 60);
}

#[test]
fn batched_programs() {
    check(Form::Batched, &Options::default(), 60);
}
