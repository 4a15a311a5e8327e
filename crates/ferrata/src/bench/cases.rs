//! The kernels and steps that are measured, each with the least that it has to do.

use std::path::Path;

use ferrata_compiler::Argument;
use ferrata_ir::DType;

use super::{Case, Run, Work, images};
use crate::models::{Model, ModelConfig};
use crate::nn::Context;
use crate::optim::{Adam, Optimizer};
use crate::train::Result;
use crate::{Attention, Device, Key, Module, Tensor, Tree, compile, tree, value_and_grad, vjp};

/// Every case, in the order in which they are measured.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, shapes) in [(DType::F32, &PRODUCTS[..]), (DType::BF16, &PRODUCTS[..])] {
        cases.extend(shapes.iter().map(|&(m, n, k)| product(dtype, m, n, k)));
    }
    cases.extend(elementwise());
    cases.extend(rows());
    cases.extend([adamw(124_439_808)]);
    for dtype in [DType::F32, DType::BF16] {
        cases.extend(attention(dtype));
    }
    for compute in [DType::F32, DType::BF16] {
        cases.extend([step(&GPT, compute, false), step(&GPT2, compute, true)]);
    }
    cases.extend(images::all());
    cases
}

/// Rows, columns and length of the sums of matrix products.
const PRODUCTS: [(usize, usize, usize); 5] =
    [(2048, 2048, 2048), (1024, 768, 768), (4096, 3072, 768), (1, 4096, 4096), (64, 64, 64)];

/// Elements of operands that fit into no cache.
const MANY: usize = 1 << 25;

fn case(name: String, work: Work, prepare: impl Fn() -> Result<Run> + 'static) -> Case {
    Case { name, work, long: false, prepare: Box::new(prepare) }
}

/// A case whose program reads tensors that stay.
fn program<A: Tree + Clone + 'static, B: Tree + 'static>(
    name: impl Into<String>,
    work: Work,
    argument: impl Fn() -> A + 'static,
    f: impl Fn(A) -> B + Clone + 'static,
) -> Case {
    made(name.into(), work, move || Ok(argument()), f)
}

/// As [`program`], with tensors that could be had or not.
pub(super) fn made<A: Tree + Clone + 'static, B: Tree + 'static>(
    name: String,
    work: Work,
    argument: impl Fn() -> Result<A> + 'static,
    f: impl Fn(A) -> B + Clone + 'static,
) -> Case {
    case(name, work, move || {
        let argument = argument()?;
        let executable = compile(f.clone()).planned(&argument, false)?.executable;
        let device = Device::default();
        let buffers = tree::leaves(&argument).into_iter().map(|t| Ok(t.buffer_on(&device)?));
        let buffers = buffers.collect::<Result<Vec<_>>>()?;
        Ok(Box::new(move || {
            executable.run(buffers.iter().cloned().map(Argument::Shared).collect())?;
            Ok(())
        }))
    })
}

pub(super) fn uniform(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::rand(shape, DType::F32, &Key::new(1)).cast(dtype)
}

fn bytes(dtype: DType, elements: usize) -> f64 {
    (elements * dtype.size()) as f64
}

fn product(dtype: DType, m: usize, n: usize, k: usize) -> Case {
    let flops = 2.0 * (m * n * k) as f64;
    let (read, written) = (bytes(dtype, m * k + k * n), bytes(dtype, m * n));
    let work = Work { flops, read, written, dtype };
    let operands = move || (uniform(&[m, k], dtype), uniform(&[k, n], dtype));
    let name = format!("matmul-{dtype}-{m}x{n}x{k}");
    program(name, work, operands, |(x, y): (Tensor, Tensor)| x.matmul(&y))
}

/// Work that only reads and writes so many arrays of f32.
fn moving(elements: usize, read: usize, written: usize) -> Work {
    let dtype = DType::F32;
    let bytes = |arrays: usize| bytes(dtype, elements * arrays);
    Work { flops: 0.0, read: bytes(read), written: bytes(written), dtype }
}

fn elementwise() -> Vec<Case> {
    let one = || uniform(&[MANY], DType::F32);
    let two = move || (one(), one());
    let keyed = move || (one(), Key::new(2));
    vec![
        program("add", moving(MANY, 2, 1), two, |(x, y): (Tensor, Tensor)| x + y),
        program("exp", moving(MANY, 1, 1), one, |x: Tensor| x.exp()),
        program("gelu", moving(MANY, 1, 1), one, |x: Tensor| x.gelu_tanh()),
        program("gelu-gradient", moving(MANY, 2, 1), two, |(x, dy): (Tensor, Tensor)| {
            vjp(|x: &Tensor| x.gelu_tanh(), &x, &dy).1
        }),
        program("dropout", moving(MANY, 1, 1), keyed, |(x, key): (Tensor, Key)| {
            x.dropout(0.1, &key)
        }),
        program("sum", moving(MANY, 1, 0), one, |x: Tensor| x.sum(..)),
    ]
}

/// Reductions along rows, and what is computed from them.
fn rows() -> Vec<Case> {
    const ROWS: usize = 1 << 15;
    const COLUMNS: usize = 1 << 10;
    const TOKENS: usize = 2048;
    const VOCABULARY: usize = 50257;
    let one = || uniform(&[ROWS, COLUMNS], DType::F32);
    let two = move || (one(), one());
    let scale = || uniform(&[COLUMNS], DType::F32);
    let normalise = |x: &Tensor, w: &Tensor, b: &Tensor| x.layer_norm(Some(w), Some(b), 1, 1e-5);
    let logits = || {
        let ids = Tensor::randint([TOKENS], 0, VOCABULARY as i64, &Key::new(3));
        (uniform(&[TOKENS, VOCABULARY], DType::F32), ids)
    };
    vec![
        program("softmax", moving(MANY, 1, 1), one, |x: Tensor| x.softmax(-1)),
        program("softmax-gradient", moving(MANY, 2, 1), two, |(x, dy): (Tensor, Tensor)| {
            vjp(|x: &Tensor| x.softmax(-1), &x, &dy).1
        }),
        program(
            "layer-norm",
            moving(MANY, 1, 1),
            move || (one(), scale(), scale()),
            move |(x, w, b): (Tensor, Tensor, Tensor)| normalise(&x, &w, &b),
        ),
        program(
            "layer-norm-gradient",
            moving(MANY, 2, 1),
            move || ((one(), scale(), scale()), one()),
            move |(argument, dy): ((Tensor, Tensor, Tensor), Tensor)| {
                vjp(|(x, w, b): &(Tensor, Tensor, Tensor)| normalise(x, w, b), &argument, &dy).1
            },
        ),
        program(
            "cross-entropy",
            moving(TOKENS * VOCABULARY, 1, 0),
            logits,
            |(x, ids): (Tensor, Tensor)| x.cross_entropy(&ids),
        ),
        program(
            "cross-entropy-gradient",
            moving(TOKENS * VOCABULARY, 1, 1),
            logits,
            |(x, ids): (Tensor, Tensor)| value_and_grad(|x: &Tensor| x.cross_entropy(&ids))(&x),
        ),
    ]
}

/// An update of so many parameters in place: parameters and two moments are read and written, the
/// gradient is read.
fn adamw(parameters: usize) -> Case {
    case(format!("adamw-{parameters}"), moving(parameters, 4, 3), move || {
        let rule = Adam { decoupled: true, ..Adam::default() };
        let optimizer = Optimizer::new(rule).weight_decay(0.1);
        let mut model = Tensor::ones([parameters], DType::F32);
        let gradient = Tensor::ones([parameters], DType::F32);
        tree::eval(&(model.clone(), gradient.clone()))?;
        let mut state = optimizer.init(&model);
        let mut count = 0;
        let rates = optimizer.clone();
        let update = compile(move |(model, gradient, state, rates)| {
            let model: Tensor = model;
            let gradient: Tensor = gradient;
            optimizer.update(&model, &gradient, &state, &rates)
        });
        Ok(Box::new(move || {
            let rates = rates.rates(count, 1e-3);
            count += 1;
            let empty = Tensor::zeros([0], DType::F32);
            let old = (std::mem::replace(&mut model, empty), std::mem::take(&mut state));
            (model, state) = update.call((old.0, gradient.clone(), old.1, rates))?;
            Ok(())
        }))
    })
}

/// Causal attention of 12 heads of 64 over 2048 positions, forward, and forward and backward.
fn attention(dtype: DType) -> Vec<Case> {
    const HEADS: usize = 12;
    const TIME: usize = 2048;
    const SIZE: usize = 64;
    let settings = Attention { causal: true, ..Attention::default() };
    let one = move || uniform(&[1, HEADS, TIME, SIZE], dtype);
    let three = move || (one(), one(), one());
    let pairs = HEADS * TIME * (TIME + 1) / 2;
    let work = |products: usize, read: usize, written: usize| Work {
        flops: (2 * pairs * SIZE * products) as f64,
        read: bytes(dtype, read * HEADS * TIME * SIZE),
        written: bytes(dtype, written * HEADS * TIME * SIZE),
        dtype,
    };
    type Operands = (Tensor, Tensor, Tensor);
    let forward = move |(q, k, v): &Operands| q.attention(k, v, &settings);
    vec![
        program(format!("attention-{dtype}"), work(2, 3, 1), three, move |x: Operands| forward(&x)),
        program(
            format!("attention-gradient-{dtype}"),
            // The backward pass needs five products, one of which computes the scores again.
            work(7, 4, 3),
            move || (three(), one()),
            move |(x, dy): (Operands, Tensor)| vjp(forward, &x, &dy).1,
        ),
    ]
}

/// The sizes of a GPT-2 and its batches.
struct Gpt {
    name: &'static str,
    layers: usize,
    dim: usize,
    heads: usize,
    context: usize,
    vocabulary: usize,
    batch: usize,
}

const GPT: Gpt =
    Gpt { name: "gpt-10m", layers: 6, dim: 384, heads: 6, context: 256, vocabulary: 65, batch: 8 };
const GPT2: Gpt = Gpt {
    name: "gpt2-124m",
    layers: 12,
    dim: 768,
    heads: 12,
    context: 256,
    vocabulary: 50257,
    batch: 2,
};

impl Gpt {
    fn config(&self) -> Result<ModelConfig> {
        let Gpt { layers, dim, heads, context, vocabulary, .. } = self;
        let json = format!(
            "{{\"model_type\": \"gpt2\", \"vocab_size\": {vocabulary}, \"n_positions\": {context},
            \"n_embd\": {dim}, \"n_layer\": {layers}, \"n_head\": {heads}, \"embd_pdrop\": 0,
            \"attn_pdrop\": 0, \"resid_pdrop\": 0}}"
        );
        Ok(ModelConfig::from_json(json.as_bytes(), Path::new("config.json"))?)
    }

    /// Forward and backward products: 6 for each parameter and token, and those of attention with
    /// the half of the scores that a causal mask leaves; parameters and moments are moved once.
    fn work(&self, dtype: DType) -> Work {
        let Gpt { layers, dim, context, vocabulary, batch, .. } = self;
        let block = 12 * dim * dim + 13 * dim;
        let parameters = vocabulary * dim + context * dim + layers * block + 2 * dim;
        let tokens = batch * context;
        let flops = 6 * parameters * tokens + 6 * layers * dim * context * tokens;
        let moved = bytes(DType::F32, 3 * parameters);
        Work { flops: flops as f64, read: moved, written: moved, dtype }
    }
}

/// A training step of a GPT: forward, backward and AdamW.
fn step(gpt: &'static Gpt, compute: DType, long: bool) -> Case {
    let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() });
    let ids = |seed| {
        let shape = [gpt.batch, gpt.context];
        Tensor::randint(shape, 0, gpt.vocabulary as i64, &Key::new(seed))
    };
    let training = Training {
        optimizer: optimizer.weight_decay(0.01),
        model: move || Ok(Model::new(&gpt.config()?, &Key::new(1))?),
        batch: move || (ids(2), ids(3)),
        loss: |model: &Model, ids: &Tensor, targets: &Tensor, cx: &mut Context| {
            model.loss(ids, targets, cx)
        },
    };
    let name = format!("{}-step-{compute}", gpt.name);
    Case { long, ..training.case(name, gpt.work(compute), compute) }
}

/// What a training step is made of: an optimizer, a model, a batch of two arrays, and the loss.
pub(super) struct Training<N, B, L> {
    pub optimizer: Optimizer,
    pub model: N,
    pub batch: B,
    pub loss: L,
}

impl<N: 'static, B: 'static, L: 'static> Training<N, B, L> {
    /// The step as a case: forward, backward, the state of the model, and the optimizer.
    pub fn case<M>(self, name: String, work: Work, compute: DType) -> Case
    where
        M: Module + Clone + Send + Sync + 'static,
        N: Fn() -> Result<M>,
        B: Fn() -> (Tensor, Tensor),
        L: Fn(&M, &Tensor, &Tensor, &mut Context) -> Tensor + Copy + Send + Sync,
    {
        case(name, work, move || {
            let (optimizer, loss) = (self.optimizer.clone(), self.loss);
            let mut model = Some((self.model)()?);
            let mut state = model.as_ref().map(|model| optimizer.init(model)).unwrap_or_default();
            let batch = (self.batch)();
            tree::eval(&batch)?;
            let all_rates = optimizer.clone();
            let step = compile(move |(model, state, batch, rates)| {
                let (model, batch): (M, (Tensor, Tensor)) = (model, batch);
                let ((loss, updates), gradient) = value_and_grad(|model: &M| {
                    let mut cx = Context::train(Key::new(0)).with_compute(compute);
                    let loss = loss(model, &batch.0, &batch.1, &mut cx);
                    (loss, cx.updates(model))
                })(&model);
                let (model, state) = optimizer.update(&model, &gradient, &state, &rates);
                (model.updated(&updates), state, loss)
            });
            let mut count = 0;
            Ok(Box::new(move || {
                let rates = all_rates.rates(count, 3e-4);
                count += 1;
                let Some(old) = model.take() else { return Ok(()) };
                let old = (old, std::mem::take(&mut state), batch.clone(), rates);
                let (new, next, loss) = step.call(old)?;
                (model, state) = (Some(new), next);
                loss.item::<f32>()?;
                Ok(())
            }))
        })
    }
}
