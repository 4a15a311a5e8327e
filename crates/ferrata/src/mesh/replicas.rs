//! Replicas: ranks that hold the same part of a tensor have to hold the same bits.

use super::{MeshDevice, part};
use crate::Tensor;
use crate::tensor::State;
use ferrata_compiler::Device as _;
use ferrata_ir::{Error, Result};
use std::collections::BTreeMap;

/// Bytes of a checksum.
const SUM: usize = 8;

/// The ranks whose checksum is another than that of most of their replicas; all of them where no
/// sum has most.
fn odd(sums: &[(usize, [u8; SUM])]) -> Vec<usize> {
    let mut counts: BTreeMap<[u8; SUM], usize> = BTreeMap::new();
    sums.iter().for_each(|(_, sum)| *counts.entry(*sum).or_default() += 1);
    let most = counts.values().copied().max().unwrap_or(0);
    let usual = counts.iter().find(|(_, n)| **n == most && 2 * most > sums.len());
    let differs = |(_, sum): &&(usize, [u8; SUM])| usual.is_none_or(|(usual, _)| usual != sum);
    match counts.len() {
        0 | 1 => Vec::new(),
        _ => sums.iter().filter(differs).map(|(rank, _)| *rank).collect(),
    }
}

impl MeshDevice {
    /// Compares what ranks hold of these tensors with what their replicas do; all ranks have to ask
    /// at the same time. Training gives replicas of one stage the same bits on machines with the
    /// same instructions (others are not compared), so where they differ a machine has computed or
    /// kept something wrong.
    ///
    /// # Errors
    /// Names the first tensor that differs and the ranks that have it otherwise than most; when a
    /// rank is lost.
    pub fn check_replicas(&self, named: &[(String, Tensor)]) -> Result<()> {
        let mesh = self.mesh();
        let mut sums = Vec::with_capacity(named.len() * SUM);
        let mut held = Vec::with_capacity(named.len());
        for (name, tensor) in named {
            let State::Concrete(stored) = tensor.state() else {
                return Err(Error::new(format!("`{name}` has not been computed")));
            };
            let part = part(&stored.buffer)?;
            let bytes = self.shared.inner.download(&part.get()?)?;
            sums.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..SUM]);
            held.push(part.placement.sharding.clone());
        }
        // Other instructions round otherwise.
        let own = blake3::hash(self.fingerprint().as_bytes());
        sums.extend_from_slice(&own.as_bytes()[..SUM]);
        let all = self.gather(&sums)?;
        let alike = |sums: &Vec<u8>| sums[named.len() * SUM..] == own.as_bytes()[..SUM];
        if !all.iter().all(alike) {
            return Ok(());
        }
        // Stages run programs of their own.
        let pipeline = mesh.axis("pipeline");
        for (i, ((name, _), sharding)) in named.iter().zip(&held).enumerate() {
            // By the coordinates that say what a rank holds.
            let mut replicas: BTreeMap<Vec<usize>, Vec<(usize, [u8; SUM])>> = BTreeMap::new();
            for (rank, sums) in all.iter().enumerate() {
                let mut sum = [0; SUM];
                sum.copy_from_slice(&sums[i * SUM..][..SUM]);
                let mut place = sharding.replica(mesh, rank);
                place.extend(pipeline.map(|axis| mesh.part(rank, &[axis])));
                replicas.entry(place).or_default().push((rank, sum));
            }
            for sums in replicas.values() {
                let odd = odd(sums);
                if odd.is_empty() {
                    continue;
                }
                let list = |ranks: &[usize]| -> String {
                    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
                    ranks.join(", ")
                };
                let all: Vec<usize> = sums.iter().map(|(rank, _)| *rank).collect();
                let whose = match odd.len() == all.len() {
                    true => format!("ranks {} hold other bits each", list(&all)),
                    false => format!(
                        "of ranks {} it is rank {} that holds other bits",
                        list(&all),
                        list(&odd)
                    ),
                };
                return Err(Error::new(format!("replicas differ in `{name}`: {whose}")).help(
                    "a machine has computed or kept something wrong: take it out and resume from \
                     the last checkpoint",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_out_is_named() {
        let sums = |values: &[u8]| -> Vec<(usize, [u8; SUM])> {
            values.iter().map(|&x| [x; SUM]).enumerate().collect()
        };
        assert!(odd(&sums(&[7, 7, 7])).is_empty());
        assert_eq!(odd(&sums(&[7, 7, 3, 7])), [2]);
        // Of two nobody knows which one is wrong.
        assert_eq!(odd(&sums(&[7, 3])), [0, 1]);
        assert_eq!(odd(&sums(&[7, 7, 3, 3])), [0, 1, 2, 3]);
    }
}
