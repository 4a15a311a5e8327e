//! Captions as tokens.

use std::sync::Arc;

use super::{Example, ImageSet};
use crate::data::{Result, Tokenizer};

/// Turns captions into token ids of one length.
#[derive(Clone)]
pub struct CaptionEncoder {
    tokenizer: Arc<Tokenizer>,
    length: usize,
}

/// So many captions are looked at to find their longest.
const LOOKED_AT: usize = 10_000;

impl CaptionEncoder {
    /// Captions of `length` tokens: shorter ones are padded with [`CaptionEncoder::pad`], longer
    /// ones cut.
    pub fn new(tokenizer: Arc<Tokenizer>, length: usize) -> CaptionEncoder {
        CaptionEncoder { tokenizer, length }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Tokens of every caption.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The id that pads: the one behind those of the tokenizer.
    pub fn pad(&self) -> i64 {
        self.tokenizer.vocab_size() as i64
    }

    /// Number of ids, with that of the padding.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size() + 1
    }

    /// The ids of a caption, `length` of them.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode(&self, caption: &str) -> Result<Vec<i64>> {
        let ids = self.tokenizer.encode(caption)?;
        let mut ids: Vec<i64> = ids.into_iter().take(self.length).map(i64::from).collect();
        ids.resize(self.length, self.pad());
        Ok(ids)
    }

    /// Tokens of the longest caption among the first ten thousand of a set.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn longest(tokenizer: &Tokenizer, set: &ImageSet) -> Result<usize> {
        let captions = set.examples.iter().flat_map(|example| set.texts(*example));
        let mut longest = 0;
        for caption in captions.take(LOOKED_AT) {
            longest = longest.max(tokenizer.encode(caption)?.len());
        }
        Ok(longest)
    }
}

impl ImageSet {
    /// What can be said about an example: its captions, or else the name of its class.
    pub fn texts(&self, example: Example) -> &[String] {
        match self.captions.get(example.picture as usize) {
            Some(captions) => captions,
            None => {
                let label = example.label as usize;
                self.classes.get(label..=label).unwrap_or_default()
            }
        }
    }
}
