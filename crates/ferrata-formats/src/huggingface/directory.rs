//! A model directory: configuration, weights in one file or in shards, tokenizer files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::clip::ClipConfig;
use super::config::{ModelConfig, SpecialTokens};
use super::fields::{Fields, object};
use super::flow::FlowConfig;
use super::image::ImageConfig;
use crate::atomic::{StagedFolder, names_in};
use crate::error::shown;
use crate::safetensors::{Layout, TensorFile};
use crate::{Error, Result, TensorView};

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What a tokenizer may consist of; `vocab.json` also holds Ferrata's character tokenizer.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// An opened model directory.
///
/// ```no_run
/// # fn main() -> ferrata_formats::Result<()> {
/// use ferrata_formats::huggingface::{ModelConfig, ModelDirectory};
///
/// let model = ModelDirectory::open("gpt2")?;
/// if let ModelConfig::Gpt2(config) = &model.config {
///     println!("{} layers", config.n_layer);
/// }
/// let embedding = model.get("transformer.wte.weight")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ModelDirectory {
    /// The directory.
    pub path: PathBuf,
    /// What `config.json` says.
    pub config: ModelConfig,
    /// Ids with a meaning of their own: those of `generation_config.json` where it has any, else
    /// those of `config.json`.
    pub tokens: SpecialTokens,
    /// Tensors of the files that the configuration has no use for, by their names in the files.
    pub unexpected: Vec<String>,
    files: Vec<TensorFile>,
    /// Canonical name → number of the file, name in the file.
    index: BTreeMap<String, (usize, String)>,
}

impl ModelDirectory {
    /// Reads the configuration, maps the weights and checks that every weight is there with the
    /// shape that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::Damaged`] for the files; [`Error::Tensor`] for a
    /// weight that is missing or has the wrong shape.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelDirectory> {
        let path = path.as_ref();
        let config_path = path.join(CONFIG);
        let config = ModelConfig::from_json(&read(&config_path)?, &config_path)?;
        let tokens = generation_tokens(&path.join(GENERATION), config.tokens())?;
        let files = open_weights(path)?;
        let mut directory = ModelDirectory {
            path: path.to_path_buf(),
            config,
            tokens,
            unexpected: Vec::new(),
            files,
            index: BTreeMap::new(),
        };
        directory.build_index()?;
        Ok(directory)
    }

    /// The weight `name`, by its name in [`ModelConfig::tensors`].
    ///
    /// # Errors
    /// [`Error::Tensor`] if the model has no such weight.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        let Some((file, stored)) = self.index.get(name) else {
            let what = format!("does not belong to a {} model", self.config.model_type());
            return Err(Error::tensor(&self.path, name, what));
        };
        self.files[*file].get(stored)
    }

    /// All weights by their names in [`ModelConfig::tensors`], sorted by name.
    pub fn weights(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.index.iter().filter_map(|(name, (file, stored))| {
            Some((name.as_str(), self.files[*file].find(stored)?))
        })
    }

    /// The tokenizer files that are there.
    pub fn tokenizer_files(&self) -> Vec<PathBuf> {
        tokenizer_files(&self.path)
    }

    fn build_index(&mut self) -> Result<()> {
        // Before the list of weights is made, which a damaged number of layers would make endless.
        let stored: usize = self.files.iter().map(|f| f.names().len()).sum();
        let config_path = self.path.join(CONFIG);
        check_count("layers", self.config.layers(), stored, &config_path)?;
        check_count("experts", self.config.experts(), stored, &config_path)?;
        let expected = self.config.tensors();
        let mut found: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (number, file) in self.files.iter().enumerate() {
            for name in file.names() {
                let Some(canonical) = self.config.canonical_name(name) else { continue };
                if found.insert(canonical, (number, name.to_owned())).is_some() {
                    let what = "occurs twice (with and without prefix, or in two shards)";
                    return Err(Error::tensor(file.path(), name, what));
                }
            }
        }
        for (name, shape) in &expected {
            let Some((number, stored)) = found.remove(name) else {
                let what = "is missing from the weights; the directory is incomplete";
                return Err(Error::tensor(&self.path, name, what));
            };
            let tensor = self.files[number].get(&stored)?;
            self.check_tensor(name, tensor, shape)?;
            self.index.insert(name.clone(), (number, stored));
        }
        self.unexpected = found.into_values().map(|(_, stored)| stored).collect();
        Ok(())
    }

    fn check_tensor(&self, name: &str, tensor: TensorView<'_>, shape: &[usize]) -> Result<()> {
        if tensor.shape != shape {
            let found = tensor.shape;
            let what = format!(
                "has shape {found:?} and {CONFIG} asks for {shape:?}; use the configuration that \
                 belongs to the weights"
            );
            return Err(Error::tensor(&self.path, name, what));
        }
        if !tensor.dtype.is_float() {
            let what = format!("has dtype {}; weights must be floats", tensor.dtype);
            return Err(Error::tensor(&self.path, name, what));
        }
        Ok(())
    }
}

/// What the `config.json` of a directory of weights says.
pub trait DirectoryConfig: Sized {
    /// Reads the text of the file; `path` is for messages. `None` if it is that of another kind of
    /// model.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not a JSON object; [`Error::Config`] that names the key if a
    /// value is missing, of the wrong type, impossible or not supported.
    fn from_json(text: &[u8], path: &Path) -> Result<Option<Self>>;

    /// The text of the file.
    fn to_json(&self) -> String;

    /// Number of repeated blocks.
    fn layers(&self) -> usize;

    /// Checks that the sizes fit together; `path` is for messages. Configurations that were read
    /// from a file have passed.
    ///
    /// # Errors
    /// [`Error::Config`] that names the keys and their values.
    fn validate(&self, path: &Path) -> Result<()>;
}

/// An opened directory of a model that is no language model: a configuration, and weights whose
/// names and shapes the model knows.
#[derive(Debug)]
pub struct WeightDirectory<C> {
    /// The directory.
    pub path: PathBuf,
    /// What `config.json` says.
    pub config: C,
    files: Vec<TensorFile>,
}

/// The directory of an image classifier.
pub type ImageDirectory = WeightDirectory<ImageConfig>;
/// The directory of a CLIP.
pub type ClipDirectory = WeightDirectory<ClipConfig>;
/// The directory of a text-to-image model.
pub type FlowDirectory = WeightDirectory<FlowConfig>;

impl<C: DirectoryConfig> WeightDirectory<C> {
    /// Reads the configuration and maps the weights, `model.safetensors` or shards; `None` if it
    /// is the directory of another kind of model.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`], [`Error::Damaged`] for the files.
    pub fn open(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        let config_path = path.join(CONFIG);
        let Some(config) = C::from_json(&read(&config_path)?, &config_path)? else {
            return Ok(None);
        };
        let files = open_weights(path)?;
        let stored: usize = files.iter().map(|file| file.names().len()).sum();
        check_count("layers", config.layers(), stored, &config_path)?;
        Ok(Some(WeightDirectory { path: path.to_path_buf(), config, files }))
    }

    /// Writes `config.json` and `model.safetensors` into `path`, as [`write_directory`] does.
    ///
    /// # Errors
    /// As [`write_directory`]; the weights are not compared with the configuration.
    pub fn write<'a, N: Into<String>>(
        path: impl AsRef<Path>,
        config: &C,
        weights: impl IntoIterator<Item = (N, TensorView<'a>)>,
    ) -> Result<()> {
        let path = path.as_ref();
        config.validate(&path.join(CONFIG))?;
        let layout = Layout::new(&path.join(WEIGHTS), weights, &metadata())?;
        write_files(path, &layout, &[], &[(CONFIG, config.to_json())])
    }
}

impl<C> WeightDirectory<C> {
    /// All tensors of the files with their names.
    pub fn weights(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.files.iter().flat_map(TensorFile::iter)
    }
}

/// Writes a model directory that transformers loads: `config.json`, `generation_config.json`,
/// `model.safetensors` and copies of the tokenizer files of `tokenizer_from`, if given.
///
/// A directory that does not exist appears whole; in one that exists each file is replaced, only
/// after all have been written out beside it.
///
/// # Errors
/// [`Error::Tensor`] if `weights` are not exactly those that `config` asks for;
/// [`Error::DiskFull`], [`Error::Io`].
pub fn write_directory<'a, N: Into<String>>(
    path: impl AsRef<Path>,
    config: &ModelConfig,
    weights: impl IntoIterator<Item = (N, TensorView<'a>)>,
    tokenizer_from: Option<&Path>,
) -> Result<()> {
    let path = path.as_ref();
    config.validate(&path.join(CONFIG))?;
    let weights_path = path.join(WEIGHTS);
    let layout = Layout::new(&weights_path, weights, &metadata())?;
    check_weights(&weights_path, config, &layout)?;
    let config_text = config.to_json();
    let mut generation = Map::new();
    config.tokens().write(&mut generation);
    let generation_text = format!("{:#}\n", Value::Object(generation));

    let tokenizer = tokenizer_from.map(tokenizer_files).unwrap_or_default();
    write_files(path, &layout, &tokenizer, &[(GENERATION, generation_text), (CONFIG, config_text)])
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

/// Weights, copies of `copied` and `texts` with their names, which then appear in this order.
fn write_files(
    path: &Path,
    weights: &Layout<'_>,
    copied: &[PathBuf],
    texts: &[(&'static str, String)],
) -> Result<()> {
    let staged = StagedFolder::new(path)?;
    let mut order = Vec::new();
    for file in copied {
        let Some(&name) = TOKENIZER_FILES.iter().find(|name| file.ends_with(name)) else {
            continue;
        };
        staged.copy(file, name)?;
        order.push(name);
    }
    staged.write(WEIGHTS, weights.file_size(), |out| weights.write(out))?;
    order.push(WEIGHTS);
    for (name, text) in texts {
        staged.write(name, text.len() as u64, |out| out.write_all(text.as_bytes()))?;
        order.push(name);
    }
    staged.merge_into_target(&order)
}

fn check_weights(path: &Path, config: &ModelConfig, layout: &Layout<'_>) -> Result<()> {
    let mut expected: BTreeMap<String, Vec<usize>> = config.tensors().into_iter().collect();
    for (name, tensor) in &layout.tensors {
        match expected.remove(name) {
            Some(shape) if shape == tensor.shape => {}
            Some(shape) => {
                let found = tensor.shape;
                let what = format!("has shape {found:?} and the configuration asks for {shape:?}");
                return Err(Error::tensor(path, name, what));
            }
            None => {
                let what = format!("does not belong to a {} model", config.model_type());
                return Err(Error::tensor(path, name, what));
            }
        }
    }
    match expected.into_keys().next() {
        Some(name) => Err(Error::tensor(path, &name, "is missing; give every weight of the model")),
        None => Ok(()),
    }
}

/// Refuses a number of parts that so many stored tensors cannot be the weights of.
fn check_count(parts: &str, count: usize, stored: usize, config: &Path) -> Result<()> {
    if count <= stored {
        return Ok(());
    }
    let what = format!(
        "it asks for {count} {parts} and the weights are {stored} tensors; use the configuration \
         that belongs to the weights"
    );
    Err(Error::config(config, what))
}

fn tokenizer_files(folder: &Path) -> Vec<PathBuf> {
    TOKENIZER_FILES.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", path, e))
}

fn generation_tokens(path: &Path, config: &SpecialTokens) -> Result<SpecialTokens> {
    if !path.is_file() {
        return Ok(config.clone());
    }
    let map = object(&read(path)?, path)?;
    let tokens = SpecialTokens::read(&Fields { path, map: &map })?;
    Ok(SpecialTokens {
        bos: tokens.bos.or(config.bos),
        eos: if tokens.eos.is_empty() { config.eos.clone() } else { tokens.eos },
        pad: tokens.pad.or(config.pad),
    })
}

fn open_weights(folder: &Path) -> Result<Vec<TensorFile>> {
    let single = folder.join(WEIGHTS);
    if single.is_file() {
        return Ok(vec![TensorFile::open(single)?]);
    }
    let index = folder.join(INDEX);
    if index.is_file() {
        let shards = shards(&read(&index)?, &index)?;
        let files: Result<Vec<TensorFile>> =
            shards.keys().map(|name| TensorFile::open(folder.join(name))).collect();
        let files = files?;
        for (file, tensors) in files.iter().zip(shards.values()) {
            if let Some(name) = tensors.iter().find(|name| file.find(name).is_none()) {
                let what = format!("is not in {:?}, where the index puts it", file.path());
                return Err(Error::tensor(&index, name, what));
            }
        }
        return Ok(files);
    }
    let other = names_in(folder)?.into_iter().find(|name| {
        name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".safetensors")
    });
    let what = match other {
        Some(name) => format!("the weights are in {name:?}; save them as {WEIGHTS}"),
        None => format!("there are no weights; put {WEIGHTS} into the directory"),
    };
    Err(Error::config(folder, what))
}

/// The shards of an index: file name → names of its tensors.
pub(super) fn shards(text: &[u8], path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let index: Value = serde_json::from_slice(text)
        .map_err(|e| Error::damaged(path, format!("not valid JSON ({e})")))?;
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::damaged(path, "it has no `weight_map`"));
    };
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in map {
        // A plain name only: an index must not point outside its directory.
        let plain = |name: &&str| Path::new(name).file_name().is_some_and(|base| base == *name);
        let Some(name) = file.as_str().filter(plain) else {
            let what = format!("is said to be in {}; give a file name", shown(file));
            return Err(Error::tensor(path, tensor, what));
        };
        shards.entry(name.to_owned()).or_default().push(tensor.clone());
    }
    if shards.is_empty() {
        return Err(Error::damaged(path, "its `weight_map` is empty"));
    }
    Ok(shards)
}
