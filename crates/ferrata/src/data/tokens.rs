//! Token ids in memory-mapped files, cached under a hash of what they were made from.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ferrata_formats::{MappedFile, atomic};
use serde::{Deserialize, Serialize};

use super::{Dataset, Document, Error, HostArray, Result, Sample, Tokenizer};

/// A change of what is written for the same text and tokenizer must change this.
const CACHE_VERSION: &str = "ferrata tokens 1";

/// The token ids of some documents.
///
/// In a cache folder they stand in two files: `HASH.bin` with the ids as little-endian numbers of
/// 16 bits (32 if the vocabulary needs them), and `HASH.json`, written last, that describes it.
#[derive(Clone, Debug)]
pub struct TokenDataset {
    tokens: Tokens,
    vocab_size: usize,
    /// Where each document begins.
    documents: Arc<[usize]>,
}

/// A stretch of token ids; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    storage: Arc<Storage>,
    /// Bytes of one id.
    width: usize,
    /// In ids, not bytes.
    range: Range<usize>,
}

#[derive(Debug)]
enum Storage {
    Mapped(MappedFile),
    Memory(Vec<u8>),
}

impl Storage {
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Mapped(map) => map,
            Storage::Memory(bytes) => bytes,
        }
    }
}

/// Where the validation part begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// After this fraction of the tokens.
    Tokens(f64),
    /// At the beginning of a document, the one nearest to this fraction of the tokens.
    Documents(f64),
}

/// What `HASH.json` says.
#[derive(Serialize, Deserialize)]
struct Description {
    width: usize,
    tokens: usize,
    vocab_size: usize,
    documents: Vec<usize>,
    checksum: String,
}

impl TokenDataset {
    /// Encodes `documents`; between two of them stands the tokenizer's end-of-text id, if it has
    /// one.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`]; [`Error::NoText`] if there are no tokens.
    pub fn new(documents: &[Document], tokenizer: &Tokenizer) -> Result<TokenDataset> {
        let mut bytes = Vec::new();
        let layout = encode(documents, tokenizer, &mut bytes).map_err(|failure| match failure {
            Failure::Encode(error) => error,
            Failure::Write(error) => Error::Dataset(format!("no memory for the ids ({error})")),
        })?;
        Ok(layout.dataset(Storage::Memory(bytes), tokenizer))
    }

    /// As [`TokenDataset::new`], kept in files in `folder`: if the same documents were encoded
    /// with the same tokenizer before, the files are mapped; damaged ones are made again.
    ///
    /// # Errors
    /// Those of [`TokenDataset::new`]; [`Error::Formats`] if the folder cannot be written.
    pub fn cached(
        folder: &Path,
        documents: &[Document],
        tokenizer: &Tokenizer,
    ) -> Result<TokenDataset> {
        let name = cache_name(documents, tokenizer)?;
        let data = folder.join(format!("{name}.bin"));
        let description = folder.join(format!("{name}.json"));
        if let Some(found) = open_cached(&data, &description) {
            return Ok(found);
        }
        atomic::create_folder(folder)?;
        let bytes: usize = documents.iter().map(|d| d.text.len()).sum();
        let most = (bytes * width(tokenizer.vocab_size())) as u64;
        let mut encoded = None;
        let mut refused = None;
        let written = atomic::write_file(&data, most, |out| {
            let mut out = Hashing { out, hash: blake3::Hasher::new() };
            match encode(documents, tokenizer, &mut out) {
                Ok(layout) => encoded = Some((layout, out.hash.finalize())),
                Err(Failure::Write(error)) => return Err(error),
                Err(Failure::Encode(error)) => {
                    refused = Some(error);
                    return Err(io::Error::other("the text cannot be encoded"));
                }
            }
            Ok(())
        });
        if let Some(error) = refused {
            return Err(error);
        }
        written?;
        if let Some((layout, hash)) = encoded {
            let text = serde_json::json!(Description {
                width: layout.width,
                tokens: layout.tokens,
                vocab_size: tokenizer.vocab_size(),
                documents: layout.documents,
                checksum: hash.to_hex().to_string(),
            });
            atomic::write_bytes(&description, format!("{text}\n").as_bytes())?;
        }
        match open_cached(&data, &description) {
            Some(dataset) => Ok(dataset),
            None => TokenDataset::new(documents, tokenizer),
        }
    }

    /// Makes a dataset of ids; `documents` says where each document begins.
    ///
    /// # Errors
    /// [`Error::NoText`] if there are no ids, [`Error::Vocabulary`] if one is not below
    /// `vocab_size`.
    pub fn from_ids(ids: &[u32], vocab_size: usize, documents: Vec<usize>) -> Result<TokenDataset> {
        if ids.is_empty() {
            let remedy = "give text that is not empty";
            return Err(Error::NoText { place: "the documents".into(), remedy });
        }
        if let Some(at) = ids.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::Vocabulary {
                place: format!("token {at} of the dataset"),
                id: i64::from(ids[at]),
                vocab_size,
                remedy: "encode the text with the tokenizer that belongs to the model",
            });
        }
        let width = width(vocab_size);
        let storage = Arc::new(Storage::Memory(little_endian(ids, width)));
        let tokens = Tokens { storage, width, range: 0..ids.len() };
        Ok(TokenDataset { tokens, vocab_size, documents: documents.into() })
    }

    /// All tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The vocabulary size of the tokenizer; all ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The number of documents.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Checks that a model with `vocab_size` ids knows all tokens.
    ///
    /// # Errors
    /// [`Error::Vocabulary`].
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        if self.vocab_size <= vocab_size {
            return Ok(());
        }
        Err(Error::Vocabulary {
            place: "the tokenizer's highest token".into(),
            id: self.vocab_size as i64 - 1,
            vocab_size,
            remedy: "use the tokenizer that belongs to the model, or a model with a larger \
                     vocabulary",
        })
    }

    /// The part for training and the part for validation.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the fraction is not between 0 and 1 or a part would be empty.
    pub fn split(&self, split: Split) -> Result<(Tokens, Tokens)> {
        let (Split::Tokens(fraction) | Split::Documents(fraction)) = split;
        if !(fraction > 0.0 && fraction < 1.0) {
            let what = format!("the training fraction {fraction} must be between 0 and 1; set 0.9");
            return Err(Error::Dataset(what));
        }
        let count = self.tokens.len();
        let mut at = (count as f64 * fraction) as usize;
        if let Split::Documents(_) = split {
            let inner = self.documents.iter().filter(|&&start| 0 < start && start < count);
            let nearest = inner.min_by_key(|start| start.abs_diff(at));
            at = *nearest.ok_or_else(|| {
                let what = "a single document cannot be split by documents; split by tokens";
                Error::Dataset(what.into())
            })?;
        }
        if at == 0 || at == count {
            let what = format!(
                "{count} tokens are too few to keep {fraction} of them for training and the rest \
                 for validation; give more text"
            );
            return Err(Error::Dataset(what));
        }
        Ok((self.tokens.slice(0..at), self.tokens.slice(at..count)))
    }
}

/// Bytes of an id.
fn width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

fn little_endian(ids: &[u32], width: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ids.len() * width);
    ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()[..width]));
    bytes
}

/// What [`encode`] has written.
struct Layout {
    width: usize,
    tokens: usize,
    documents: Vec<usize>,
}

impl Layout {
    fn dataset(self, storage: Storage, tokenizer: &Tokenizer) -> TokenDataset {
        let (storage, range) = (Arc::new(storage), 0..self.tokens);
        TokenDataset {
            tokens: Tokens { storage, width: self.width, range },
            vocab_size: tokenizer.vocab_size(),
            documents: self.documents.into(),
        }
    }

    fn write(&mut self, ids: &[u32], out: &mut dyn Write) -> std::result::Result<(), Failure> {
        self.tokens += ids.len();
        out.write_all(&little_endian(ids, self.width)).map_err(Failure::Write)
    }
}

/// Why ids were not written.
enum Failure {
    Encode(Error),
    Write(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Encode(error)
    }
}

/// Writes the ids of all documents, between two of them the end-of-text id, as they are made.
fn encode(
    documents: &[Document],
    tokenizer: &Tokenizer,
    out: &mut dyn Write,
) -> std::result::Result<Layout, Failure> {
    let mut layout =
        Layout { width: width(tokenizer.vocab_size()), tokens: 0, documents: Vec::new() };
    let separator: Vec<u32> = tokenizer.end_of_text().into_iter().collect();
    // Begins the documents up to this one, which may be many where some have no ids.
    let begin = |layout: &mut Layout, out: &mut dyn Write, number: usize| {
        while layout.documents.len() <= number {
            if !layout.documents.is_empty() {
                layout.write(&separator, out)?;
            }
            layout.documents.push(layout.tokens);
        }
        Ok::<_, Failure>(())
    };
    tokenizer.encode_each(documents, |number, ids| {
        begin(&mut layout, out, number)?;
        layout.write(ids, out)
    })?;
    if let Some(last) = documents.len().checked_sub(1) {
        begin(&mut layout, out, last)?;
    }
    if layout.tokens == 0 {
        let remedy = "give text that is not empty";
        return Err(Failure::Encode(Error::NoText { place: "the documents".into(), remedy }));
    }
    Ok(layout)
}

/// Passes on what is written, and hashes it.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hash: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn cache_name(documents: &[Document], tokenizer: &Tokenizer) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(CACHE_VERSION.as_bytes());
    hash.update(tokenizer.identity()?.as_bytes());
    hash_texts(documents, &mut hash);
    Ok(hash.finalize().to_hex()[..32].to_owned())
}

/// Adds all texts to a hash, with their lengths.
pub(crate) fn hash_texts(documents: &[Document], hash: &mut blake3::Hasher) {
    for document in documents {
        let text: &str = &document.text;
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
}

/// The cached dataset, unless it is missing or not exactly what was written.
fn open_cached(data: &Path, description: &Path) -> Option<TokenDataset> {
    let text = fs::read(description).ok()?;
    let description: Description = serde_json::from_slice(&text).ok()?;
    let map = MappedFile::open(data).ok()?;
    let intact = matches!(description.width, 2 | 4)
        && description.tokens.checked_mul(description.width) == Some(map.len())
        && blake3::hash(&map).to_hex().as_str() == description.checksum;
    let storage = intact.then(|| Arc::new(Storage::Mapped(map)))?;
    Some(TokenDataset {
        tokens: Tokens { storage, width: description.width, range: 0..description.tokens },
        vocab_size: description.vocab_size,
        documents: description.documents.into(),
    })
}

impl Tokens {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of these tokens; what lies beyond the end is left out.
    pub fn slice(&self, range: Range<usize>) -> Tokens {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let range = self.range.start + start..self.range.start + end;
        Tokens { storage: self.storage.clone(), width: self.width, range }
    }

    /// The ids in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> {
        let width = self.width;
        let bytes = &self.storage.bytes()[self.range.start * width..self.range.end * width];
        bytes.chunks_exact(width).map(|id| {
            let mut whole = [0; 4];
            whole[..id.len()].copy_from_slice(id);
            u32::from_le_bytes(whole)
        })
    }
}

/// The non-overlapping windows of a stretch of tokens, as a dataset of `input_ids` and `targets`,
/// i64 `[context]` each.
pub struct TokenWindows {
    tokens: Tokens,
    context: usize,
}

impl TokenWindows {
    /// Cuts `tokens` into windows of `context` tokens; a shorter rest is left out.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there is not one window.
    pub fn new(tokens: Tokens, context: usize) -> Result<TokenWindows> {
        check_length(&tokens, context)?;
        Ok(TokenWindows { tokens, context })
    }
}

impl Dataset for TokenWindows {
    fn len(&self) -> usize {
        (self.tokens.len() - 1) / self.context
    }

    fn get(&self, index: usize) -> Result<Sample> {
        if index >= self.len() {
            let what = format!("there is no window {index}; the text has {}", self.len());
            return Err(Error::Dataset(what));
        }
        let start = index * self.context;
        let ids = window(&self.tokens, start, self.context);
        let shape = [self.context];
        Ok(Sample::from([
            ("input_ids".to_owned(), HostArray::i64(&shape, ids[..self.context].to_vec())?),
            ("targets".to_owned(), HostArray::i64(&shape, ids[1..].to_vec())?),
        ]))
    }
}

/// The `context + 1` ids from `start` on: inputs and, one further, targets.
pub(super) fn window(tokens: &Tokens, start: usize, context: usize) -> Vec<i64> {
    tokens.slice(start..start + context + 1).iter().map(i64::from).collect()
}

/// There must be at least one window, and windows must not be empty.
pub(super) fn check_length(tokens: &Tokens, context: usize) -> Result<()> {
    if context == 0 {
        return Err(Error::Dataset("a context of 0 tokens is impossible; set at least 1".into()));
    }
    if tokens.len() <= context {
        return Err(Error::TooShort { tokens: tokens.len(), context });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{document, scratch};

    fn ids(tokens: &Tokens) -> Vec<u32> {
        tokens.iter().collect()
    }

    #[test]
    fn the_cache_is_used_and_damage_repaired() {
        let folder = scratch("tokens_cache").join("new");
        let documents = [document("hello"), document("world")];
        let tokenizer = Tokenizer::characters(&documents).unwrap();
        let first = TokenDataset::cached(&folder, &documents, &tokenizer).unwrap();
        let expected = TokenDataset::new(&documents, &tokenizer).unwrap();
        assert_eq!(ids(first.tokens()), ids(expected.tokens()));
        assert!(matches!(*first.tokens.storage, Storage::Mapped(_)));
        assert_eq!((first.documents(), first.vocab_size()), (2, 7));
        let names = || -> Vec<String> {
            let entries = fs::read_dir(&folder).unwrap();
            let mut names: Vec<String> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let two = names();
        assert_eq!(two.len(), 2, "{two:?}");
        let data = folder.join(&two[0]);
        let description = folder.join(&two[1]);
        let good = (fs::read(&data).unwrap(), fs::read(&description).unwrap());
        let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let time = written(&data);
        TokenDataset::cached(&folder, &documents, &tokenizer).unwrap();
        assert_eq!(written(&data), time, "the files are used, not written again");
        for (path, bad) in [
            (&data, good.0[..good.0.len() - 2].to_vec()),
            (&data, good.0.iter().map(|b| b ^ 1).collect()),
            (&description, b"{".to_vec()),
            (&description, good.1[..30].to_vec()),
        ] {
            atomic::write_bytes(path, &bad).unwrap();
            let again = TokenDataset::cached(&folder, &documents, &tokenizer).unwrap();
            assert_eq!(ids(again.tokens()), ids(expected.tokens()));
            assert_eq!((fs::read(&data).unwrap(), fs::read(&description).unwrap()), good);
        }
        fs::remove_file(&data).unwrap();
        TokenDataset::cached(&folder, &documents, &tokenizer).unwrap();
        // Other text or another tokenizer is another entry.
        let moved = [document("hellow"), document("orld")];
        TokenDataset::cached(&folder, &moved, &tokenizer).unwrap();
        TokenDataset::cached(&folder, &documents, &Tokenizer::bytes()).unwrap();
        assert_eq!(names().len(), 6);
    }

    #[test]
    fn documents_without_ids_keep_their_place() {
        let documents = ["", "ab", "", "c", ""].map(document);
        let tokenizer = Tokenizer::train_bpe(&documents, 300).unwrap();
        let separator = tokenizer.end_of_text().unwrap();
        let dataset = TokenDataset::new(&documents, &tokenizer).unwrap();
        assert_eq!(*dataset.documents, [0, 1, 4, 5, 7]);
        let separators = ids(dataset.tokens()).iter().filter(|&&id| id == separator).count();
        assert_eq!((separators, dataset.tokens().len()), (4, 7));
        assert!(TokenDataset::new(&[], &tokenizer).is_err());
    }

    #[test]
    fn wide_vocabularies_take_wide_ids() {
        for (vocab_size, width) in [(65_536, 2), (65_537, 4)] {
            let last = vocab_size as u32 - 1;
            let dataset = TokenDataset::from_ids(&[0, last, 7], vocab_size, vec![0]).unwrap();
            assert_eq!(dataset.tokens.width, width);
            assert_eq!(ids(dataset.tokens()), [0, last, 7]);
        }
        let error = TokenDataset::from_ids(&[0, 5], 5, vec![0]).unwrap_err().to_string();
        assert!(error.contains("token 1") && error.contains("token id 5"), "{error}");
        assert!(TokenDataset::from_ids(&[], 5, vec![]).is_err());
    }

    #[test]
    fn documents_are_separated() {
        let documents = [document("let x = x;"), document("let y")];
        let tokenizer = Tokenizer::train_bpe(&documents, 300).unwrap();
        let dataset = TokenDataset::new(&documents, &tokenizer).unwrap();
        let all = ids(dataset.tokens());
        assert_eq!(all.iter().filter(|&&id| id == 0).count(), 1);
        assert_eq!(all[dataset.documents[1] - 1], 0);
        assert_eq!(tokenizer.decode(&all).unwrap(), "let x = x;let y");
    }

    #[test]
    fn splits() {
        let all: Vec<u32> = (0..100).collect();
        let dataset = TokenDataset::from_ids(&all, 100, vec![0, 40, 85]).unwrap();
        let lengths = |split| dataset.split(split).map(|(a, b)| (a.len(), b.len())).unwrap();
        assert_eq!(lengths(Split::Tokens(0.9)), (90, 10));
        assert_eq!(lengths(Split::Documents(0.9)), (85, 15));
        assert_eq!(lengths(Split::Documents(0.1)), (40, 60));
        let (_, validation) = dataset.split(Split::Tokens(0.9)).unwrap();
        assert_eq!(ids(&validation.slice(2..5)), [92, 93, 94]);
        assert_eq!(ids(&validation.slice(8..50)), [98, 99]);
        assert!(validation.slice(20..30).is_empty());
        for fraction in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(dataset.split(Split::Tokens(fraction)).is_err());
        }
        let one = TokenDataset::from_ids(&[1], 5, vec![0]).unwrap();
        assert!(one.split(Split::Tokens(0.9)).unwrap_err().to_string().contains("too few"));
        assert!(one.split(Split::Documents(0.9)).unwrap_err().to_string().contains("single"));
    }

    #[test]
    fn vocabularies_must_fit() {
        let dataset = TokenDataset::from_ids(&[1], 65, vec![0]).unwrap();
        dataset.check_vocabulary(65).unwrap();
        let error = dataset.check_vocabulary(64).unwrap_err().to_string();
        assert!(error.contains("token id 64") && error.contains("vocabulary of 64"), "{error}");
    }

    #[test]
    fn windows_do_not_overlap() {
        let all: Vec<u32> = (0..10).collect();
        let tokens = TokenDataset::from_ids(&all, 10, vec![0]).unwrap().tokens;
        let windows = TokenWindows::new(tokens.clone(), 4).unwrap();
        assert_eq!(windows.len(), 2);
        let sample = windows.get(1).unwrap();
        assert_eq!(sample["input_ids"].as_i64().unwrap(), [4, 5, 6, 7]);
        assert_eq!(sample["targets"].as_i64().unwrap(), [5, 6, 7, 8]);
        assert!(windows.get(2).is_err());
        let error = TokenWindows::new(tokens, 10).err().unwrap().to_string();
        assert!(error.contains("has 10 tokens") && error.contains("at least 11"), "{error}");
    }
}
