//! How long collectives take over the levels of a network.

use crate::hardware::{Cluster, Network};

/// Devices that communicate: `size` of them, each `stride` after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// How many.
    pub size: usize,
    /// From one to the next.
    pub stride: usize,
}

/// A collective, in terms of the bytes of the whole value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Everyone gets the sum.
    AllReduce,
    /// Everyone gets a piece of the sum.
    ReduceScatter,
    /// Everyone gets the pieces of all.
    AllGather,
    /// Everyone has as many bytes as the value and sends an equal piece to each.
    AllToAll,
}

/// What one level contributes to a group: how many members, or groups of members, it joins.
struct Level<'a> {
    network: &'a Network,
    members: usize,
}

impl Cluster {
    /// Seconds of a collective over a group, by the fastest algorithm: rings, trees, or one ring per
    /// level of the network. Other groups of the same kind run at the same time, so that each
    /// device has its own share of every link.
    pub fn collective(&self, kind: Collective, bytes: f64, group: Group) -> f64 {
        if group.size < 2 || bytes <= 0.0 {
            return 0.0;
        }
        let levels = self.levels(group);
        match kind {
            Collective::AllToAll => self.all_to_all(bytes, group, &levels),
            Collective::AllReduce => {
                let halves = 2.0 * self.ring(bytes, group, &levels);
                let sent = halves.min(2.0 * self.by_level(bytes, &levels));
                sent.min(self.tree(bytes, &levels)) + adding(bytes, &levels)
            }
            Collective::ReduceScatter => {
                let sent = self.ring(bytes, group, &levels).min(self.by_level(bytes, &levels));
                sent + adding(bytes, &levels)
            }
            Collective::AllGather => {
                self.ring(bytes, group, &levels).min(self.by_level(bytes, &levels))
            }
        }
    }

    /// Seconds until `bytes` are at a device `distance` further on.
    pub fn send(&self, bytes: f64, distance: usize) -> f64 {
        if bytes <= 0.0 {
            return 0.0;
        }
        let network = self.between(distance);
        network.latency + bytes / self.rate(network)
    }

    /// The network that joins devices so far apart.
    pub fn between(&self, distance: usize) -> &Network {
        let joins = |network: &&Network| network.size.is_none_or(|size| distance < size);
        self.network.iter().find(joins).unwrap_or(&self.network[self.network.len() - 1])
    }

    fn rate(&self, network: &Network) -> f64 {
        network.bandwidth * self.calibration.link
    }

    /// The levels that a group spans, the innermost first.
    fn levels(&self, group: Group) -> Vec<Level<'_>> {
        let mut joined = 1;
        let mut levels = Vec::new();
        for network in &self.network {
            let within = match network.size {
                Some(size) => (size / group.stride).clamp(1, group.size),
                None => group.size,
            };
            if within > joined {
                levels.push(Level { network, members: within.div_ceil(joined) });
                joined = within;
            }
        }
        levels
    }

    /// One half of an all-reduce in a ring through all members. On a level that joins groups of
    /// members, each of them has a link of its own, and all carry a share.
    fn ring(&self, bytes: f64, group: Group, levels: &[Level]) -> f64 {
        let steps = (group.size - 1) as f64;
        let mut inner = 1.0;
        let mut rate = f64::INFINITY;
        let mut latency = 0.0;
        for level in levels {
            rate = rate.min(self.rate(level.network) * inner);
            latency = level.network.latency.max(latency);
            inner *= level.members as f64;
        }
        steps * latency + steps / group.size as f64 * bytes / rate
    }

    /// The same in one ring per level: within the inner ones first, then every member with its
    /// piece across the outer ones.
    fn by_level(&self, bytes: f64, levels: &[Level]) -> f64 {
        let mut piece = bytes;
        let mut time = 0.0;
        for level in levels {
            let (steps, members) = ((level.members - 1) as f64, level.members as f64);
            let rate = self.rate(level.network);
            time += steps * level.network.latency + steps / members * piece / rate;
            piece /= members;
        }
        time
    }

    /// An all-reduce up and down a binary tree: for small values.
    fn tree(&self, bytes: f64, levels: &[Level]) -> f64 {
        let one = |level: &Level| {
            let depth = (level.members as f64).log2().ceil();
            2.0 * depth * level.network.latency + 2.0 * bytes / self.rate(level.network)
        };
        levels.iter().map(one).sum()
    }

    fn all_to_all(&self, bytes: f64, group: Group, levels: &[Level]) -> f64 {
        let piece = bytes / group.size as f64;
        let mut joined = 1;
        let mut time = 0.0;
        for level in levels {
            let within = joined * level.members;
            let others = (within.min(group.size) - joined) as f64;
            time += level.network.latency + others * piece / self.rate(level.network);
            joined = within;
        }
        time
    }
}

/// Seconds in which each member adds up its piece of a sum, where it cannot receive meanwhile.
fn adding(bytes: f64, levels: &[Level]) -> f64 {
    let mut piece = bytes;
    let one = |level: &Level| {
        let members = level.members as f64;
        let received = piece * (members - 1.0) / members;
        piece /= members;
        level.network.reduction.map_or(0.0, |rate| received / rate)
    };
    levels.iter().map(one).sum()
}
