use crate::distance;
use ferrata::nn::{
    CacheIndex, Context, Dropout, Embedding, Init, KvCache, LayerNorm, Linear, Mlp,
    MultiHeadAttention, Repeat, RmsNorm, Rope, SwiGlu,
};
use ferrata::{DType, Key, Module, Tensor, compile, grad, value_and_grad};
use std::collections::HashMap;

#[derive(Clone, Debug, Module)]
struct Block {
    norm: RmsNorm,
    #[module(name = "self_attn")]
    attention: MultiHeadAttention,
    mlp: SwiGlu,
}

#[derive(Clone, Debug, Module)]
struct Model {
    embed: Embedding,
    layers: Repeat<Block>,
    head: Tensor,
    dropout: Dropout,
}

impl Model {
    /// The output layer shares the table of the input.
    fn new(recompute: bool) -> Self {
        let key = Key::new(17);
        let block = |i| {
            let key = key.fold(i);
            Block {
                norm: RmsNorm::new(8, 1e-6),
                attention: MultiHeadAttention::grouped(8, 4, 2, 2, &key.fold(0)),
                mlp: SwiGlu::new(8, 12, &key.fold(1)),
            }
        };
        let embed = Embedding::with_init(11, 8, Init::Normal(0.5), &key.fold(100));
        let head = embed.weight.clone();
        let layers: Repeat<Block> = (0..3).map(block).collect();
        let layers = layers.with_recompute((0..3).filter(|_| recompute));
        Model { embed, layers, head, dropout: Dropout::new(0.2) }
    }

    fn forward(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        let rope = Rope::new(&Tensor::arange(ids.size(1)), 100.0, 2, DType::F32);
        let x = cx.scope("embed", |cx| self.embed.forward(ids, cx));
        let x = cx.scope("layers", |cx| {
            self.layers.forward(x, cx, |block, x, cx| {
                let y = block.attention.forward(&block.norm.forward(&x, cx), Some(&rope), cx);
                let y = self.dropout.forward(&y, cx);
                let x = x + y;
                &x + block.mlp.forward(&x, cx)
            })
        });
        x.linear(&self.head, None)
    }

    /// The same without tracing one block for all.
    fn unrolled(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        let rope = Rope::new(&Tensor::arange(ids.size(1)), 100.0, 2, DType::F32);
        let mut x = self.embed.forward(ids, cx);
        for block in &self.layers.blocks {
            let y = block.attention.forward(&block.norm.forward(&x, cx), Some(&rope), cx);
            x += y;
            x = &x + block.mlp.forward(&x, cx);
        }
        x.linear(&self.head, None)
    }
}

fn ids() -> Tensor {
    Tensor::randint([2, 5], 0, 11, &Key::new(3))
}

#[test]
fn names_are_paths_and_ties_are_one_parameter() {
    let names: Vec<String> =
        Model::new(false).named_parameters().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names.len(), 1 + 3 * 8);
    assert_eq!(names[0], "embed.weight");
    assert_eq!(names[2], "layers.0.self_attn.q_proj.weight");
    assert_eq!(names[24], "layers.2.mlp.down_proj.weight");
}

#[test]
fn repeated_blocks_equal_unrolled_ones_with_gradients() {
    let (model, ids) = (Model::new(false), ids());
    let loss = |y: Tensor| y.cross_entropy(&ids);
    let (a, da) = value_and_grad(|m: &Model| loss(m.forward(&ids, &mut Context::eval())))(&model);
    let (b, db) = value_and_grad(|m: &Model| loss(m.unrolled(&ids, &mut Context::eval())))(&model);
    let again = Model::new(true);
    let dc = grad(|m: &Model| loss(m.forward(&ids, &mut Context::eval())))(&again);
    assert!(distance(&a, &b) < 1e-6);
    let named = da.named_parameters();
    assert_eq!(named.len(), 25);
    for (((name, a), b), c) in named.iter().zip(db.parameters()).zip(dc.parameters()) {
        let scale = a.abs().max(..).item::<f32>().unwrap() as f64;
        assert!(scale > 0.0, "{name}");
        assert!(distance(a, &b) < 1e-5 * scale, "{name}");
        assert!(distance(a, &c) < 1e-5 * scale, "{name}");
    }
    // The tied table has the sum of both gradients, in both places.
    assert_eq!(distance(&da.head, &da.embed.weight), 0.0);
}

#[test]
fn one_block_is_traced_for_all() {
    let model = Model::new(false);
    let f = compile(|(m, ids): (Model, Tensor)| m.forward(&ids, &mut Context::eval()));
    let program = f.planned(&(model, ids()), false).unwrap().traced;
    let mut blocks = 0;
    program.visit(&mut |f| blocks += usize::from(f.name == "block"));
    assert_eq!(blocks, 1);
}

#[test]
fn dropout_differs_by_block_and_step_but_not_by_compilation() {
    let (model, ids) = (Model::new(false), ids());
    let run = |key: Key| model.forward(&ids, &mut Context::train(key));
    assert!(distance(&run(Key::new(1)), &run(Key::new(2))) > 0.0);
    let compiled =
        compile(|(m, ids, key): (Model, Tensor, Key)| m.forward(&ids, &mut Context::train(key)));
    let y = compiled.call((model.clone(), ids.clone(), Key::new(1))).unwrap();
    assert!(distance(&run(Key::new(1)), &y) < 1e-6);
}

#[test]
fn cached_steps_equal_the_whole_sequence() {
    let layer = MultiHeadAttention {
        window: Some(3),
        ..MultiHeadAttention::grouped(8, 4, 2, 2, &Key::new(5))
    };
    let x = Tensor::randn([2, 6, 8], DType::F32, &Key::new(6));
    let mut cx = Context::eval();
    let rope = |positions: &Tensor| Rope::new(positions, 100.0, 2, DType::F32);
    let whole = layer.forward(&x, Some(&rope(&Tensor::arange(6))), &mut cx);
    let cache = KvCache::new(2, 2, 8, 2, DType::F32);
    let first = CacheIndex::first();
    let (start, mut cache) = layer.forward_cached(
        &x.at((.., ..3)),
        Some(&rope(&first.positions(3))),
        &cache,
        &first,
        &mut cx,
    );
    let mut parts = vec![start];
    for (from, n) in [(3i64, 1usize), (4, 2)] {
        let at = CacheIndex::from(&Tensor::from(from));
        let rope = rope(&at.positions(n));
        let part = x.narrow(1, from as usize, n);
        let (y, next) = layer.forward_cached(&part, Some(&rope), &cache, &at, &mut cx);
        parts.push(y);
        cache = next;
    }
    let joined = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1);
    assert!(distance(&whole, &joined) < 1e-6);
    let full =
        layer.forward_cached(&x, None, &KvCache::new(2, 2, 4, 2, DType::F32), &first, &mut cx);
    let e = full.0.eval().and(full.1.keys.eval()).unwrap_err().to_string();
    assert!(e.contains("6 positions do not fit in a cache of 4"), "{e}");
}

#[test]
fn mixed_precision_computes_in_bf16_and_keeps_f32_parameters() {
    let model = Mlp::new(4, 8, &Key::new(1));
    let x = Tensor::ones([3, 4], DType::F32);
    let y = model.forward(&x, &mut Context::eval().with_compute(DType::BF16));
    assert_eq!(y.dtype(), DType::BF16);
    let slope = grad(|m: &Mlp| {
        let mut cx = Context::eval().with_compute(DType::BF16);
        m.forward(&x, &mut cx).cast(DType::F32).mean(..)
    })(&model);
    assert_eq!(slope.up.weight.dtype(), DType::F32);
    slope.up.weight.eval().unwrap();
}

#[test]
fn loading_lists_everything_that_is_wrong() {
    let layer = LayerNorm::new(3);
    let good: HashMap<String, Tensor> = layer.named_parameters().into_iter().collect();
    assert!(layer.load(good.clone()).is_ok());
    let mut bad = good;
    bad.remove("bias");
    bad.insert("weight".into(), Tensor::ones([4], DType::F32));
    bad.insert("extra".into(), Tensor::ones([4], DType::F32));
    let e = layer.load(bad).unwrap_err().to_string();
    for part in ["missing: bias", "unexpected: extra", "weight is [4] instead of [3]"] {
        assert!(e.contains(part), "{e}");
    }
}

/// A layer that counts what it sees.
#[derive(Clone, Debug, Module)]
struct Counter {
    weight: Tensor,
    seen: Tensor,
}

#[test]
fn state_updates_come_back_by_name_also_from_repeated_blocks() {
    let block = |i: f64| Counter {
        weight: Tensor::full([2], i, DType::F32),
        seen: Tensor::zeros((), DType::F32),
    };
    let stack: Repeat<Counter> = [2.0, 3.0].into_iter().map(block).collect();
    let step = compile(|(stack, x): (Repeat<Counter>, Tensor)| {
        let ((_, updates), slope) = value_and_grad(|stack: &Repeat<Counter>| {
            let mut cx = Context::train(Key::new(0));
            let y = stack.forward(x.clone(), &mut cx, |block, x, cx| {
                cx.update(&block.seen, &block.seen + x.sum(..));
                x * &block.weight
            });
            (y.sum(..), cx.updates(stack))
        })(&stack);
        (stack.updated(&updates), slope)
    });
    let (stack, slope) = step.call((stack, Tensor::ones([2], DType::F32))).unwrap();
    assert_eq!(stack.blocks[0].seen.item::<f32>().unwrap(), 2.0);
    assert_eq!(stack.blocks[1].seen.item::<f32>().unwrap(), 4.0);
    assert_eq!(slope.blocks[0].weight.to_vec::<f32>().unwrap(), [3.0, 3.0]);
}

#[test]
fn initial_values_have_their_spread() {
    let key = Key::new(9);
    let spread = |init: Init| {
        let x = init.make(&[64, 128], DType::F32, &key);
        x.std(.., 0.0).item::<f32>().unwrap()
    };
    let close = |a: f32, b: f32| assert!((a / b - 1.0).abs() < 0.05, "{a} {b}");
    close(spread(Init::Normal(0.02)), 0.02);
    close(spread(Init::XavierNormal), (2.0f32 / 192.0).sqrt());
    close(spread(Init::XavierUniform), (2.0f32 / 192.0).sqrt());
    close(spread(Init::KaimingNormal), (2.0f32 / 128.0).sqrt());
    close(spread(Init::KaimingUniform), (2.0f32 / 128.0).sqrt());
    let cut = Init::TruncatedNormal(1.0).make(&[64, 128], DType::F32, &key);
    assert!(cut.abs().max(..).item::<f32>().unwrap() <= 2.0);
    close(cut.std(.., 0.0).item::<f32>().unwrap(), 0.8796);
    assert_eq!(Linear::new(2, 3, &key).weight.shape(), [3, 2]);
}

#[test]
fn layers_of_convolutions_and_channels() {
    use ferrata::Conv;
    use ferrata::nn::{Conv3d, ConvTranspose2d, GroupNorm, InstanceNorm};
    let (key, cx) = (&Key::new(0), &mut Context::eval());
    let layer = Conv3d::new(4, 6, [1, 3, 3], Conv::new(3).groups(2), key);
    assert_eq!(layer.weight.shape(), [6, 2, 1, 3, 3]);
    // Uniform within 1 / sqrt(fan-in), as in PyTorch.
    let largest = layer.weight.abs().max(..).item::<f32>().unwrap();
    assert!((0.2..=1.0 / 18f32.sqrt()).contains(&largest), "{largest}");
    let x = Tensor::randn([2, 4, 2, 5, 5], DType::F32, key);
    assert_eq!(layer.forward(&x, cx).shape(), [2, 6, 2, 3, 3]);
    let layer = ConvTranspose2d::new(4, 6, [2, 2], Conv::new(2).stride(2), key);
    let x = Tensor::randn([2, 4, 5, 5], DType::F32, key);
    let y = layer.forward(&x, cx);
    assert_eq!(y.shape(), [2, 6, 10, 10]);
    for (y, dims) in [
        (GroupNorm::new(2, 6).forward(&y, cx).unflatten(1, (2, 3)), vec![2, 3, 4]),
        (InstanceNorm::new(6).forward(&y, cx), vec![2, 3]),
    ] {
        let (mean, var) = (y.mean(&dims), y.var(&dims, 0.0));
        assert!(mean.abs().max(..).item::<f32>().unwrap() < 1e-5);
        assert!((var - 1.0).abs().max(..).item::<f32>().unwrap() < 1e-3);
    }
}
