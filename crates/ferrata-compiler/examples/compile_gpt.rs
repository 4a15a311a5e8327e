//! How long it takes to compile the training step of a GPT with 12 and 96 layers.

#[path = "../tests/compiled/gpt.rs"]
mod gpt;

use ferrata_compiler::{ReferenceDevice, compile};
use ferrata_ir::Type;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    for layers in [12, 96] {
        let start = Instant::now();
        let loss = gpt::model(2, 256, 768, 12, layers, 50257);
        let step = Arc::new(gpt::step(&loss));
        let traced = start.elapsed();
        let donated: Vec<bool> =
            step.parameter_types().iter().map(|t: &&Type| t.dtype.is_float()).collect();
        let start = Instant::now();
        let plan = compile(&step, &donated, &ReferenceDevice).expect("a GPT compiles");
        let compiled = start.elapsed();
        println!(
            "{layers} layers: traced in {traced:.1?}, compiled in {compiled:.1?}: {} steps, {} \
             kernels, arena {} MB",
            plan.steps.len(),
            plan.kernels.len(),
            plan.arena >> 20
        );
    }
}
