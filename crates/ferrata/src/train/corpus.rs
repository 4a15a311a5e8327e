//! From the `[data]` section to token ids for training and validation.

use std::path::{Path, PathBuf};

use ferrata_formats::atomic;

use super::config::TextSection;
use super::{Error, Result};
use crate::data::{
    self, Document, Split, TextOptions, TokenDataset, Tokenizer, Tokens, cargo_home, collect_text,
    registry_sources,
};

/// The text of a run as token ids.
pub struct Corpus {
    /// Turns text into the ids and back.
    pub tokenizer: Tokenizer,
    /// The part to learn from.
    pub train: Tokens,
    /// The part at the end that is kept for validation, if any.
    pub validation: Option<Tokens>,
    /// The number of documents.
    pub documents: usize,
    /// The size of the text in bytes.
    pub bytes: usize,
    /// What the user should know, such as files that were passed over.
    pub notes: Vec<String>,
    /// Equal for equal ids in an equal split.
    pub identity: String,
}

/// Shorter texts are not worth a file of token ids.
const CACHED_FROM: usize = 4 << 20;
/// How much of cargo's sources is taken unless the configuration says.
const REGISTRY_BYTES: u64 = 16 << 20;

impl Corpus {
    /// Reads the text, makes or loads the tokenizer and encodes. `own` is the tokenizer of the
    /// model to start from, used unless the section names one.
    ///
    /// # Errors
    /// A missing, empty or binary file, a tokenizer that does not fit the text, too little text
    /// for a validation part.
    pub fn open(section: &TextSection, own: Option<Tokenizer>) -> Result<Corpus> {
        section.check()?;
        let mut notes = Vec::new();
        let documents = read(section, &mut notes)?;
        let tokenizer = match (section.tokenizer.as_deref(), own) {
            (None, Some(own)) => own,
            (None | Some("byte"), _) => Tokenizer::bytes(),
            (Some("char"), _) => Tokenizer::characters(&documents)?,
            (Some("bpe"), _) => train_bpe(&documents, section.vocab)?,
            (Some(path), _) => Tokenizer::load(path)?,
        };
        let bytes = documents.iter().map(|document| document.text.len()).sum();
        let dataset = encode(&documents, &tokenizer, bytes)?;
        let part = 1.0 - section.validation;
        let (train, validation) = match section.validation {
            0.0 => (dataset.tokens().clone(), None),
            _ if section.cargo_sources && documents.len() > 1 => {
                let (train, validation) = dataset.split(Split::Documents(part))?;
                (train, Some(validation))
            }
            _ => {
                let (train, validation) = dataset.split(Split::Tokens(part))?;
                (train, Some(validation))
            }
        };
        let identity = identity(&documents, &tokenizer, section.validation)?;
        let documents = documents.len();
        Ok(Corpus { tokenizer, train, validation, documents, bytes, notes, identity })
    }
}

/// All documents that the section names.
fn read(section: &TextSection, notes: &mut Vec<String>) -> Result<Vec<Document>> {
    let limit = (section.max_bytes > 0).then_some(section.max_bytes);
    let mut documents = Vec::new();
    let mut options = TextOptions {
        json_field: section.field.clone(),
        max_bytes: limit,
        ..TextOptions::default()
    };
    if !section.extensions.is_empty() {
        let bare = section.extensions.iter().map(|name| name.trim_start_matches('.').to_owned());
        options.extensions = bare.collect();
    }
    let lines = TextOptions { extensions: vec!["jsonl".to_owned()], ..options.clone() };
    for (paths, options) in [(&section.text, &options), (&section.jsonl, &lines)] {
        if paths.is_empty() {
            continue;
        }
        let found = collect_text(paths, options)?;
        notes.extend(found.skipped.iter().map(|problem| format!("passed over: {problem}")));
        if found.left_out > 0 {
            let count = found.left_out;
            notes.push(format!("{count} files left out because of data.max_bytes"));
        }
        documents.extend(found.documents);
    }
    if section.cargo_sources {
        documents.extend(cargo_sources(limit.unwrap_or(REGISTRY_BYTES))?);
    }
    Ok(documents)
}

fn cargo_sources(limit: u64) -> Result<Vec<Document>> {
    let home = cargo_home().ok_or_else(|| {
        Error::new("cargo's home folder is not known", "set CARGO_HOME or pass --text PATH")
    })?;
    Ok(registry_sources(&home, limit)?)
}

/// The folder that keeps token ids between runs: `ferrata/tokens` in the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("FERRATA_CACHE").map(PathBuf::from).or_else(|| {
        let user = set("XDG_CACHE_HOME").map(PathBuf::from);
        user.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
            .map(|base| base.join("ferrata"))
    })?;
    Some(base)
}

fn encode(documents: &[Document], tokenizer: &Tokenizer, bytes: usize) -> Result<TokenDataset> {
    if bytes >= CACHED_FROM
        && let Some(folder) = cache_folder()
    {
        match TokenDataset::cached(&folder.join("tokens"), documents, tokenizer) {
            // A cache that cannot be written only costs time.
            Err(data::Error::Formats(_) | data::Error::Io { .. }) => {}
            other => return Ok(other?),
        }
    }
    Ok(TokenDataset::new(documents, tokenizer)?)
}

/// Trains a byte-level BPE tokenizer, or loads the one trained on the same text before.
fn train_bpe(documents: &[Document], vocab: usize) -> Result<Tokenizer> {
    let folder = cache_folder().map(|base| {
        let name = format!("{}-{vocab}", text_hash(documents).to_hex());
        base.join("tokenizers").join(name)
    });
    if let Some(folder) = folder.as_deref().filter(|folder| folder.is_dir())
        && let Ok(tokenizer) = Tokenizer::load(folder)
    {
        return Ok(tokenizer);
    }
    let tokenizer = Tokenizer::train_bpe(documents, vocab)?;
    if let Some(folder) = folder {
        // A cache that cannot be written only costs time.
        let _ = keep(&tokenizer, &folder);
    }
    Ok(tokenizer)
}

fn keep(tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    atomic::create_folder(folder)?;
    tokenizer.save(folder)?;
    Ok(())
}

fn text_hash(documents: &[Document]) -> blake3::Hash {
    let mut hash = blake3::Hasher::new();
    data::hash_texts(documents, &mut hash);
    hash.finalize()
}

fn identity(documents: &[Document], tokenizer: &Tokenizer, validation: f64) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(text_hash(documents).as_bytes());
    hash.update(tokenizer.identity()?.as_bytes());
    hash.update(&validation.to_le_bytes());
    Ok(hash.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::train::tests::scratch;

    fn section(path: &Path, tokenizer: &str) -> TextSection {
        TextSection {
            text: vec![path.to_path_buf()],
            tokenizer: Some(tokenizer.to_owned()),
            ..TextSection::default()
        }
    }

    #[test]
    fn the_end_of_the_text_is_for_validation() {
        let folder = scratch("corpus");
        let file = folder.join("a.txt");
        fs::write(&file, "abcdefghij".repeat(10)).unwrap();
        let corpus = Corpus::open(&section(&file, "char"), None).unwrap();
        assert_eq!((corpus.train.len(), corpus.validation.unwrap().len()), (90, 10));
        assert_eq!((corpus.tokenizer.vocab_size(), corpus.bytes), (10, 100));
        let all = TextSection { validation: 0.0, ..section(&file, "char") };
        let whole = Corpus::open(&all, None).unwrap();
        assert_eq!((whole.train.len(), whole.validation.is_none()), (100, true));
        assert_ne!(corpus.identity, whole.identity);
        let bytes = Corpus::open(&section(&file, "byte"), None).unwrap();
        assert_eq!(bytes.tokenizer.vocab_size(), 256);
        let own = Tokenizer::characters(&["abcdefghijk"]).unwrap();
        let by_default = TextSection { tokenizer: None, ..section(&file, "") };
        assert_eq!(Corpus::open(&by_default, Some(own)).unwrap().tokenizer.vocab_size(), 11);
    }

    #[test]
    fn wrong_text_is_named() {
        let folder = scratch("corpus-wrong");
        let refused = |name: &str, content: &[u8], tokenizer: &str| {
            let file = folder.join(name);
            fs::write(&file, content).unwrap();
            Corpus::open(&section(&file, tokenizer), None).err().unwrap().to_string()
        };
        let empty = refused("empty.txt", b"", "byte");
        assert!(empty.contains("no text") && empty.contains("; "), "{empty}");
        let binary = refused("binary.txt", &[0, 159, 146, 150], "byte");
        assert!(binary.contains("binary.txt") && binary.contains("is not text"), "{binary}");
        let missing = section(&folder.join("missing.txt"), "byte");
        let missing = Corpus::open(&missing, None).err().unwrap().to_string();
        assert!(missing.contains("missing.txt") && missing.contains("check the path"), "{missing}");
        let tokenizer = refused("good.txt", b"good text", "/no/such/tokenizer.json");
        assert!(tokenizer.contains("choose char, byte, bpe"), "{tokenizer}");
    }
}
