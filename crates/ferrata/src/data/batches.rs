//! Batches as a function of the step.

use std::collections::BTreeMap;

use super::random::{Permutation, Philox};
use super::tokens::{check_length, window};
use super::{Batch, Dataset, Error, HostArray, Result, Tokens, collate};

/// Gives the batch of any step, the same one every time it is asked: training can be resumed at
/// any step, and batches can be made ahead on another thread.
pub trait BatchSource: Send + Sync {
    /// The batch of `step`, counted from zero.
    ///
    /// # Errors
    /// Whatever keeps the samples from being read; [`Error::Dataset`] for a step that does not
    /// exist.
    fn batch(&self, step: u64) -> Result<Batch>;

    /// The number of steps, or `None` if there is no end.
    fn steps(&self) -> Option<u64>;
}

/// A dataset in a new random order every epoch, in batches of equal size without end.
///
/// Batches run over the ends of epochs, so no sample is left out and none is repeated within an
/// epoch.
pub struct Shuffled<D> {
    dataset: D,
    batch_size: usize,
    seed: u64,
}

impl<D: Dataset> Shuffled<D> {
    /// Batches of `batch_size` samples in the order that belongs to `seed`.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the dataset is empty or the batch size zero.
    pub fn new(dataset: D, batch_size: usize, seed: u64) -> Result<Shuffled<D>> {
        check_batch_size(batch_size)?;
        if dataset.is_empty() {
            return Err(Error::Dataset("the dataset is empty; give it samples".into()));
        }
        Ok(Shuffled { dataset, batch_size, seed })
    }

    /// The epochs that are complete before `step`, as a fraction.
    pub fn epochs(&self, step: u64) -> f64 {
        step as f64 * self.batch_size as f64 / self.dataset.len() as f64
    }
}

impl<D: Dataset> BatchSource for Shuffled<D> {
    fn batch(&self, step: u64) -> Result<Batch> {
        let len = self.dataset.len() as u64;
        let first = step.wrapping_mul(self.batch_size as u64);
        let samples: Result<Vec<_>> = (0..self.batch_size as u64)
            .map(|row| {
                let place = first.wrapping_add(row);
                let order = Permutation::new(len, self.seed, place / len);
                self.dataset.get(order.get(place % len) as usize)
            })
            .collect();
        collate(&samples?)
    }

    fn steps(&self) -> Option<u64> {
        None
    }
}

/// Windows at random places of a text, with replacement, without end: `input_ids` and `targets`
/// (one token further), i64 `[batch_size, context]`.
pub struct RandomWindows {
    tokens: Tokens,
    context: usize,
    batch_size: usize,
    random: Philox,
}

impl RandomWindows {
    /// Separates the numbers drawn here from other uses of the same seed.
    const STREAM: u64 = 1 << 63;

    /// Windows of `context` tokens at the places that belong to `seed`.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the text has no window, [`Error::Dataset`] if a size is zero.
    pub fn new(
        tokens: Tokens,
        context: usize,
        batch_size: usize,
        seed: u64,
    ) -> Result<RandomWindows> {
        check_batch_size(batch_size)?;
        check_length(&tokens, context)?;
        let random = Philox::new(seed, RandomWindows::STREAM);
        Ok(RandomWindows { tokens, context, batch_size, random })
    }
}

impl BatchSource for RandomWindows {
    fn batch(&self, step: u64) -> Result<Batch> {
        let places = (self.tokens.len() - self.context) as u64;
        let first = step.wrapping_mul(self.batch_size as u64);
        let mut rows = Rows::new(self.context);
        for row in 0..self.batch_size as u64 {
            let start = self.random.below(first.wrapping_add(row), places) as usize;
            rows.push(&window(&self.tokens, start, self.context));
        }
        rows.into_batch()
    }

    fn steps(&self) -> Option<u64> {
        None
    }
}

/// A text from beginning to end, for evaluation: every token but the first is a target once.
///
/// Batches hold `input_ids` and `targets`, i64, and `weights`, f32, all `[batch_size, context]`;
/// weights are 1, and 0 where the last windows are padded. The mean loss over the text is the sum
/// of loss times weight over all batches, divided by [`SequentialWindows::targets`].
pub struct SequentialWindows {
    tokens: Tokens,
    context: usize,
    batch_size: usize,
}

impl SequentialWindows {
    /// Windows of `context` tokens, one after the other.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there are fewer than two tokens, [`Error::Dataset`] if a size is
    /// zero.
    pub fn new(tokens: Tokens, context: usize, batch_size: usize) -> Result<SequentialWindows> {
        check_batch_size(batch_size)?;
        check_length(&tokens, context.min(1))?;
        Ok(SequentialWindows { tokens, context, batch_size })
    }

    /// The number of targets, which is the sum of all weights.
    pub fn targets(&self) -> usize {
        self.tokens.len() - 1
    }

    /// All batches in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Batch>> {
        (0..self.count()).map(|step| self.batch(step))
    }

    fn count(&self) -> u64 {
        self.targets().div_ceil(self.context).div_ceil(self.batch_size) as u64
    }
}

impl BatchSource for SequentialWindows {
    fn batch(&self, step: u64) -> Result<Batch> {
        if step >= self.count() {
            let what = format!("there is no step {step}; the text ends after {}", self.count());
            return Err(Error::Dataset(what));
        }
        let mut rows = Rows::new(self.context);
        let mut weights = Vec::with_capacity(self.batch_size * self.context);
        for row in 0..self.batch_size {
            let start = (step as usize * self.batch_size + row) * self.context;
            let mut ids = window(&self.tokens, start, self.context);
            let targets = ids.len().saturating_sub(1);
            // A last token without a target is padding like what follows it.
            ids.resize(self.context + 1, 0);
            rows.push(&ids);
            weights.extend((0..self.context).map(|i| if i < targets { 1.0 } else { 0.0 }));
        }
        let mut batch = rows.into_batch()?;
        let shape = [self.batch_size, self.context];
        batch.arrays.insert("weights".to_owned(), HostArray::f32(&shape, weights)?);
        Ok(batch)
    }

    fn steps(&self) -> Option<u64> {
        Some(self.count())
    }
}

/// Collects windows into inputs and targets.
struct Rows {
    context: usize,
    inputs: Vec<i64>,
    targets: Vec<i64>,
}

impl Rows {
    fn new(context: usize) -> Rows {
        Rows { context, inputs: Vec::new(), targets: Vec::new() }
    }

    /// Takes `context + 1` ids.
    fn push(&mut self, ids: &[i64]) {
        self.inputs.extend_from_slice(&ids[..self.context]);
        self.targets.extend_from_slice(&ids[1..]);
    }

    fn into_batch(self) -> Result<Batch> {
        let shape = [self.inputs.len() / self.context, self.context];
        let arrays = BTreeMap::from([
            ("input_ids".to_owned(), HostArray::i64(&shape, self.inputs)?),
            ("targets".to_owned(), HostArray::i64(&shape, self.targets)?),
        ]);
        Ok(Batch { arrays })
    }
}

pub(super) fn check_batch_size(batch_size: usize) -> Result<()> {
    match batch_size {
        0 => Err(Error::Dataset("a batch size of 0 is impossible; set at least 1".into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Sample, TokenDataset, TokenWindows};

    fn counting(count: u32) -> Tokens {
        let ids: Vec<u32> = (0..count).collect();
        TokenDataset::from_ids(&ids, count as usize, vec![0]).unwrap().tokens().clone()
    }

    struct Numbers(usize);

    impl Dataset for Numbers {
        fn len(&self) -> usize {
            self.0
        }

        fn get(&self, index: usize) -> Result<Sample> {
            Ok(Sample::from([("n".to_owned(), HostArray::i64(&[], vec![index as i64])?)]))
        }
    }

    #[test]
    fn every_epoch_has_every_sample_once() {
        for (len, batch_size) in [(10, 3), (7, 7), (5, 12), (1, 1)] {
            let source = Shuffled::new(Numbers(len), batch_size, 4).unwrap();
            let epochs = 6;
            let mut all = Vec::new();
            for step in 0..(len * epochs).div_ceil(batch_size) as u64 {
                let batch = source.batch(step).unwrap();
                assert_eq!(batch.get("n").unwrap().shape, [batch_size]);
                all.extend_from_slice(batch.integers("n").unwrap());
            }
            let orders: Vec<&[i64]> = all.chunks_exact(len).collect();
            for order in &orders {
                let mut sorted = order.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..len as i64).collect::<Vec<_>>());
            }
            assert!(len < 5 || orders[0] != orders[1]);
        }
        let source = Shuffled::new(Numbers(10), 3, 4).unwrap();
        assert_eq!((source.epochs(5), source.steps()), (1.5, None));
        assert!(Shuffled::new(Numbers(0), 1, 0).is_err());
        assert!(Shuffled::new(Numbers(5), 0, 0).is_err());
    }

    #[test]
    fn a_step_is_the_same_whenever_it_is_asked() {
        let source = RandomWindows::new(counting(1000), 8, 4, 7).unwrap();
        let forward: Vec<Batch> = (0..20).map(|step| source.batch(step).unwrap()).collect();
        let other = RandomWindows::new(counting(1000), 8, 4, 7).unwrap();
        for step in (0..20).rev() {
            assert_eq!(other.batch(step).unwrap(), forward[step as usize]);
        }
        let reseeded = RandomWindows::new(counting(1000), 8, 4, 8).unwrap();
        assert_ne!(reseeded.batch(0).unwrap(), forward[0]);
        assert_ne!(forward[0], forward[1]);
        source.batch(u64::MAX).unwrap();
    }

    #[test]
    fn random_windows_reach_every_place() {
        let source = RandomWindows::new(counting(20), 4, 16, 0).unwrap();
        let mut starts = [0; 20];
        for step in 0..100 {
            let batch = source.batch(step).unwrap();
            let inputs = batch.integers("input_ids").unwrap();
            let targets = batch.integers("targets").unwrap();
            for (input, target) in inputs.chunks(4).zip(targets.chunks(4)) {
                assert!(input.windows(2).all(|w| w[1] == w[0] + 1));
                assert!(input.iter().zip(target).all(|(i, t)| *t == i + 1));
                starts[input[0] as usize] += 1;
            }
        }
        assert!(starts[..16].iter().all(|&n| (50..=150).contains(&n)), "{starts:?}");
        assert!(starts[16..].iter().all(|&n| n == 0), "{starts:?}");
        // The shortest possible text has one window.
        let source = RandomWindows::new(counting(5), 4, 1, 0).unwrap();
        assert_eq!(source.batch(3).unwrap().integers("targets").unwrap(), [1, 2, 3, 4]);
        let error = RandomWindows::new(counting(4), 4, 1, 0).err().unwrap().to_string();
        assert!(error.contains("has 4 tokens") && error.contains("at least 5"), "{error}");
        assert!(RandomWindows::new(counting(4), 0, 1, 0).is_err());
    }

    #[test]
    fn evaluation_sees_every_target_once() {
        for (tokens, context, batch_size) in
            [(50, 4, 3), (49, 4, 3), (2, 4, 3), (13, 4, 3), (14, 4, 3), (9, 1, 2), (5, 4, 1)]
        {
            let source = SequentialWindows::new(counting(tokens), context, batch_size).unwrap();
            let mut seen = Vec::new();
            for batch in source.iter() {
                let batch = batch.unwrap();
                let weights = batch.get("weights").unwrap();
                assert_eq!(weights.shape, [batch_size, context]);
                assert_eq!(batch.get("input_ids").unwrap().shape, [batch_size, context]);
                let pairs = batch
                    .integers("input_ids")
                    .unwrap()
                    .iter()
                    .zip(batch.integers("targets").unwrap());
                for ((input, target), weight) in pairs.zip(weights.as_f32().unwrap()) {
                    if *weight == 1.0 {
                        assert_eq!(*target, input + 1);
                        seen.push(*target);
                    }
                }
            }
            assert_eq!(seen, (1..i64::from(tokens)).collect::<Vec<_>>());
            assert_eq!(source.targets(), tokens as usize - 1);
            let steps = source.steps().unwrap();
            assert_eq!(steps as usize, source.iter().count());
            assert!(source.batch(steps).is_err());
        }
        assert!(SequentialWindows::new(counting(1), 4, 1).is_err());
        assert!(SequentialWindows::new(counting(9), 0, 1).is_err());
    }

    #[test]
    fn windows_can_be_shuffled() {
        let windows = TokenWindows::new(counting(33), 4).unwrap();
        let source = Shuffled::new(windows, 8, 1).unwrap();
        let batch = source.batch(0).unwrap();
        let mut inputs = batch.integers("input_ids").unwrap().to_vec();
        inputs.sort_unstable();
        assert_eq!(inputs, (0..32).collect::<Vec<_>>());
    }
}
