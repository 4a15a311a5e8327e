//! Kernels through the vendor's compiler on the simulator, against the reference evaluator. What
//! needs the compiler is reported as not run where there is none.

mod committed;
mod kernels;
mod mutations;
mod support;
mod targets;
mod training;
