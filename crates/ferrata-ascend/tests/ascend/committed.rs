//! Kernels whose compiled form is kept beside the tests, so that they run without the compiler. If
//! what is emitted for them changes, `FERRATA_BLESS=1` and the compiler write it anew.

use crate::support::{check_on, numbers};
use ferrata_ascend::{AscendSimulator, Compiler, Target};
use ferrata_ir::testing::Random;
use ferrata_ir::{Function, Literal};
use std::sync::Arc;

pub fn target() -> Target {
    Target::find("Ascend910B3").unwrap()
}

/// The compiler that knows these kernels.
pub fn compiler() -> Compiler {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compiled");
    if std::env::var_os("FERRATA_BLESS").is_some() {
        return Compiler::find().unwrap().keeping(folder);
    }
    Compiler::kept(folder)
}

/// One program for each kind of kernel.
pub fn programs() -> Vec<(&'static str, Arc<Function>)> {
    ferrata_ascend::check::kernels().unwrap()
}

pub fn arguments(program: &Function) -> Vec<Literal> {
    let random = &mut Random::new(3);
    program.parameter_types().iter().map(|ty| numbers(random, ty)).collect()
}

#[test]
fn kernels_that_are_kept() {
    let device = AscendSimulator::new(target(), compiler()).unwrap();
    for (name, program) in programs() {
        check_on(&device, &program, &arguments(&program), 32.0, 20.0, name);
    }
    assert!(device.on_host().is_empty(), "{:?}", device.on_host());
}
