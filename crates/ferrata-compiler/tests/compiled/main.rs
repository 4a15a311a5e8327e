//! Compiled programs, run by the interpreter of plans, against the reference evaluator.

mod cases;
mod convolution;
mod gpt;
mod random;
mod recompute;
mod snapshots;
mod support;
