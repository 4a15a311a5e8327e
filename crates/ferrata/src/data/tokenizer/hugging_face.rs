//! Tokenizers in Hugging Face's format, by the `tokenizers` crate.

use std::collections::HashMap;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper};

use super::GROUP;
use crate::data::error::one_line;
use crate::data::{Error, Result};

/// Longer texts are encoded in pieces of about this many bytes.
const PIECE: usize = 1 << 16;
/// What publishers call the token between documents.
const END_OF_TEXT: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];

pub(super) struct HuggingFace {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    end_of_text: Option<u32>,
    /// The value of every character of byte-level tokens, if that is how tokens are written.
    byte_values: Option<HashMap<char, u8>>,
    /// Whether text may be cut at line ends without changing its ids.
    divisible: bool,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(one_line(error))
}

impl HuggingFace {
    pub(super) fn from_json(text: &[u8]) -> std::result::Result<HuggingFace, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(text)
            .map_err(|e| format!("not a tokenizer that can be read ({e}); make it again"))?;
        // Ids are wanted as they are: models say themselves how long a text may be.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        Ok(HuggingFace::new(inner))
    }

    fn new(inner: tokenizers::Tokenizer) -> HuggingFace {
        let vocabulary = inner.get_vocab(true);
        let vocab_size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        let end_of_text = END_OF_TEXT.iter().find_map(|name| vocabulary.get(*name).copied());
        let byte_values =
            matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))).then(byte_values);
        let divisible =
            inner.get_normalizer().is_none() && inner.get_pre_tokenizer().is_some_and(is_divisible);
        HuggingFace { inner, vocab_size, end_of_text, byte_values, divisible }
    }

    pub(super) fn train<T: AsRef<str>>(documents: &[T], vocab_size: usize) -> Result<HuggingFace> {
        let [end_of_text, ..] = END_OF_TEXT;
        let smallest = ByteLevel::alphabet().len() + 1;
        if vocab_size < smallest {
            return Err(Error::Tokenizer(format!(
                "a vocabulary of {vocab_size} is too small for the 256 bytes and {end_of_text}; set \
                 at least {smallest}"
            )));
        }
        let byte_level = ByteLevel::new(false, true, true);
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size)
            .min_frequency(2)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(end_of_text, true)])
            .build();
        let texts: Vec<&str> = documents.iter().flat_map(|d| pieces(d.as_ref())).collect();
        inner.train(&mut TrainerWrapper::BpeTrainer(trainer), texts.into_iter()).map_err(failed)?;
        // Through the text form, so that a trained tokenizer is the one that is read back.
        HuggingFace::from_json(inner.to_string(false).map_err(failed)?.as_bytes())
            .map_err(Error::Tokenizer)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(failed)
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(super) fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    pub(super) fn is_byte_level(&self) -> bool {
        self.byte_values.is_some()
    }

    /// See [`super::Tokenizer::encode_each`].
    pub(super) fn encode_each<T: AsRef<str>, E: From<Error>>(
        &self,
        documents: &[T],
        mut take: impl FnMut(usize, &[u32]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut group: Vec<(usize, &str)> = Vec::new();
        let mut size = 0;
        for (number, document) in documents.iter().enumerate() {
            let text = document.as_ref();
            for piece in if self.divisible { pieces(text) } else { vec![text] } {
                size += piece.len();
                group.push((number, piece));
                if size >= GROUP {
                    self.encode_group(&mut group, &mut take)?;
                    size = 0;
                }
            }
        }
        self.encode_group(&mut group, &mut take)
    }

    /// Gives `take` the ids of each piece, and empties the group.
    fn encode_group<E: From<Error>>(
        &self,
        group: &mut Vec<(usize, &str)>,
        take: &mut impl FnMut(usize, &[u32]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let inputs: Vec<&str> = group.iter().map(|(_, piece)| *piece).collect();
        let encodings = self.inner.encode_batch_fast(inputs, false).map_err(failed)?;
        for ((number, _), encoding) in group.drain(..).zip(encodings) {
            take(number, encoding.get_ids())?;
        }
        Ok(())
    }

    pub(super) fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(failed)
    }

    /// The bytes of a token of a byte-level tokenizer.
    pub(super) fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        if self.inner.get_added_vocabulary().is_special_token(&token) {
            return Vec::new();
        }
        let values = self.byte_values.as_ref();
        let bytes: Option<Vec<u8>> =
            token.chars().map(|c| values.and_then(|values| values.get(&c).copied())).collect();
        // An added token is written as it is.
        bytes.unwrap_or_else(|| token.into_bytes())
    }
}

/// Byte-level tokens are written with one printable character per byte: those that print stand for
/// themselves, the others for 256, 257, … in their order.
fn byte_values() -> HashMap<char, u8> {
    let prints = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let (visible, others): (Vec<u8>, Vec<u8>) = (0..=255).partition(prints);
    let substitutes = ('\u{100}'..).zip(others);
    visible.into_iter().map(|byte| (char::from(byte), byte)).chain(substitutes).collect()
}

fn is_divisible(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(level) => !level.add_prefix_space,
        PreTokenizerWrapper::Split(_) | PreTokenizerWrapper::Digits(_) => true,
        PreTokenizerWrapper::Sequence(all) => all.as_ref().iter().all(is_divisible),
        _ => false,
    }
}

/// Cuts a long text after line ends between two visible characters. There the patterns of byte-level
/// tokenizers cut too (a longer run of white space would be grouped differently).
fn pieces(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = text;
    while rest.len() > PIECE {
        let end = rest.as_bytes()[PIECE..]
            .windows(3)
            .position(|w| w[0].is_ascii_graphic() && w[1] == b'\n' && w[2].is_ascii_graphic());
        let Some(end) = end else { break };
        let (piece, remainder) = rest.split_at(PIECE + end + 2);
        all.push(piece);
        rest = remainder;
    }
    all.push(rest);
    all
}
