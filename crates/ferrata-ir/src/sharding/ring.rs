//! Attention whose positions are cut: every rank keeps its queries, while blocks of keys and values
//! go around the ranks (Liu et al. 2023), and with them their gradients.
//!
//! Keys and values are passed on before the rank computes with them, so that sending and computing
//! overlap. Results over several blocks are merged by the logarithms of their sums. Which block is
//! seen by whom is known when programs are built: nothing is computed of blocks that are hidden,
//! and a block goes no further than to the last rank that sees any of it.

use super::{Cut, Mesh};
use crate::composite::attention::Plan;
use crate::error::{Error, Result};
use crate::primitive::Permute;
use crate::program::{Builder, Value};
use crate::types::Type;

/// The positions that a rank has: `first`, `first + step` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Positions {
    first: usize,
    step: usize,
    count: usize,
}

impl Positions {
    /// Those of a part of a dimension that is cut in stretches, or dealt out one by one. `None` if
    /// it is cut otherwise.
    fn of(cut: &Cut, mesh: &Mesh, size: usize, part: usize) -> Option<Positions> {
        let own = cut.range(mesh, size, part);
        let (first, count) = (own.start * cut.unit, own.len() * cut.unit);
        match cut.blocks {
            1 => Some(Positions { first, step: 1, count }),
            _ if count == 1 => Some(Positions { first, step: cut.units(size), count: cut.blocks }),
            _ => None,
        }
    }
}

/// A ring of ranks, seen from one of them. Ranks are numbered by their parts of the positions; the
/// block of a rank goes to the next one first.
pub(super) struct Ring {
    plan: Plan,
    /// Ranks of the mesh.
    group: Vec<usize>,
    positions: Vec<Positions>,
    /// The number of this rank.
    at: usize,
}

/// Keys and values, or their gradients.
type Pair = [Value; 2];

impl Ring {
    /// The ring of the ranks that share the positions of an attention, cut so. `None` if they are
    /// not cut, or in a way in which no mask of local positions says what is seen.
    pub fn new(plan: Plan, mesh: &Mesh, rank: usize, cut: &Cut, size: usize) -> Option<Ring> {
        if cut.is_whole() {
            return None;
        }
        let group = mesh.group(rank, &cut.axes);
        let parts = 0..group.len();
        let positions = parts.map(|part| Positions::of(cut, mesh, size, part));
        let positions = positions.collect::<Option<_>>()?;
        Some(Ring { plan, positions, at: mesh.part(rank, &cut.axes), group })
    }

    fn size(&self) -> usize {
        self.group.len()
    }

    /// The rank that is so many places before another, whose block has gone that far.
    fn before(&self, rank: usize, places: usize) -> usize {
        (rank + self.size() - places) % self.size()
    }

    /// The attention of a rank's queries to a block of keys, in local positions.
    fn local(&self, queries: usize, keys: usize) -> Plan {
        let (queries, keys) = (self.positions[queries], self.positions[keys]);
        let mut plan = self.plan;
        let settings = &mut plan.settings;
        let ahead = queries.first as i64 - keys.first as i64 + settings.offset;
        let in_steps = |distance: i64| distance.div_euclid(queries.step as i64);
        settings.offset = in_steps(ahead);
        if let Some(window) = settings.window {
            // Keys behind this one are seen.
            let last = in_steps(ahead - window as i64);
            // Without causality only the difference of both counts; a window has at least one key.
            let from = if settings.causal { settings.offset } else { last + 1 };
            settings.offset = from;
            settings.window = Some((from - last) as usize);
        }
        plan
    }

    /// As [`Ring::local`]; `None` if no query sees any key.
    fn seen(&self, queries: usize, keys: usize) -> Option<Plan> {
        let plan = self.local(queries, keys);
        (self.pairs(queries, keys) > 0).then_some(plan)
    }

    /// How many pairs of a rank's queries and a block's keys see each other.
    fn pairs(&self, queries: usize, keys: usize) -> usize {
        let plan = self.local(queries, keys);
        match plan.settings.window {
            Some(0) => 0,
            _ => plan.pairs(self.positions[queries].count, self.positions[keys].count),
        }
    }

    /// How many places the block of a rank goes: to the last rank that sees any of it.
    fn trip(&self, of: usize) -> usize {
        let sees = |places: &usize| self.pairs((of + places) % self.size(), of) > 0;
        (1..self.size()).rev().find(sees).unwrap_or(0)
    }

    /// By how much the rank with the most to do has more than the average.
    pub fn imbalance(&self) -> f64 {
        let all = 0..self.size();
        let own = |rank| all.clone().map(|block| self.pairs(rank, block)).sum::<usize>();
        let most = all.clone().map(own).max().unwrap_or(0);
        let sum: usize = all.clone().map(own).sum();
        most as f64 * self.size() as f64 / sum.max(1) as f64
    }

    /// How many blocks a rank sends, on average, if every block comes `home` behind its trip or
    /// not.
    pub fn sent(&self, home: bool) -> f64 {
        let trips = (0..self.size()).map(|rank| self.trip(rank));
        let places = trips.map(|trip| trip + usize::from(home && trip > 0));
        places.sum::<usize>() as f64 / self.size() as f64
    }

    /// The results of an attention, or of its backward pass, from this rank's parts of its operands.
    pub fn emit(&self, b: &mut Builder, operands: &[Value]) -> Result<Vec<Value>> {
        match *operands {
            [q, k, v] => Ok(self.forward(b, [q, k, v])?.to_vec()),
            [q, k, v, out, lse, dout] => Ok(self.backward(b, [q, k, v, out, lse, dout])?.to_vec()),
            _ => Err(Error::new("only keys and values can go around")),
        }
    }

    /// `(out, lse)` of `attention_forward`.
    fn forward(&self, b: &mut Builder, [q, k, v]: [Value; 3]) -> Result<[Value; 2]> {
        let (mut held, mut merged) = (Some([k, v]), None);
        for turn in 0..self.size() {
            let coming = self.pass_on(b, turn, held, [k, v]);
            let block = self.seen(self.at, self.before(self.at, turn));
            if let (Some(plan), Some([k, v])) = (block, held) {
                let part = plan.forward(b, &[q, k, v])?;
                merged = Some(match merged {
                    Some(so_far) => merge(b, so_far, part),
                    None => part,
                });
            }
            held = coming;
        }
        let dtype = b.ty(q).dtype;
        Ok(match merged {
            Some([out, lse]) => [b.cast(out, dtype), lse],
            None => {
                let mut shape = b.ty(q).shape.clone();
                let lse = Type::new(dtype.accumulator(), &shape[..3]);
                shape[3] = b.ty(v).shape[3];
                [b.full(Type::new(dtype, shape), 0.0), b.full(lse, f64::NEG_INFINITY)]
            }
        })
    }

    /// `(dq, dk, dv)` of `attention_backward`, from its operands. Sums of gradients go around with
    /// their block in the accumulator dtype, and home behind the last rank that adds to them.
    fn backward(&self, b: &mut Builder, x: [Value; 6]) -> Result<[Value; 3]> {
        let [q, k, v, out, lse, dout] = x;
        let wide = |b: &mut Builder, pair: Pair| {
            pair.map(|x| {
                let dtype = b.ty(x).dtype.accumulator();
                b.cast(x, dtype)
            })
        };
        let nothing = [k, v].map(|x| b.zeros_like(x));
        let like = wide(b, nothing);
        let mut dq = None;
        let (mut held, mut sums, mut home) = (Some([k, v]), Some(like), None);
        for turn in 0..=self.size() {
            if turn > 0 {
                let returned = self.return_home(b, turn, sums, like);
                home = returned.or(home);
                sums = self.pass_on(b, turn - 1, sums, like);
            }
            if turn == self.size() {
                break;
            }
            let coming = self.pass_on(b, turn, held, [k, v]);
            let block = self.seen(self.at, self.before(self.at, turn));
            if let (Some(plan), Some([k, v])) = (block, held) {
                let [part, dk, dv] = plan.backward(b, &[q, k, v, out, lse], dout)?;
                let more = wide(b, [dk, dv]);
                sums = match sums.filter(|_| turn > 0) {
                    Some(so_far) => Some([0, 1].map(|i| b.add(so_far[i], more[i]))),
                    None => Some(more),
                };
                let dtype = b.ty(part).dtype.accumulator();
                let part = b.cast(part, dtype);
                dq = b.add_some(dq, Some(part));
            }
            if turn == 0 && self.trip(self.at) == 0 {
                home = sums;
            }
            held = coming;
        }
        let dq = dq.unwrap_or_else(|| b.zeros_like(q));
        let [dk, dv] = home.unwrap_or(like);
        let dtype = b.ty(q).dtype;
        Ok([dq, dk, dv].map(|x| b.cast(x, dtype)))
    }

    /// Sends the pair of the block that is here after so many turns to the next rank, if it goes
    /// further, and gives that of the block that comes, which has the types of `like` but for its
    /// number of positions.
    fn pass_on(
        &self,
        b: &mut Builder,
        turn: usize,
        held: Option<Pair>,
        like: Pair,
    ) -> Option<Pair> {
        let goes_on = |block: usize| turn < self.trip(block);
        let sent = held.filter(|_| goes_on(self.before(self.at, turn)));
        let (next, last) = ((self.at + 1) % self.size(), self.before(self.at, 1));
        let block = self.before(last, turn);
        self.send(b, sent.map(|x| (x, next)), goes_on(block).then_some((block, last)), like)
    }

    /// Sends the sums of the block that was here the turn before to its rank, if no other adds to
    /// them, and gives this rank's own if they come.
    fn return_home(
        &self,
        b: &mut Builder,
        turn: usize,
        sums: Option<Pair>,
        like: Pair,
    ) -> Option<Pair> {
        let ends = |block: usize| turn > 1 && self.trip(block) == turn - 1;
        let block = self.before(self.at, turn - 1);
        let sent = sums.filter(|_| ends(block)).map(|x| (x, block));
        let last = (self.at + turn - 1) % self.size();
        self.send(b, sent, ends(self.at).then_some((self.at, last)), like)
    }

    /// Sends a pair to a rank, and gives that of a block which comes from one.
    fn send(
        &self,
        b: &mut Builder,
        sent: Option<(Pair, usize)>,
        comes: Option<(usize, usize)>,
        like: Pair,
    ) -> Option<Pair> {
        if sent.is_none() && comes.is_none() {
            return None;
        }
        let made = [0, 1].map(|i| {
            let mut ty = b.ty(like[i]).clone();
            let x = match sent {
                Some((pair, _)) => pair[i],
                None => b.full(ty.with_shape([0]), 0.0),
            };
            match comes {
                Some((block, _)) => ty.shape[2] = self.positions[block].count,
                None => ty.shape = vec![0],
            }
            let to = sent.iter().map(|&(_, to)| self.group[to]).collect();
            let from = comes.map(|(_, from)| self.group[from]);
            b.emit1(Permute { to, from, ty }, &[x])
        });
        comes.map(|_| made)
    }
}

/// `(out, lse)` over the keys of two, in the accumulator dtype.
fn merge(b: &mut Builder, x: [Value; 2], y: [Value; 2]) -> [Value; 2] {
    let both = [x, y];
    let top = b.max(x[1], y[1]);
    let lowest = b.full_like(top, f64::NEG_INFINITY);
    let empty = b.eq(top, lowest);
    let zero = b.zeros_like(top);
    // Where neither sees a key: minus infinity less itself would be NaN.
    let shift = b.select(empty, zero, top);
    let weights = both.map(|[_, lse]| {
        let s = b.sub(lse, shift);
        b.exp(s)
    });
    let sum = b.add(weights[0], weights[1]);
    let one = b.full_like(sum, 1.0);
    let divisor = b.select(empty, one, sum);
    let parts = [0, 1].map(|i| {
        let dtype = b.ty(sum).dtype;
        let out = b.cast(both[i][0], dtype);
        let share = b.div(weights[i], divisor);
        let share = b.broadcast_reduced(share, &b.ty(out).shape.clone(), &[3]);
        b.mul(out, share)
    });
    let log = b.log(sum);
    [b.add(parts[0], parts[1]), b.add(log, shift)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composite::Attention;

    fn ring(ranks: usize, size: usize, dealt: bool, settings: Attention) -> Ring {
        let mesh = Mesh::new([("context", ranks)]).unwrap();
        let cut = if dealt { Cut::dealt(&mesh, &[0], size) } else { Cut::along(&[0]) };
        let plan = Plan { settings, mask: false, lengths: false };
        Ring::new(plan, &mesh, 0, &cut, size).unwrap()
    }

    #[test]
    fn positions_that_are_dealt_out_share_causal_work() {
        let causal = Attention { causal: true, ..Attention::default() };
        let stretches = ring(4, 64, false, causal).imbalance();
        assert!((stretches - 7.0 / 4.0).abs() < 0.02, "{stretches}");
        let dealt = ring(4, 64, true, causal).imbalance();
        assert!(dealt < 1.05, "{dealt}");
        assert_eq!(ring(4, 64, false, Attention::default()).imbalance(), 1.0);
    }

    #[test]
    fn blocks_go_no_further_than_they_are_seen() {
        let plain = Attention::default();
        let causal = Attention { causal: true, ..plain };
        let trips = |ring: &Ring| (0..4).map(|rank| ring.trip(rank)).collect::<Vec<_>>();
        assert_eq!(trips(&ring(4, 16, false, plain)), [3, 3, 3, 3]);
        assert_eq!(trips(&ring(4, 16, false, causal)), [3, 2, 1, 0]);
        let window = Attention { window: Some(3), ..causal };
        assert_eq!(trips(&ring(4, 16, false, window)), [1, 1, 1, 0]);
        assert_eq!(trips(&ring(4, 16, true, window)), [2, 2, 2, 2]);
    }
}
