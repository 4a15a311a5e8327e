//! How fast processes of one machine exchange data, measured.

use std::thread;
use std::time::Instant;

use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::{Communicator, DType, Error, Result};

use super::sockets::Sockets;

/// What each of several ranks of one machine gets of the sockets between them while all of them send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    /// Seconds until the first byte arrives.
    pub latency: f64,
    /// Bytes per second that each rank sends, and receives at the same time.
    pub bandwidth: f64,
    /// Bytes per second of received summands that each rank adds up.
    pub reduction: f64,
}

/// Bytes that each rank sends to each other one, and how many times: so few that only the latency
/// counts, and as many as gradients of a layer.
const SMALL: (usize, usize) = (64, 400);
const LARGE: (usize, usize) = (1 << 20, 24);

/// Measures the exchange between `ranks` ranks, at least two, that are threads here: for the
/// system their sockets are those of processes.
///
/// # Errors
/// When the system refuses sockets.
pub fn transport(ranks: usize) -> Result<Transport> {
    let ranks = ranks.max(2);
    let ends = Sockets::pairs(ranks)
        .map_err(|error| Error::new(format!("there are no sockets to measure: {error}")))?;
    let group: Vec<usize> = (0..ranks).collect();
    let gather = |(size, rounds)| {
        let (part, sizes) = (vec![0; size], vec![size; ranks]);
        on_all(&ends, rounds, |end| {
            end.all_gather(&group, &part, &sizes, &mut vec![0; size * ranks])
        })
    };
    let (small, large) = (gather(SMALL)?, gather(LARGE)?);
    let (size, rounds) = LARGE;
    let (whole, sizes) = (vec![0; size * ranks], vec![size; ranks]);
    let reduced = on_all(&ends, rounds, |end| {
        let mut part = vec![0; size];
        end.reduce_scatter(&group, ReduceKind::Sum, DType::F32, &whole, &sizes, &mut part)
    })?;
    let others = (ranks - 1) as f64;
    let bytes = size as f64 * others;
    Ok(Transport {
        latency: small / others,
        bandwidth: bytes / (large - small).max(f64::EPSILON),
        reduction: bytes / (reduced - large).max(f64::EPSILON),
    })
}

/// The mean seconds of a collective that all ranks take part in, after one that does not count.
fn on_all(
    ends: &[Sockets],
    rounds: usize,
    collective: impl Fn(&Sockets) -> Result<()> + Sync,
) -> Result<f64> {
    let timed = |end: &Sockets| {
        collective(end)?;
        let start = Instant::now();
        (0..rounds).try_for_each(|_| collective(end))?;
        Ok(start.elapsed().as_secs_f64() / rounds as f64)
    };
    measured_together(ends, timed)
}

/// The mean of what is measured of each item, of all at once.
///
/// # Errors
/// That of the first measurement that fails.
pub fn measured_together<T: Sync>(
    items: &[T],
    measure: impl Fn(&T) -> Result<f64> + Sync,
) -> Result<f64> {
    let measure = &measure;
    let found = thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || measure(item))).collect();
        let ended = || Error::new("a thread of the measurement has ended early");
        let found = threads.into_iter().map(|thread| thread.join().map_err(|_| ended())?);
        found.collect::<Result<Vec<f64>>>()
    })?;
    Ok(found.iter().sum::<f64>() / found.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ranks_on_the_same_cores_get_less_each() {
        let speeds = [2, 4].map(|ranks| transport(ranks).unwrap());
        for Transport { latency, bandwidth, reduction } in speeds {
            assert!((1e-8..1e-1).contains(&latency), "{latency} s");
            assert!((1e6..1e12).contains(&bandwidth), "{bandwidth} bytes/s");
            assert!(reduction > 1e6, "{reduction} bytes/s");
        }
    }
}
