//! Pictures that can be had one by one, and what belongs to each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Picture;
use crate::data::{self, Error};

/// Pictures that are decoded when they are asked for.
pub trait Pictures: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What tells picture `index` from others, wherever the data lies.
    fn key(&self, index: usize) -> String;

    /// What messages call picture `index`: its path, or its place in a file.
    fn name(&self, index: usize) -> String;

    /// Picture `index`, decoded, if it has at most `max_pixels`.
    ///
    /// # Errors
    /// What is wrong with it, in words and without its name.
    fn load(&self, index: usize, max_pixels: u64) -> Result<Picture, String>;
}

/// One example of an [`ImageSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// The number of its picture.
    pub picture: u32,
    /// The number of its class; 0 where there are none.
    pub label: u32,
}

/// Examples with the pictures, classes and captions that they point at.
#[derive(Clone)]
pub struct ImageSet {
    /// All pictures of the data, also those of other parts.
    pub pictures: Arc<dyn Pictures>,
    /// The examples of this part.
    pub examples: Arc<[Example]>,
    /// The names of the classes; empty where there are none.
    pub classes: Arc<[String]>,
    /// For each picture its captions; empty where there are none.
    pub captions: Arc<[Vec<String>]>,
}

impl ImageSet {
    /// The number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The same with other examples.
    pub(super) fn with(&self, examples: Vec<Example>) -> ImageSet {
        ImageSet { examples: examples.into(), ..self.clone() }
    }
}

/// What happens when a picture cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamaged {
    /// Another example takes its place; the file is named once.
    Skip,
    /// An error that names the file.
    #[default]
    Stop,
}

/// How pictures are read, and which could not be.
pub struct Reader {
    on_damaged: OnDamaged,
    max_pixels: u64,
    damaged: Mutex<Damaged>,
}

#[derive(Default)]
struct Damaged {
    /// Names, with what is wrong.
    all: BTreeMap<String, String>,
    /// Names that nobody has been told yet.
    news: Vec<String>,
}

impl Reader {
    /// Reads pictures of up to `max_pixels`.
    pub fn new(on_damaged: OnDamaged, max_pixels: u64) -> Reader {
        Reader { on_damaged, max_pixels, damaged: Mutex::default() }
    }

    /// A picture; `None` if it is damaged and damaged ones are skipped.
    ///
    /// # Errors
    /// [`Error::Image`] if it is damaged and that is fatal.
    pub fn read(&self, pictures: &dyn Pictures, index: usize) -> data::Result<Option<Picture>> {
        let what = match pictures.load(index, self.max_pixels) {
            Ok(picture) => return Ok(Some(picture)),
            Err(what) => what,
        };
        let name = pictures.name(index);
        match self.on_damaged {
            OnDamaged::Stop => Err(Error::Image { name, what }),
            OnDamaged::Skip => {
                // A poisoned list is whole: nothing panics while it is changed.
                let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
                if damaged.all.insert(name.clone(), what.clone()).is_none() {
                    damaged.news.push(format!("`{name}` is left out: {what}"));
                }
                Ok(None)
            }
        }
    }

    /// How many pictures could not be read so far.
    pub fn damaged(&self) -> usize {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).all.len()
    }

    /// Those that could not be read since this was last asked, one line for each.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut self.damaged.lock().unwrap_or_else(PoisonError::into_inner).news)
    }
}

/// Picture files.
pub(super) struct Files {
    pub(super) root: PathBuf,
    /// Relative to the root.
    pub(super) paths: Vec<PathBuf>,
}

impl Pictures for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn key(&self, index: usize) -> String {
        self.paths[index].to_string_lossy().into_owned()
    }

    fn name(&self, index: usize) -> String {
        self.root.join(&self.paths[index]).display().to_string()
    }

    fn load(&self, index: usize, max_pixels: u64) -> Result<Picture, String> {
        load_file(&self.root.join(&self.paths[index]), max_pixels)
    }
}

/// Reads and decodes a file.
pub(super) fn load_file(path: &Path, max_pixels: u64) -> Result<Picture, String> {
    let bytes = fs::read(path).map_err(|error| format!("it cannot be read ({error})"))?;
    Picture::decode(&bytes, max_pixels)
}
