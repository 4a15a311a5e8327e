//! What computing and moving costs, in seconds, as far as decisions need it.

/// Speeds of one rank and of its lines to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Scalar operations a second.
    pub operations: f64,
    /// Bytes of memory a second.
    pub memory: f64,
    /// Bytes sent to other ranks a second.
    pub network: f64,
    /// Seconds that a collective takes at least.
    pub latency: f64,
}

impl Default for Rates {
    /// About those of two cores and of shared memory between processes.
    fn default() -> Self {
        Rates { operations: 1e11, memory: 1e10, network: 2e9, latency: 2e-5 }
    }
}

impl Rates {
    /// Seconds of a collective in which every rank sends so many bytes.
    pub(super) fn collective(&self, bytes: f64) -> f64 {
        self.latency + bytes / self.network
    }

    /// Seconds of computing.
    pub(super) fn compute(&self, operations: f64, bytes: f64) -> f64 {
        operations / self.operations + bytes / self.memory
    }
}
