//! The conformance suite of the CPU device: every kind of kernel, on every instruction-set path of
//! this machine, against the reference evaluator.

mod attention;
mod contract;
mod elementwise;
mod images;
mod numerics;
mod primitives;
mod random;
mod reduce;
mod support;
mod threads;
