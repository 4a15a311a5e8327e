//! Text to token ids and back.

mod hugging_face;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use ferrata_formats::atomic;
use serde_json::{Value, json};

use super::error::one_line;
use super::{Error, Result};
use hugging_face::HuggingFace;
pub use stream::StreamDecoder;

/// The file of a Hugging Face tokenizer.
const TOKENIZER: &str = "tokenizer.json";
/// The file of a character or byte tokenizer.
const VOCABULARY: &str = "vocab.json";
/// So many bytes of text are encoded at a time: an encoding takes far more than its ids.
const GROUP: usize = 1 << 22;

/// Turns text into token ids and back: by characters, by bytes, or as a Hugging Face
/// `tokenizer.json` says.
///
/// ```
/// use ferrata::data::Tokenizer;
///
/// let tokenizer = Tokenizer::characters(&["hello world"])?;
/// let ids = tokenizer.encode("hold")?;
/// assert_eq!(tokenizer.decode(&ids)?, "hold");
/// assert_eq!(tokenizer.vocab_size(), 8);
/// # Ok::<(), ferrata::data::Error>(())
/// ```
pub struct Tokenizer {
    kind: Kind,
}

enum Kind {
    Characters { characters: Vec<char>, ids: HashMap<char, u32> },
    Bytes,
    HuggingFace(Box<HuggingFace>),
}

impl Tokenizer {
    /// One token per character; the vocabulary is the sorted set of characters of `documents`.
    ///
    /// # Errors
    /// [`Error::NoText`] if there are no characters.
    pub fn characters<T: AsRef<str>>(documents: &[T]) -> Result<Tokenizer> {
        let mut seen = vec![false; char::MAX as usize + 1];
        documents.iter().flat_map(|d| d.as_ref().chars()).for_each(|c| seen[c as usize] = true);
        let characters: Vec<char> = ('\0'..=char::MAX).filter(|&c| seen[c as usize]).collect();
        if characters.is_empty() {
            let remedy = "give text to take the vocabulary from";
            return Err(Error::NoText { place: "the documents".into(), remedy });
        }
        Ok(Tokenizer::from_characters(characters))
    }

    /// One token per byte of UTF-8; 256 ids.
    pub fn bytes() -> Tokenizer {
        Tokenizer { kind: Kind::Bytes }
    }

    /// Trains a byte-level BPE tokenizer with at most `vocab_size` ids (fewer if the text is
    /// short): a token `<|endoftext|>`, the 256 bytes, and merges by frequency. It encodes any
    /// text, and the same documents give the same tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if `vocab_size` is below 257, [`Error::NoText`] if there is no text.
    pub fn train_bpe<T: AsRef<str>>(documents: &[T], vocab_size: usize) -> Result<Tokenizer> {
        if documents.iter().all(|document| document.as_ref().is_empty()) {
            let remedy = "give text to train the tokenizer on";
            return Err(Error::NoText { place: "the documents".into(), remedy });
        }
        let inner = HuggingFace::train(documents, vocab_size)?;
        Ok(Tokenizer { kind: Kind::HuggingFace(Box::new(inner)) })
    }

    /// Reads the tokenizer at `path`: a `tokenizer.json`, a `vocab.json` with a list of characters,
    /// or a folder with one of them.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Tokenizer`] if it is none.
    pub fn load(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let file = if path.is_dir() {
            let candidates = [path.join(TOKENIZER), path.join(VOCABULARY)];
            candidates.into_iter().find(|file| file.is_file()).ok_or_else(|| {
                let folder = path.display();
                Error::Tokenizer(format!(
                    "`{folder}` has no {TOKENIZER} and no {VOCABULARY}; copy the tokenizer there"
                ))
            })?
        } else {
            path.to_path_buf()
        };
        let text = fs::read(&file).map_err(|e| Error::io("read", &file, e))?;
        Tokenizer::from_json(&text)
            .map_err(|what| Error::Tokenizer(format!("`{}`: {}", file.display(), one_line(what))))
    }

    /// Makes the tokenizer from the text of one of its files; on failure says what is wrong.
    fn from_json(text: &[u8]) -> std::result::Result<Tokenizer, String> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|e| format!("not valid JSON ({e}); copy or make it again"))?;
        if let Some(list) = value.get("chars") {
            return read_characters(list).map(Tokenizer::from_characters);
        }
        if value.get("bytes") == Some(&Value::from(256)) {
            return Ok(Tokenizer::bytes());
        }
        if value.get("model").is_none() {
            return Err(
                "neither a tokenizer.json nor a list of characters; give one of them".into()
            );
        }
        let inner = HuggingFace::from_json(text)?;
        Ok(Tokenizer { kind: Kind::HuggingFace(Box::new(inner)) })
    }

    fn from_characters(characters: Vec<char>) -> Tokenizer {
        let ids = (0..).zip(&characters).map(|(id, &c)| (c, id)).collect();
        Tokenizer { kind: Kind::Characters { characters, ids } }
    }

    /// Writes the tokenizer's file into `folder`, atomically; [`Tokenizer::load`] reads it back.
    ///
    /// # Errors
    /// [`Error::Formats`] if it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let (name, content) = self.file()?;
        let path = folder.join(name);
        atomic::write_bytes(&path, content.as_bytes())?;
        Ok(path)
    }

    /// Name and content of the tokenizer's file, to be put into a checkpoint: `tokenizer.json` in
    /// Hugging Face's format, or `vocab.json` with the list of characters, id = index.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a Hugging Face tokenizer has no text form.
    pub fn file(&self) -> Result<(&'static str, String)> {
        match &self.kind {
            Kind::Characters { characters, .. } => {
                Ok((VOCABULARY, format!("{}\n", json!({"chars": characters}))))
            }
            Kind::Bytes => Ok((VOCABULARY, format!("{}\n", json!({"bytes": 256})))),
            Kind::HuggingFace(inner) => Ok((TOKENIZER, inner.to_json()?)),
        }
    }

    /// A hash of everything that determines the ids: equal for equal tokenizers.
    ///
    /// # Errors
    /// Those of [`Tokenizer::file`].
    pub fn identity(&self) -> Result<String> {
        Ok(blake3::hash(self.file()?.1.as_bytes()).to_hex().to_string())
    }

    /// `characters`, `bytes` or `tokenizer.json`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Characters { .. } => "characters",
            Kind::Bytes => "bytes",
            Kind::HuggingFace(_) => TOKENIZER,
        }
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Characters { characters, .. } => characters.len(),
            Kind::Bytes => 256,
            Kind::HuggingFace(inner) => inner.vocab_size(),
        }
    }

    /// The id that separates documents, if the tokenizer has one.
    pub fn end_of_text(&self) -> Option<u32> {
        match &self.kind {
            Kind::HuggingFace(inner) => inner.end_of_text(),
            _ => None,
        }
    }

    /// The ids of `text`, without any that mark its beginning or end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] that names a character outside a character vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        self.encode_each(&[text], |_, ids| {
            all.extend_from_slice(ids);
            Ok::<_, Error>(())
        })?;
        Ok(all)
    }

    /// Gives `take` the ids of all documents, in order and in parts, each with the number of its
    /// document; a document without ids gives no part. Only a few MiB of text are in work at a
    /// time, on several threads where that pays.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`] and of `take`.
    pub fn encode_each<T: AsRef<str>, E: From<Error>>(
        &self,
        documents: &[T],
        mut take: impl FnMut(usize, &[u32]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if let Kind::HuggingFace(inner) = &self.kind {
            return inner.encode_each(documents, take);
        }
        for (number, document) in documents.iter().enumerate() {
            let text = document.as_ref();
            let mut start = 0;
            while start < text.len() {
                let end = (start + GROUP).min(text.len());
                let end = (start..=end).rev().find(|&at| text.is_char_boundary(at));
                let end = end.unwrap_or(text.len());
                take(number, &self.encode_part(&text[start..end], start)?)?;
                start = end;
            }
        }
        Ok(())
    }

    /// The ids of a part of a text that begins at byte `start`, character by character or byte by
    /// byte.
    fn encode_part(&self, part: &str, start: usize) -> Result<Vec<u32>> {
        let Kind::Characters { characters, ids } = &self.kind else {
            return Ok(part.bytes().map(u32::from).collect());
        };
        let id = |(at, c): (usize, char)| {
            ids.get(&c).copied().ok_or_else(|| unknown(c, start + at, characters.len()))
        };
        part.char_indices().map(id).collect()
    }

    /// The ids of a prompt: with the marks (such as a beginning-of-text id) that a Hugging Face
    /// tokenizer puts around a text.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::HuggingFace(inner) => inner.encode_prompt(text),
            _ => self.encode(text),
        }
    }

    /// The text of `ids`. Special tokens are left out; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for an id that the tokenizer does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if !self.has_bytes() {
            ids.iter().try_for_each(|&id| self.check(id))?;
            if let Kind::HuggingFace(inner) = &self.kind {
                return inner.decode(ids);
            }
        }
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(&self.token_bytes(id)?);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Decodes ids one by one, as they are generated.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// Whether every token is a fixed sequence of bytes whatever stands beside it.
    fn has_bytes(&self) -> bool {
        match &self.kind {
            Kind::Characters { .. } | Kind::Bytes => true,
            Kind::HuggingFace(inner) => inner.is_byte_level(),
        }
    }

    /// The bytes of a token, if [`Tokenizer::has_bytes`]; none for special tokens.
    fn token_bytes(&self, id: u32) -> Result<Cow<'static, [u8]>> {
        self.check(id)?;
        Ok(match &self.kind {
            Kind::Characters { characters, .. } => {
                let character = characters.get(id as usize).copied();
                character.map(String::from).unwrap_or_default().into_bytes().into()
            }
            Kind::Bytes => vec![id as u8].into(),
            Kind::HuggingFace(inner) => inner.token_bytes(id).into(),
        })
    }

    fn check(&self, id: u32) -> Result<()> {
        let vocab_size = self.vocab_size();
        if (id as usize) < vocab_size {
            return Ok(());
        }
        Err(Error::Vocabulary {
            place: "decoding".into(),
            id: i64::from(id),
            vocab_size,
            remedy: "use the tokenizer that belongs to the model",
        })
    }
}

fn unknown(character: char, at: usize, size: usize) -> Error {
    Error::Tokenizer(format!(
        "the character {character:?} at byte {at} is not among the {size} of the vocabulary; leave \
         it out, or use a byte or BPE tokenizer"
    ))
}

fn read_characters(list: &Value) -> std::result::Result<Vec<char>, String> {
    let mut seen = BTreeSet::new();
    let mut characters = Vec::new();
    for (id, entry) in list.as_array().into_iter().flatten().enumerate() {
        let mut text = entry.as_str().unwrap_or_default().chars();
        match (text.next(), text.next()) {
            (Some(c), None) if seen.insert(c) => characters.push(c),
            (Some(c), None) => return Err(format!("the character {c:?} occurs twice; remove one")),
            _ => return Err(format!("entry {id} of `chars` is not one character; correct it")),
        }
    }
    match characters.is_empty() {
        true => Err("`chars` is not a list of characters; give one".into()),
        false => Ok(characters),
    }
}
