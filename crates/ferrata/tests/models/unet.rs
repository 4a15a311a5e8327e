//! The U-Net against PyTorch in float64, and what it learns.

use crate::pack::values;
use ferrata::flow::{Sampler, Times, between, loss};
use ferrata::models::{DirectoryConfig, FlowConfig, FlowModel};
use ferrata::nn::Context;
use ferrata::optim::{Adam, Optimizer};
use ferrata::{DType, Key, Tensor, compile, value_and_grad};

fn config() -> FlowConfig {
    let text = r#"{"model_type": "unet", "image_size": 8, "vocab_size": 6,
        "max_position_embeddings": 2, "block_out_channels": [16, 32], "layers_per_block": 1,
        "attention_resolutions": [4], "attention_head_dim": 16, "norm_num_groups": 8,
        "cross_attention_dim": 16, "text_layers": 1}"#;
    FlowConfig::from_json(text.as_bytes(), "config.json".as_ref()).unwrap().unwrap()
}

#[test]
fn a_new_network_stands_still_in_any_precision() {
    let model = FlowModel::new(&config(), &Key::new(1)).unwrap();
    let x = Tensor::randn([2, 3, 8, 8], DType::F32, &Key::new(2));
    let (t, text) = (Tensor::from([0.1f32, 0.9]), Tensor::from([[1i64, 2], [3, 0]]));
    for dtype in [DType::F32, DType::BF16] {
        let v = model.forward(&x, &t, &text, &mut Context::eval().with_compute(dtype));
        assert_eq!((v.shape(), v.dtype()), (x.shape(), dtype));
        assert!(values(&v).iter().all(|v| *v == 0.0));
    }
    let wrong = model.forward(&x.narrow(2, 0, 7), &t, &text, &mut Context::eval());
    assert!(wrong.error().is_some());
    let long = Tensor::zeros([2, 3], DType::I64);
    let wrong = model.forward(&x, &t, &long, &mut Context::eval()).error().unwrap();
    assert!(wrong.to_string().contains("no texts of at most 2 tokens"), "{wrong}");
}

#[test]
fn it_paints_the_colour_that_the_text_says() {
    let key = Key::new(3);
    let mut model = FlowModel::new(&config(), &key.fold(0)).unwrap();
    // Red, green and blue, by the second word.
    let colours = Tensor::eye(3, DType::F32) * 2.0 - 1.0;
    let optimizer = Optimizer::new(Adam::default());
    let mut state = optimizer.init(&model);
    let step = compile(|(model, state, rates, words): (FlowModel, _, _, Tensor)| {
        let key = Key::from_tensor(&words);
        let word = Tensor::randint([24], 0, 3, &key.fold(0));
        let text = Tensor::stack(&[&word.full_like(5), &(&word + 1)], 1);
        let data = colours.take(&word, 0).unsqueeze(-1).unsqueeze(-1).expand([24, 3, 8, 8]);
        let noise = Tensor::randn([24, 3, 8, 8], DType::F32, &key.fold(1));
        let t = Times::default().draw(24, &key.fold(2));
        let x = between(&noise, &data, &t);
        let cost = |model: &FlowModel| {
            loss(&model.forward(&x, &t, &text, &mut Context::eval()), &noise, &data)
        };
        let (cost, slope) = value_and_grad(cost)(&model);
        let (model, state) = optimizer.update(&model, &slope, &state, &rates);
        (model, state, cost)
    });
    for i in 0..200 {
        let rates = optimizer.rates(i, 3e-3);
        (model, state, _) =
            step.call((model, state, rates, key.fold(i as u32 + 1).tensor())).unwrap();
    }
    let velocity = compile(|(model, x, t, text): (FlowModel, Tensor, Tensor, Tensor)| {
        model.forward(&x, &t, &text, &mut Context::eval())
    });
    let text = Tensor::from([[5i64, 1], [5, 2], [5, 3]]);
    let noise = Tensor::randn([3, 3, 8, 8], DType::F32, &Key::new(4));
    let sampled = Sampler::default()
        .sample(&noise, |x, t| velocity.call((model.clone(), x.clone(), t.clone(), text.clone())));
    let off = (sampled.unwrap().mean([2, 3]) - &colours).abs().max(..).item::<f32>().unwrap();
    println!("largest distance of a mean colour: {off:.3}");
    assert!(off < 0.3, "{off}");
}
