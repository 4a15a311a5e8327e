//! Ranks that are threads of one process.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use ferrata_ir::Communicator;
use ferrata_ir::{Error, Result};

/// One thread's end of the lines to all others.
struct Local {
    rank: usize,
    senders: Vec<Sender<Vec<u8>>>,
    receivers: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} in this process", self.rank, self.senders.len())
    }
}

/// The ends of `size` ranks, one for each thread of this process that takes part.
///
/// ```
/// use ferrata_ir::{DType, primitive::ReduceKind};
/// let ranks = ferrata_cluster::local(3);
/// let sums = std::thread::scope(|scope| {
///     let ranks = ranks.iter().map(|rank| {
///         scope.spawn(move || {
///             let mut data = (rank.rank() as f32).to_le_bytes();
///             rank.all_reduce(&[0, 1, 2], ReduceKind::Sum, DType::F32, &mut data)?;
///             Ok::<_, ferrata_ir::Error>(f32::from_le_bytes(data))
///         })
///     });
///     let ranks: Vec<_> = ranks.collect();
///     ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Result<Vec<_>, _>>()
/// })?;
/// assert_eq!(sums, [3.0; 3]);
/// # Ok::<(), ferrata_ir::Error>(())
/// ```
pub fn local(size: usize) -> Vec<Box<dyn Communicator>> {
    let mut senders: Vec<Vec<Sender<Vec<u8>>>> = (0..size).map(|_| Vec::new()).collect();
    let mut receivers = Vec::with_capacity(size);
    for _ in 0..size {
        let (ends, own): (Vec<_>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        senders.iter_mut().zip(ends).for_each(|(senders, end)| senders.push(end));
        receivers.push(own.into_iter().map(Mutex::new).collect());
    }
    let ends = senders.into_iter().zip(receivers).enumerate();
    ends.map(|(rank, (senders, receivers))| {
        Box::new(Local { rank, senders, receivers }) as Box<dyn Communicator>
    })
    .collect()
}

impl Communicator for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.senders.len()
    }

    fn neighbours(&self) -> usize {
        self.size()
    }

    fn post(&self, to: usize, data: &[u8]) -> Result<()> {
        match data.is_empty() {
            true => Ok(()),
            false => self.senders[to].send(data.to_vec()).map_err(|_| lost(to)),
        }
    }

    fn exchange(&self, group: &[usize], send: &[&[u8]], receive: &mut [&mut [u8]]) -> Result<()> {
        for (&to, part) in group.iter().zip(send) {
            self.post(to, part)?;
        }
        for (&from, part) in group.iter().zip(receive) {
            if part.is_empty() {
                continue;
            }
            let line = self.receivers[from].lock().unwrap_or_else(PoisonError::into_inner);
            let data = line.recv().map_err(|_| lost(from))?;
            if data.len() != part.len() {
                let (sent, want) = (data.len(), part.len());
                return Err(Error::new(format!("rank {from} sent {sent} bytes, not {want}"))
                    .help("all ranks have to run the same program"));
            }
            part.copy_from_slice(&data);
        }
        Ok(())
    }
}

fn lost(rank: usize) -> Error {
    Error::new(format!("rank {rank} is gone")).help("its own error says why")
}
