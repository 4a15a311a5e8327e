//! Which instructions are ordered: vector clocks over the pipes of a core.
//!
//! Each pipe starts its instructions in order, but the next one may start before the last one has
//! ended, though not before it has read what the next one writes. An instruction is known to have
//! ended where a barrier or a flag says so. Two accesses of the same bytes, one of them a write,
//! must be ordered that way. The scalar unit and the cube unit end one instruction before the next
//! begins (products are summed in place).

use super::syntax::{Pipe, Space};
use ferrata_ir::{Error, Result};
use std::collections::BTreeMap;

/// Number of pipes.
const PIPES: usize = Pipe::EACH.len();

/// For each pipe, how many of its instructions have ended.
type Clock = [u64; PIPES];

/// Which memory: that of the core, or a buffer in global memory.
pub type Place = (Space, usize);

/// Bytes that an instruction reads or writes.
#[derive(Clone, Debug)]
pub struct Access {
    /// In which memory, and for global memory in which buffer.
    pub place: Place,
    /// Ranges of bytes, ascending, with gaps between them.
    pub ranges: Vec<(usize, usize)>,
    /// Whether it writes.
    pub write: bool,
}

/// What a core was told to do.
#[derive(Clone, Debug)]
pub enum Event {
    /// An instruction of a pipe.
    Instruction {
        /// Which pipe.
        pipe: Pipe,
        /// What it reads and writes.
        accesses: Vec<Access>,
    },
    /// A flag is set when all that `from` has started has ended.
    Set {
        /// The pipe that sets it.
        from: Pipe,
        /// The pipe that waits for it.
        to: Pipe,
        /// Which flag between the two.
        event: i64,
    },
    /// `to` starts nothing before the flag is set.
    Wait {
        /// The pipe that sets it.
        from: Pipe,
        /// The pipe that waits for it.
        to: Pipe,
        /// Which flag between the two.
        event: i64,
    },
    /// The pipe, or all of them, start nothing before what they have started has ended.
    Barrier {
        /// Which pipe.
        pipe: Pipe,
    },
}

impl Access {
    /// Whether both use the same bytes, and one of them writes.
    pub fn meets(&self, other: &Access) -> bool {
        if self.place != other.place || !(self.write || other.write) {
            return false;
        }
        let (mut a, mut b) = (self.ranges.iter(), other.ranges.iter());
        let (mut x, mut y) = (a.next(), b.next());
        while let (Some(p), Some(q)) = (x, y) {
            if p.0 < q.1 && q.0 < p.1 {
                return true;
            }
            if p.1 <= q.1 { x = a.next() } else { y = b.next() }
        }
        false
    }
}

/// An instruction that may not have ended.
#[derive(Debug)]
struct Flight {
    pipe: usize,
    number: u64,
    line: usize,
    name: String,
    accesses: Vec<Access>,
}

/// The order of one program's instructions so far.
#[derive(Debug, Default)]
pub(crate) struct Order {
    started: Clock,
    /// What each pipe knows to have ended before its next instruction.
    known: [Clock; PIPES],
    flights: Vec<Flight>,
    /// What the setting pipe knew, for each flag that is set.
    flags: BTreeMap<(Pipe, Pipe, i64), (Clock, usize)>,
    /// All that was told, if that is wanted.
    pub log: Option<Vec<Event>>,
}

fn join(a: &mut Clock, b: &Clock) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a).max(*b));
}

impl Pipe {
    /// Whether an instruction of this pipe ends before the next one begins.
    pub fn is_serial(self) -> bool {
        matches!(self, Pipe::Scalar | Pipe::Cube)
    }
}

impl Order {
    /// An instruction starts.
    ///
    /// # Errors
    /// Names both instructions if it meets one that is not known to have ended.
    pub fn issue(
        &mut self,
        pipe: Pipe,
        name: &str,
        line: usize,
        accesses: Vec<Access>,
    ) -> Result<()> {
        let p = pipe as usize;
        self.note(|| Event::Instruction { pipe, accesses: accesses.clone() });
        let mut known = self.known[p];
        // The scalar unit hands instructions out: what it waited for has ended.
        let own = known[Pipe::Scalar as usize];
        join(&mut known, &self.known[Pipe::Scalar as usize]);
        known[Pipe::Scalar as usize] = own;
        for flight in &self.flights {
            if flight.number <= known[flight.pipe] {
                continue;
            }
            // An instruction has read before a later one of its pipe writes.
            let counts = |b: &&Access| b.write || flight.pipe != p;
            let meets = |a: &&Access| flight.accesses.iter().filter(counts).any(|b| a.meets(b));
            if let Some(access) = accesses.iter().find(meets) {
                let (other, at) = (&flight.name, flight.line);
                let (memory, other_pipe) = (access.place.0, Pipe::EACH[flight.pipe]);
                return Err(Error::new(format!(
                    "nothing orders `{name}` ({pipe:?}, line {line}) after `{other}` ({other_pipe:?}, \
                     line {at}), and both use the same bytes of {memory:?}"
                )));
            }
        }
        self.started[p] += 1;
        let number = self.started[p];
        if pipe.is_serial() {
            self.known[p][p] = number;
        }
        self.flights.push(Flight { pipe: p, number, line, name: name.to_owned(), accesses });
        if self.flights.len() > 64 {
            self.forget();
        }
        Ok(())
    }

    fn note(&mut self, event: impl FnOnce() -> Event) {
        if let Some(log) = &mut self.log {
            log.push(event());
        }
    }

    /// Drops instructions that everybody knows to have ended.
    fn forget(&mut self) {
        let known = &self.known;
        self.flights.retain(|f| known.iter().any(|k| k[f.pipe] < f.number));
    }

    /// Everything that a pipe has started has ended when the flag is seen.
    ///
    /// # Errors
    /// If the flag is set already.
    pub fn set(&mut self, from: Pipe, to: Pipe, event: i64, line: usize) -> Result<()> {
        self.note(|| Event::Set { from, to, event });
        let mut clock = self.known[from as usize];
        clock[from as usize] = self.started[from as usize];
        if let Some((_, first)) = self.flags.insert((from, to, event), (clock, line)) {
            return Err(Error::new(format!(
                "flag {event} from {from:?} to {to:?} is set twice, in lines {first} and {line}"
            )));
        }
        Ok(())
    }

    /// The next instruction of a pipe starts after the flag is set.
    ///
    /// # Errors
    /// If nobody has set it.
    pub fn wait(&mut self, from: Pipe, to: Pipe, event: i64, line: usize) -> Result<()> {
        self.note(|| Event::Wait { from, to, event });
        let Some((clock, _)) = self.flags.remove(&(from, to, event)) else {
            return Err(Error::new(format!(
                "line {line} waits for flag {event} from {from:?} to {to:?}, which nothing sets"
            )));
        };
        join(&mut self.known[to as usize], &clock);
        Ok(())
    }

    /// All instructions of a pipe, or of all of them, end before its next one starts.
    pub fn barrier(&mut self, pipe: Pipe) {
        self.note(|| Event::Barrier { pipe });
        if pipe != Pipe::All {
            self.known[pipe as usize][pipe as usize] = self.started[pipe as usize];
            return;
        }
        self.known = [self.started; PIPES];
        self.flights.clear();
    }

    /// The program ends.
    ///
    /// # Errors
    /// If a flag stays set, which the next program would see.
    pub fn end(&self) -> Result<()> {
        match self.flags.iter().next() {
            None => Ok(()),
            Some(((from, to, event), (_, line))) => Err(Error::new(format!(
                "flag {event} from {from:?} to {to:?}, set in line {line}, is never waited for"
            ))),
        }
    }
}

/// Ranges in ascending order, those that touch made one.
pub(crate) fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.retain(|(from, end)| from < end);
    ranges.sort_unstable();
    let mut result: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
    for (from, end) in ranges {
        match result.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(end),
            _ => result.push((from, end)),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(from: usize, end: usize, write: bool) -> Vec<Access> {
        vec![Access { place: (Space::Unified, 0), ranges: vec![(from, end)], write }]
    }

    #[test]
    fn a_flag_orders_two_pipes() {
        let mut order = Order::default();
        order.issue(Pipe::Mte2, "load", 1, access(0, 64, true)).unwrap();
        let mut without = Order::default();
        without.issue(Pipe::Mte2, "load", 1, access(0, 64, true)).unwrap();
        order.set(Pipe::Mte2, Pipe::Vector, 0, 2).unwrap();
        order.wait(Pipe::Mte2, Pipe::Vector, 0, 3).unwrap();
        order.issue(Pipe::Vector, "add", 4, access(32, 64, false)).unwrap();
        let error = without.issue(Pipe::Vector, "add", 4, access(32, 64, false)).unwrap_err();
        assert!(error.message().contains("nothing orders `add`"), "{error}");
        without.issue(Pipe::Vector, "add", 4, access(64, 96, false)).unwrap();
        order.end().unwrap();
    }

    #[test]
    fn knowledge_passes_on_through_flags() {
        let mut order = Order::default();
        order.issue(Pipe::Mte2, "load", 1, access(0, 64, true)).unwrap();
        order.set(Pipe::Mte2, Pipe::Vector, 0, 2).unwrap();
        order.wait(Pipe::Mte2, Pipe::Vector, 0, 3).unwrap();
        order.set(Pipe::Vector, Pipe::Mte3, 0, 4).unwrap();
        order.wait(Pipe::Vector, Pipe::Mte3, 0, 5).unwrap();
        order.issue(Pipe::Mte3, "store", 6, access(0, 64, false)).unwrap();
        order.issue(Pipe::Vector, "add", 7, access(0, 64, false)).unwrap();
        assert!(order.issue(Pipe::Vector, "add", 8, access(0, 1, true)).is_err());
        order.barrier(Pipe::All);
        order.issue(Pipe::Vector, "add", 9, access(0, 1, true)).unwrap();
    }

    #[test]
    fn flags_pair() {
        let mut order = Order::default();
        assert!(order.wait(Pipe::Vector, Pipe::Mte2, 1, 1).is_err());
        order.set(Pipe::Vector, Pipe::Mte2, 1, 2).unwrap();
        assert!(order.end().is_err());
        assert!(order.set(Pipe::Vector, Pipe::Mte2, 1, 3).is_err());
    }
}
