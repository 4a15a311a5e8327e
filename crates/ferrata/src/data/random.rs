//! Random numbers by position: any one can be computed without those before it.

/// Philox 4×32-10: a keyed bijection of counters whose outputs pass as random.
#[derive(Clone, Copy, Debug)]
pub(super) struct Philox {
    key: [u32; 2],
    /// Separates uses of one seed.
    stream: u64,
}

impl Philox {
    pub(super) fn new(seed: u64, stream: u64) -> Philox {
        Philox { key: [seed as u32, (seed >> 32) as u32], stream }
    }

    /// 64 random bits for `counter`.
    pub(super) fn bits(&self, counter: u64) -> u64 {
        let counter = [
            counter as u32,
            (counter >> 32) as u32,
            self.stream as u32,
            (self.stream >> 32) as u32,
        ];
        let [a, b, _, _] = philox(counter, self.key);
        u64::from(a) | (u64::from(b) << 32)
    }

    /// A number below `n`, which is not zero; the bias is at most `n / 2⁶⁴`.
    pub(super) fn below(&self, counter: u64, n: u64) -> u64 {
        ((u128::from(self.bits(counter)) * u128::from(n)) >> 64) as u64
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let p = u64::from(a) * u64::from(MULTIPLIERS[0]);
        let q = u64::from(c) * u64::from(MULTIPLIERS[1]);
        counter =
            [(q >> 32) as u32 ^ b ^ key[0], q as u32, (p >> 32) as u32 ^ d ^ key[1], p as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A pseudo-random order of `0..len` with constant-time access to any place.
///
/// A Feistel network permutes the next power of four; values beyond `len` are permuted again until
/// they fall inside, at most a few times on average.
///
/// ```
/// use ferrata::data::Permutation;
///
/// let order = Permutation::new(5, 42, 0);
/// let mut all: Vec<u64> = (0..5).map(|i| order.get(i)).collect();
/// all.sort();
/// assert_eq!(all, [0, 1, 2, 3, 4]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    /// Bits of each half.
    bits: u32,
    random: Philox,
}

/// Enough that neighbours part in small domains too, where four rounds leave patterns.
const ROUNDS: u64 = 8;

impl Permutation {
    /// The order of `len` items that belongs to `seed` and `epoch`.
    pub fn new(len: u64, seed: u64, epoch: u64) -> Permutation {
        let needed = u64::BITS - len.saturating_sub(1).leading_zeros();
        Permutation { len, bits: needed.div_ceil(2).max(1), random: Philox::new(seed, epoch) }
    }

    /// The item at place `position`, which is taken modulo the length; 0 if there are no items.
    pub fn get(&self, position: u64) -> u64 {
        let Some(mut value) = position.checked_rem(self.len) else { return 0 };
        loop {
            value = self.shuffle(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn shuffle(&self, value: u64) -> u64 {
        let mask = (1u64 << self.bits) - 1;
        let (mut left, mut right) = (value >> self.bits, value & mask);
        for round in 0..ROUNDS {
            // A half has at most 32 bits, so the round fits above it.
            let mixed = left ^ (self.random.bits((round << 32) | right) & mask);
            (left, right) = (right, mixed);
        }
        (left << self.bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_numbers() {
        // Known answers of the Random123 library.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn every_item_comes_once() {
        for len in [1u64, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097] {
            for (seed, epoch) in [(0, 0), (1, 0), (u64::MAX, 7)] {
                let order = Permutation::new(len, seed, epoch);
                let mut seen = vec![false; len as usize];
                for i in 0..len {
                    let item = order.get(i) as usize;
                    assert!(!seen[item], "{item} twice in {len}");
                    seen[item] = true;
                }
            }
        }
        let huge = Permutation::new(u64::MAX, 1, 0);
        assert!(huge.get(5) < u64::MAX && huge.get(5) != huge.get(6));
        assert_eq!(Permutation::new(0, 1, 0).get(3), 0);
    }

    #[test]
    fn seeds_and_epochs_give_different_orders() {
        let order = |seed, epoch| -> Vec<u64> {
            (0..100).map(|i| Permutation::new(100, seed, epoch).get(i)).collect()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
    }

    #[test]
    fn places_are_evenly_used() {
        // Where does item 0 of 10 land over 20,000 epochs? Expected 2,000 each, deviation 42.
        for len in [3u64, 10] {
            let mut counts = vec![0i64; len as usize];
            for epoch in 0..20_000 {
                counts[Permutation::new(len, 3, epoch).get(0) as usize] += 1;
            }
            let expected = 20_000 / len as i64;
            assert!(counts.iter().all(|c| (c - expected).abs() < 350), "{counts:?}");
        }
        let random = Philox::new(9, 0);
        let mut counts = [0i64; 7];
        (0..70_000).for_each(|i| counts[random.below(i, 7) as usize] += 1);
        assert!(counts.iter().all(|c| (c - 10_000).abs() < 500), "{counts:?}");
    }
}
