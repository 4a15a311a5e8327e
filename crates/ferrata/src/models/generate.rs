//! Tokens one by one, with a key/value cache.

use super::model::{Cache, check_ids};
use super::{Model, sample};
use crate::module::Module;
use crate::nn::{CacheIndex, Context};
use crate::tensor::Tensor;
use crate::transform::{Compiled, compile};
use crate::tree;
use ferrata_ir::{DType, Error, Result};

/// How tokens are chosen, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// At most so many new tokens.
    pub max_new: usize,
    /// Scores are divided by it before the soft-max; 0 always takes the likeliest token, the one
    /// with the smallest id among equals.
    pub temperature: f64,
    /// Only the so many likeliest tokens may be chosen.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities together reach this number may be chosen;
    /// it is above 0 and at most 1. It acts after `top_k`.
    pub top_p: Option<f64>,
    /// The same seed, options and prompt give the same tokens.
    pub seed: u64,
    /// Each of these ids ends the sequence; it is the last one given out.
    pub stop: Vec<u32>,
    /// Dtype of activations, products and cache; `None`: that of the parameters.
    pub compute: Option<DType>,
}

impl Default for GenerateOptions {
    /// 128 tokens drawn as the model says, from seed 0.
    fn default() -> Self {
        GenerateOptions {
            max_new: 128,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            seed: 0,
            stop: Vec::new(),
            compute: None,
        }
    }
}

impl GenerateOptions {
    /// Checks that the values make sense.
    ///
    /// # Errors
    /// Names the value and what it must be.
    pub fn check(&self) -> Result<()> {
        let t = self.temperature;
        if !t.is_finite() || t < 0.0 {
            return Err(Error::new(format!("the temperature is {t}"))
                .help("give 0 for the likeliest tokens, or a number above 0 such as 0.8"));
        }
        if self.top_k == Some(0) {
            return Err(Error::new("top-k is 0, so that no token may be chosen")
                .help("give the number of tokens to choose from, at least 1"));
        }
        if let Some(p) = self.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return Err(Error::new(format!("top-p is {p}"))
                .help("give a probability above 0 and at most 1"));
        }
        Ok(())
    }
}

/// Shapes are rounded up to powers of two from these on, so that few of them are compiled.
const SMALLEST_PROMPT: usize = 16;
const SMALLEST_CACHE: usize = 64;
/// A cache for so many positions is made at once if they are asked for.
const USUAL_CACHE: usize = 256;

/// Ids `[1, T]`, how many of them count, the capacity of the cache.
type Prompt = (Tensor, Tensor, usize);
/// One id `[1, 1]`, its position, the cache.
type Step = (Tensor, Tensor, Cache);
type Function<A> = Box<dyn Fn(A) -> (Tensor, Cache) + Send + Sync>;

/// New tokens of one sequence: an iterator that computes each when it is asked for.
///
/// Where a sequence outgrows the context of the model, the newer half of the context is kept and
/// read again ([`Generation::slides`] counts this); as long as it fits, tokens are those that a
/// pass without a cache gives.
pub struct Generation {
    prefill: Compiled<Prompt, (Tensor, Cache), Function<Prompt>>,
    decode: Compiled<Step, (Tensor, Cache), Function<Step>>,
    options: GenerateOptions,
    context: usize,
    /// The prompt and all new tokens.
    ids: Vec<u32>,
    prompt: usize,
    /// Which of `ids` stands at position 0 of the cache.
    first: usize,
    cache: Option<Cache>,
    slides: usize,
    done: bool,
}

impl Model {
    /// Continues a sequence of token ids.
    ///
    /// # Errors
    /// An empty prompt, one longer than the context, an id that is not in the vocabulary (names
    /// position, id and size), options that make no sense, weights that cannot be computed.
    pub fn generate(&self, prompt: &[u32], options: &GenerateOptions) -> Result<Generation> {
        options.check()?;
        let context = self.context();
        if prompt.is_empty() {
            return Err(Error::new("the prompt has no tokens")
                .help("give at least one, for example the one that begins a text"));
        }
        if prompt.len() > context {
            let length = prompt.len();
            return Err(Error::new(format!(
                "the prompt has {length} tokens, but the context of the model is {context}"
            ))
            .help("give a shorter prompt"));
        }
        check_ids(&prompt.iter().map(|&id| i64::from(id)).collect::<Vec<_>>(), self.vocab_size())?;
        tree::eval(self)?;
        let (prefill, decode) = self.passes(options.compute);
        Ok(Generation {
            prefill: compile(prefill),
            decode: compile(decode),
            options: options.clone(),
            context,
            ids: prompt.to_vec(),
            prompt: prompt.len(),
            first: 0,
            cache: None,
            slides: 0,
            done: false,
        })
    }

    /// The pass over a prompt and that over one more token, to be compiled.
    fn passes(&self, compute: Option<DType>) -> (Function<Prompt>, Function<Step>) {
        let own = self.parameters().first().map_or(DType::F32, Tensor::dtype);
        let dtype = compute.unwrap_or(own);
        let (first, then) = (self.clone(), self.clone());
        let prefill = move |(ids, count, capacity): Prompt| {
            let mut cx = Context::eval().with_compute(dtype);
            let cache = first.cache(1, capacity, dtype);
            let at = CacheIndex::first();
            let (logits, cache) = first.next_logits(&ids, Some(&count), cache, &at, &mut cx);
            (logits.cast(DType::F32), cache)
        };
        let decode = move |(id, position, cache): Step| {
            let mut cx = Context::eval().with_compute(dtype);
            let at = CacheIndex::from(&position);
            let (logits, cache) = then.next_logits(&id, None, cache, &at, &mut cx);
            (logits.cast(DType::F32), cache)
        };
        (Box::new(prefill), Box::new(decode))
    }
}

impl Generation {
    /// The prompt and all tokens given out so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many times the older half of a full context has been dropped.
    pub fn slides(&self) -> usize {
        self.slides
    }

    fn advance(&mut self) -> Result<u32> {
        let logits = self.next_logits()?;
        let id = sample::choose(&logits, &self.options, self.ids.len())?;
        self.ids.push(id);
        self.done = self.options.stop.contains(&id);
        Ok(id)
    }

    /// Scores of the token after `ids`.
    fn next_logits(&mut self) -> Result<Vec<f32>> {
        let length = self.ids.len() - self.first;
        let (logits, cache) = match self.cache.take() {
            Some(cache) if length <= self.context => self.step(cache, length)?,
            _ => self.read(length)?,
        };
        self.cache = Some(cache);
        logits.to_vec::<f32>()
    }

    /// Reads the context from its beginning, less its older half if it is too long.
    fn read(&mut self, mut length: usize) -> Result<(Tensor, Cache)> {
        if length > self.context {
            length = self.context.div_ceil(2);
            self.first = self.ids.len() - length;
            self.slides += 1;
        }
        let wanted = length + self.options.max_new;
        let capacity = (length + 1).max(wanted.min(USUAL_CACHE)).max(SMALLEST_CACHE);
        let rounded = length.max(SMALLEST_PROMPT).next_power_of_two().min(self.context);
        let mut ids = vec![0i64; rounded];
        for (place, &id) in ids.iter_mut().zip(&self.ids[self.first..]) {
            *place = i64::from(id);
        }
        let ids = Tensor::from_slice(&ids, &[1, rounded]);
        self.prefill.call((ids, Tensor::from(length as i64), capacity.next_power_of_two()))
    }

    /// Reads the last of `length` ids, the others being in the cache.
    fn step(&self, mut cache: Cache, length: usize) -> Result<(Tensor, Cache)> {
        if cache.capacity() < length {
            cache = cache.grown(length.next_power_of_two());
        }
        let last = self.ids.last().map_or(0, |&id| i64::from(id));
        let id = Tensor::from_slice(&[last], &[1, 1]);
        self.decode.call((id, Tensor::from(length as i64 - 1), cache))
    }
}

impl Iterator for Generation {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        if self.done || self.ids.len() - self.prompt >= self.options.max_new {
            return None;
        }
        let id = self.advance();
        // After an error there is nothing to go on with.
        self.done |= id.is_err();
        Some(id)
    }
}

impl std::iter::FusedIterator for Generation {}
