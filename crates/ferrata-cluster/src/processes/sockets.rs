//! Ranks that are processes: a stream to every other rank.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ferrata_ir::Communicator;
use ferrata_ir::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::stream::Stream;

/// The length of a message goes before it.
const HEADER: usize = size_of::<u64>();

/// The stream to another rank.
pub(super) struct Peer {
    stream: Arc<Stream>,
    /// Its machine, for errors.
    host: String,
    /// What was posted.
    posted: Vec<u8>,
    /// How much of it the stream has taken.
    taken: usize,
}

impl Peer {
    pub fn new(stream: Stream, host: String) -> io::Result<Peer> {
        stream.set_nonblocking(true)?;
        Ok(Peer { stream: Arc::new(stream), host, posted: Vec::new(), taken: 0 })
    }

    /// Sends as much of what was posted as goes without waiting.
    fn advance(&mut self) -> io::Result<()> {
        while self.lags() {
            match (&*self.stream).write(&self.posted[self.taken..]) {
                Ok(count) => self.taken += count,
                Err(error) if again(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.forget();
        Ok(())
    }

    /// Whether something that was posted has not gone yet.
    fn lags(&self) -> bool {
        self.taken < self.posted.len()
    }

    fn post(&mut self, data: &[u8]) {
        // What has gone is given up once it is more than what has not.
        if self.taken > self.posted.len() / 2 {
            self.posted.drain(..self.taken);
            self.taken = 0;
        }
        self.posted.extend((data.len() as u64).to_le_bytes());
        self.posted.extend(data);
    }

    fn forget(&mut self) {
        self.posted.clear();
        self.taken = 0;
    }
}

/// By rank; none for this one. Locked by whoever exchanges data with it.
type Peers = Vec<Option<Mutex<Peer>>>;

/// One process' streams to all others.
pub(super) struct Sockets {
    rank: usize,
    peers: Arc<Peers>,
    courier: Arc<Courier>,
    thread: Option<JoinHandle<()>>,
}

impl Sockets {
    pub fn new(rank: usize, peers: Vec<Option<Peer>>) -> Sockets {
        let peers: Arc<Peers> =
            Arc::new(peers.into_iter().map(|peer| peer.map(Mutex::new)).collect());
        let courier = Arc::new(Courier::default());
        let thread = thread::spawn({
            let (courier, peers) = (courier.clone(), peers.clone());
            move || courier.run(&peers)
        });
        Sockets { rank, peers, courier, thread: Some(thread) }
    }

    /// The ends of `size` ranks, all in this process.
    pub fn pairs(size: usize) -> io::Result<Vec<Sockets>> {
        let mut peers: Vec<Vec<Option<Peer>>> =
            (0..size).map(|_| (0..size).map(|_| None).collect()).collect();
        for (a, b) in (0..size).flat_map(|a| (a + 1..size).map(move |b| (a, b))) {
            let (one, other) = UnixStream::pair()?;
            peers[a][b] = Some(Peer::new(Stream::Unix(one), "this host".to_owned())?);
            peers[b][a] = Some(Peer::new(Stream::Unix(other), "this host".to_owned())?);
        }
        let ends = peers.into_iter().enumerate();
        Ok(ends.map(|(rank, peers)| Sockets::new(rank, peers)).collect())
    }

    /// The peer of a rank; none for this one.
    fn peer(&self, rank: usize) -> Result<Option<MutexGuard<'_, Peer>>> {
        let peer = self.peers.get(rank).ok_or_else(|| {
            Error::new(format!("there is no rank {rank} among {}", self.peers.len()))
        })?;
        Ok(peer.as_ref().map(|peer| peer.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.courier.calls().ended = true;
        self.courier.called.notify_one();
        if let Some(thread) = self.thread.take() {
            // All that it could panic about ends with it.
            let _ = thread.join();
        }
    }
}

/// Sends what was posted while the rank does other things.
#[derive(Default)]
struct Courier {
    calls: Mutex<Calls>,
    called: Condvar,
}

#[derive(Default)]
struct Calls {
    /// Streams that did not take all at once, by rank.
    full: Vec<(usize, Arc<Stream>)>,
    ended: bool,
}

/// How long to wait for streams before looking for further ones.
const ROUND: Duration = Duration::from_millis(1);

impl Courier {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, rank: usize, stream: &Arc<Stream>) {
        self.calls().full.push((rank, stream.clone()));
        self.called.notify_one();
    }

    fn run(&self, peers: &Peers) {
        let mut full: Vec<(usize, Arc<Stream>)> = Vec::new();
        let round = Timespec::try_from(ROUND).unwrap_or_default();
        loop {
            let mut calls = self.calls();
            while full.is_empty() && calls.full.is_empty() && !calls.ended {
                calls = self.called.wait(calls).unwrap_or_else(PoisonError::into_inner);
            }
            if calls.ended {
                return;
            }
            full.append(&mut mem::take(&mut calls.full));
            drop(calls);
            let mut waiting: Vec<PollFd<'_>> =
                full.iter().map(|(_, stream)| PollFd::new(&**stream, PollFlags::OUT)).collect();
            // Whatever went wrong, writing will tell.
            let _ = poll(&mut waiting, Some(&round));
            let mut locked = false;
            full.retain(|&(rank, _)| {
                let mut peer = match peers[rank].as_ref().map(Mutex::try_lock) {
                    Some(Ok(peer)) => peer,
                    Some(Err(TryLockError::Poisoned(peer))) => peer.into_inner(),
                    // Whoever exchanges data with it sends this first.
                    Some(Err(TryLockError::WouldBlock)) => {
                        locked = true;
                        return true;
                    }
                    None => return false,
                };
                if peer.advance().is_err() {
                    // The next call with this rank says so.
                    peer.forget();
                    peer.stream.shut();
                }
                peer.lags()
            });
            if locked {
                thread::sleep(ROUND);
            }
        }
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} processes", self.rank, self.peers.len())
    }
}

impl Communicator for Sockets {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn post(&self, to: usize, data: &[u8]) -> Result<()> {
        let Some(mut peer) = self.peer(to)?.filter(|_| !data.is_empty()) else { return Ok(()) };
        let idle = !peer.lags();
        peer.post(data);
        peer.advance().map_err(|error| broken(to, &peer.host, &error))?;
        if idle && peer.lags() {
            self.courier.call(to, &peer.stream);
        }
        Ok(())
    }

    fn exchange(&self, group: &[usize], send: &[&[u8]], receive: &mut [&mut [u8]]) -> Result<()> {
        let mut lanes = Vec::with_capacity(group.len());
        for ((&rank, out), into) in group.iter().zip(send).zip(receive) {
            match self.peer(rank)? {
                Some(peer) => lanes.push(Lane::new(rank, peer, out, into)),
                None => into.copy_from_slice(out),
            }
        }
        let result = carry(&mut lanes);
        if result.is_err() {
            // In the middle of messages nothing can follow, and nobody shall wait for it.
            lanes.iter().for_each(|lane| lane.peer.stream.shut());
        }
        result
    }
}

/// Sends and receives on all lanes at once: a peer may have to send to us before it can take what
/// we send.
fn carry(lanes: &mut [Lane<'_>]) -> Result<()> {
    loop {
        for lane in &mut *lanes {
            lane.advance()?;
        }
        let mut waiting: Vec<PollFd<'_>> = lanes.iter().filter_map(Lane::wants).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        match poll(&mut waiting, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                return Err(Error::new(format!("cannot wait for other ranks: {error}")));
            }
        }
    }
}

/// What goes to one rank and comes from it in an exchange.
struct Lane<'a> {
    rank: usize,
    peer: MutexGuard<'a, Peer>,
    header: [u8; HEADER],
    out: &'a [u8],
    /// Bytes that went, the header counted.
    sent: usize,
    announced: [u8; HEADER],
    into: &'a mut [u8],
    /// Bytes that came, the header counted.
    received: usize,
}

impl<'a> Lane<'a> {
    fn new(rank: usize, peer: MutexGuard<'a, Peer>, out: &'a [u8], into: &'a mut [u8]) -> Self {
        let header = (out.len() as u64).to_le_bytes();
        Lane { rank, peer, header, out, sent: 0, announced: [0; HEADER], into, received: 0 }
    }

    fn sends(&self) -> bool {
        !self.out.is_empty() && self.sent < HEADER + self.out.len()
    }

    fn receives(&self) -> bool {
        !self.into.is_empty() && self.received < HEADER + self.into.len()
    }

    /// What has to happen before this lane can go on, unless it is through.
    fn wants(&self) -> Option<PollFd<'_>> {
        let mut flags = PollFlags::empty();
        let through = !self.sends() && !self.receives();
        flags.set(PollFlags::OUT, self.sends() || self.peer.lags());
        flags.set(PollFlags::IN, self.receives());
        (!through).then(|| PollFd::new(&*self.peer.stream, flags))
    }

    /// Moves as much as goes without waiting.
    fn advance(&mut self) -> Result<()> {
        while self.receives() {
            let buffer = match self.received {
                n @ ..HEADER => &mut self.announced[n..],
                n => &mut self.into[n - HEADER..],
            };
            match (&*self.peer.stream).read(buffer) {
                Ok(0) => return Err(lost(self.rank, &self.peer.host)),
                Ok(count) => self.received += count,
                Err(error) if again(&error) => break,
                Err(error) => return Err(broken(self.rank, &self.peer.host, &error)),
            }
            let announced = u64::from_le_bytes(self.announced);
            if self.received == HEADER && announced != self.into.len() as u64 {
                let (rank, want) = (self.rank, self.into.len());
                return Err(Error::new(format!("rank {rank} sent {announced} bytes, not {want}"))
                    .help("all ranks have to run the same program"));
            }
        }
        // What was posted goes first.
        if let Err(error) = self.peer.advance() {
            return Err(broken(self.rank, &self.peer.host, &error));
        }
        while self.sends() && !self.peer.lags() {
            let buffer = match self.sent {
                n @ ..HEADER => &self.header[n..],
                n => &self.out[n - HEADER..],
            };
            match (&*self.peer.stream).write(buffer) {
                Ok(count) => self.sent += count,
                Err(error) if again(&error) => break,
                Err(error) => return Err(broken(self.rank, &self.peer.host, &error)),
            }
        }
        Ok(())
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn lost(rank: usize, host: &str) -> Error {
    Error::new(format!("rank {rank} on {host} is gone")).help("its own error says why")
}

fn broken(rank: usize, host: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => lost(rank, host),
        _ => Error::new(format!("the line to rank {rank} on {host} broke: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use ferrata_ir::DType;
    use ferrata_ir::primitive::ReduceKind;

    use super::*;

    /// What `work` gives on each of `ranks`, all at once.
    fn on_all<'a, T: Send>(
        ranks: impl Iterator<Item = &'a dyn Communicator>,
        work: impl Fn(&dyn Communicator) -> T + Sync,
    ) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || work(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn ends(sockets: &[Sockets]) -> impl Iterator<Item = &dyn Communicator> {
        sockets.iter().map(|end| end as _)
    }

    #[test]
    fn messages_larger_than_any_buffer_cross_each_other() {
        let ranks = Sockets::pairs(3).unwrap();
        let size = 5 << 20;
        let received = on_all(ends(&ranks), |rank| {
            let parts: Vec<Vec<u8>> =
                (0..3).map(|to| vec![(10 * rank.rank() + to) as u8; size + to]).collect();
            let mut into: Vec<Vec<u8>> = (0..3).map(|_| vec![0; size + rank.rank()]).collect();
            let send: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut receive: Vec<&mut [u8]> = into.iter_mut().map(Vec::as_mut_slice).collect();
            rank.exchange(&[0, 1, 2], &send, &mut receive).unwrap();
            into
        });
        for (rank, into) in received.iter().enumerate() {
            for (from, part) in into.iter().enumerate() {
                assert!(part.iter().all(|&byte| byte == (10 * from + rank) as u8), "{from} {rank}");
            }
        }
    }

    #[test]
    fn sums_are_the_same_bits_as_between_threads() {
        let sockets = Sockets::pairs(3).unwrap();
        let threads = crate::local(3);
        for dtype in [DType::F32, DType::BF16, DType::F64, DType::I32] {
            let reduce = |rank: &dyn Communicator| {
                let noise = |i: usize| ((i * 7919 + rank.rank() * 104_729) % 1009) as f64 / 77.0;
                let mut data: Vec<u8> = match dtype {
                    DType::F32 => (0..1001).flat_map(|i| (noise(i) as f32).to_le_bytes()).collect(),
                    DType::F64 => (0..1001).flat_map(|i| noise(i).to_le_bytes()).collect(),
                    DType::I32 => (0..1001).flat_map(|i| (noise(i) as i32).to_le_bytes()).collect(),
                    // The upper half of an f32.
                    _ => (0..1001)
                        .flat_map(|i| {
                            let [_, _, low, high] = (noise(i) as f32).to_le_bytes();
                            [low, high]
                        })
                        .collect(),
                };
                rank.all_reduce(&[0, 1, 2], ReduceKind::Sum, dtype, &mut data).unwrap();
                data
            };
            let by_sockets = on_all(ends(&sockets), reduce);
            let by_threads = on_all(threads.iter().map(|end| &**end), reduce);
            assert_eq!(by_sockets, by_threads, "{dtype}");
        }
    }

    #[test]
    fn posts_wait_for_nobody_and_keep_their_order() {
        let ranks = Sockets::pairs(2).unwrap();
        let size = 3 << 20;
        let sums = on_all(ends(&ranks), |rank| {
            let other = 1 - rank.rank();
            // More than any stream takes, in both directions, before anybody receives.
            for i in 0..4 {
                rank.post(other, &vec![10 * rank.rank() as u8 + i; size]).unwrap();
            }
            let mut data = vec![0; size];
            for i in 0..4 {
                rank.receive(other, &mut data).unwrap();
                assert!(data.iter().all(|&byte| byte == 10 * other as u8 + i));
            }
            let mut data = [rank.rank() as u8 + 1];
            rank.all_reduce(&[0, 1], ReduceKind::Sum, DType::U8, &mut data).unwrap();
            data[0]
        });
        assert_eq!(sums, [3, 3]);
    }

    #[test]
    fn groups_are_independent() {
        let ranks = Sockets::pairs(4).unwrap();
        let sums = on_all(ends(&ranks), |rank| {
            let group = if rank.rank() % 2 == 0 { [0, 2] } else { [1, 3] };
            let mut data = [rank.rank() as u8];
            rank.all_reduce(&group, ReduceKind::Sum, DType::U8, &mut data).unwrap();
            data[0]
        });
        assert_eq!(sums, [2, 4, 2, 4]);
    }

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let mut ranks = Sockets::pairs(2).unwrap();
        drop(ranks.remove(1));
        let mut data = vec![0; 1 << 20];
        let error = ranks[0].all_reduce(&[0, 1], ReduceKind::Sum, DType::U8, &mut data);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("rank 1 on this host is gone"), "{error}");
    }

    #[test]
    fn ranks_that_disagree_about_sizes_are_told_so() {
        let ranks = Sockets::pairs(2).unwrap();
        let errors = on_all(ends(&ranks), |rank| {
            let size = 4 + rank.rank();
            let (send, mut receive) = (vec![1; size], vec![0; size]);
            let mut own = vec![0; size];
            let mut parts: [&mut [u8]; 2] = match rank.rank() {
                0 => [&mut own, &mut receive],
                _ => [&mut receive, &mut own],
            };
            rank.exchange(&[0, 1], &[&send, &send], &mut parts).unwrap_err().to_string()
        });
        // The first to notice ends the lines, which the other may see before it reads.
        let told = ["rank 1 sent 5 bytes, not 4", "rank 0 sent 4 bytes, not 5"];
        let is_told = |error: &String| told.iter().any(|told| error.starts_with(told));
        assert!(errors.iter().any(is_told), "{errors:?}");
    }
}
