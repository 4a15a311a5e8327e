//! Decoding ids one by one.

use super::{Kind, Tokenizer};
use crate::data::Result;

/// After so many ids without a complete character the text is given out as it is.
const MAX_PENDING: usize = 16;

/// Gives out text as soon as it is complete: a character whose bytes are spread over several
/// tokens comes with the last of them. All pieces together are the text that
/// [`Tokenizer::decode`] gives for all ids.
///
/// ```
/// use ferrata::data::Tokenizer;
///
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = tokenizer.stream();
/// assert_eq!(stream.push(0xc3)?, "");
/// assert_eq!(stream.push(0xa9)?, "é");
/// assert_eq!(stream.finish()?, "");
/// # Ok::<(), ferrata::data::Error>(())
/// ```
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The beginning of a character, where tokens are bytes.
    bytes: Vec<u8>,
    /// Where the text of a token depends on those before it: the ids given out last,
    given: Vec<u32>,
    /// and those not given out yet.
    pending: Vec<u32>,
}

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> StreamDecoder<'a> {
        StreamDecoder { tokenizer, bytes: Vec::new(), given: Vec::new(), pending: Vec::new() }
    }

    /// Takes one id and gives the text that is complete now, often none or one word.
    ///
    /// # Errors
    /// [`crate::data::Error::Vocabulary`] for an id that the tokenizer does not have.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.tokenizer.has_bytes() {
            self.bytes.extend_from_slice(&self.tokenizer.token_bytes(id)?);
            return Ok(self.take_complete());
        }
        self.tokenizer.check(id)?;
        self.pending.push(id);
        self.take_pending(self.pending.len() >= MAX_PENDING)
    }

    /// Gives what is left at the end.
    ///
    /// # Errors
    /// [`crate::data::Error::Tokenizer`] if the tokenizer cannot decode the ids.
    pub fn finish(mut self) -> Result<String> {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Ok(text + &self.take_pending(true)?)
    }

    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.bytes.as_slice();
        loop {
            let (valid, invalid) = match str::from_utf8(rest) {
                Ok(_) => (rest.len(), None),
                Err(e) => (e.valid_up_to(), Some(e.error_len())),
            };
            text += &String::from_utf8_lossy(&rest[..valid]);
            rest = &rest[valid..];
            // Without a length the rest may be the beginning of a character.
            let Some(Some(length)) = invalid else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[length..];
        }
        self.bytes = rest.to_vec();
        text
    }

    fn take_pending(&mut self, all: bool) -> Result<String> {
        let Kind::HuggingFace(inner) = &self.tokenizer.kind else { return Ok(String::new()) };
        let before = inner.decode(&self.given)?;
        let ids = [self.given.as_slice(), &self.pending].concat();
        let text = inner.decode(&ids)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && !all {
            return Ok(String::new());
        }
        let new = text.get(before.len()..).unwrap_or_default().to_owned();
        // Ids without text (special tokens) would not show where the text of the next begins.
        if !new.is_empty() {
            self.given.clear();
        }
        self.given.append(&mut self.pending);
        Ok(new)
    }
}
