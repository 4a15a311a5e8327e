//! Kernels through the vendor's compiler on the simulator and through the vendor's runtime on an
//! imitation of it, against the reference evaluator. What needs the compiler is reported as not run where there is none.

mod committed;
mod kernels;
mod mutations;
mod npu;
mod support;
mod targets;
mod training;
