//! What a device tells of its runs while it is watched, and the limits of its machine.

use crate::cost::Cost;
use crate::kernel::Kernel;
use ferrata_ir::{DType, Origin};
use std::sync::Arc;
use std::time::Instant;

/// Is told of everything that a device has run, in the order in which it ended.
pub type Watch = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Something that has run.
#[derive(Debug)]
pub struct Event<'a> {
    /// What.
    pub activity: Activity<'a>,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// Bytes that the device holds in buffers and arenas.
    pub memory: usize,
}

/// What an [`Event`] tells of.
#[derive(Debug)]
pub enum Activity<'a> {
    /// A program from its arguments to its results; told after all that it ran.
    Program,
    /// One run of a kernel.
    Kernel {
        /// Which; the same one for every run.
        kernel: &'a Arc<Kernel>,
        /// Scope and user line.
        origin: &'a Origin,
        /// When its threads were busy.
        busy: &'a [Busy],
    },
    /// A copy of the schedule.
    Copy {
        /// How many bytes.
        bytes: usize,
    },
}

/// A time in which a thread worked on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Which thread of the device, from 0.
    pub thread: usize,
    /// When it took the first piece of work.
    pub start: Instant,
    /// When it found no more.
    pub end: Instant,
}

/// The best that a machine does with all threads of the device, as measured on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Scalar operations per second of matrix products by the dtype of their operands; a
    /// multiplication and an addition count as two.
    pub operations: Vec<(DType, f64)>,
    /// The speed of memory.
    pub memory: Bandwidth,
}

/// Bytes per second, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bandwidth {
    /// Of reads.
    pub read: f64,
    /// Of copies; bytes read and bytes written both count.
    pub copy: f64,
    /// Of writes.
    pub write: f64,
}

impl Limits {
    /// Scalar operations per second for operands of a dtype; half precision that the machine does
    /// not multiply goes at the rate of f32. `None` for dtypes without a measured limit.
    pub fn operations(&self, dtype: DType) -> Option<f64> {
        let find = |dtype| self.operations.iter().find(|(d, _)| *d == dtype).map(|(_, rate)| *rate);
        let wide = matches!(dtype, DType::F16 | DType::BF16).then_some(DType::F32);
        find(dtype).or_else(|| find(wide?))
    }

    /// The roofline: the least time in seconds for so many scalar operations in a dtype and so many
    /// bytes from and to memory, and which of the two decides it: `compute` or `memory`.
    pub fn least_time(&self, cost: Cost, dtype: DType) -> (f64, &'static str) {
        let Bandwidth { read, copy, write } = self.memory;
        let moving = (cost.read / read).max(cost.written / write).max(cost.bytes() / copy);
        let computing = self.operations(dtype).map_or(0.0, |rate| cost.flops / rate);
        if computing > moving { (computing, "compute") } else { (moving, "memory") }
    }
}

/// The speed of a cache, or of memory, when every thread of the device goes over bytes of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// `L1`, `L2` … or `memory`.
    pub name: String,
    /// Bytes that each thread goes over.
    pub bytes: usize,
    /// The speed.
    pub bandwidth: Bandwidth,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_computing_and_moving_is_the_least_time() {
        let operations = vec![(DType::F32, 100.0), (DType::I8, 400.0)];
        let memory = Bandwidth { read: 10.0, copy: 12.0, write: 8.0 };
        let limits = Limits { operations, memory };
        let least =
            |flops, read, written, dtype| limits.least_time(Cost { flops, read, written }, dtype);
        assert_eq!(least(200.0, 10.0, 0.0, DType::F32), (2.0, "compute"));
        assert_eq!(least(200.0, 10.0, 0.0, DType::I8), (1.0, "memory"));
        assert_eq!(least(200.0, 10.0, 0.0, DType::BF16), (2.0, "compute"));
        assert_eq!(least(200.0, 10.0, 0.0, DType::I64), (1.0, "memory"));
        assert_eq!(least(0.0, 1.0, 8.0, DType::F32), (1.0, "memory"));
        assert_eq!(least(0.0, 12.0, 12.0, DType::F32), (2.0, "memory"));
    }
}
