//! CLIP against transformers in float64. The tolerances are about ten times what float32 differs
//! there.

use crate::pack::{Deviation, Pack, values};
use ferrata::models::Clip;
use ferrata::nn::Context;
use ferrata::optim::{Adam, Optimizer};
use ferrata::{DType, Key, Module, Tensor, compile, tree, value_and_grad};

/// The recorded model, images and ids.
fn recorded() -> (Pack, Clip, Tensor, Tensor) {
    let pack = Pack::open("clip-tiny");
    let (images, ids) = (pack.recorded("images"), pack.recorded("ids"));
    let model = Clip::load(&pack.folder).unwrap();
    (pack, model, images, ids)
}

fn agrees(pack: &Pack, model: &Clip, images: &Tensor, ids: &Tensor, limits: [f64; 3]) {
    let mut cx = Context::eval();
    let (image, text) = (model.encode_images(images, &mut cx), model.encode_texts(ids, &mut cx));
    let logits = model.scores(&image, &text);
    for (name, found) in [("image", &image), ("text", &text), ("logits", &logits)] {
        Deviation::of(&values(found), &pack.get(name)).within(name, limits);
    }
}

fn gradients(pack: &Pack, model: &Clip, images: &Tensor, ids: &Tensor, limits: [f64; 3]) {
    let loss = |model: &Clip| model.loss(images, ids, &mut Context::eval());
    let (loss, gradient) = value_and_grad(loss)(model);
    tree::eval(&gradient).unwrap();
    Deviation::of(&values(&loss), &pack.get("loss")).within("loss", limits);
    let found = gradient.named_parameters();
    assert_eq!(found.len(), pack.names("grad/").len());
    let mut worst = Deviation::default();
    // Scores do not depend on the bias of keys: its gradient is rounding noise.
    for (name, value) in found.iter().filter(|(name, _)| !name.ends_with("k_proj.bias")) {
        let wanted = pack.get(&format!("grad/{name}"));
        worst = worst.worst(Deviation::of(&values(value), &wanted));
    }
    worst.within("gradients", limits);
}

#[test]
fn features_and_gradients_are_those_of_transformers() {
    let (pack, model, images, ids) = recorded();
    agrees(&pack, &model, &images, &ids, [2e-5, 2e-6, 2e-6]);
    gradients(&pack, &model, &images, &ids, [2e-5, 1e-5, 1e-5]);
    // In f64 but for the rounding of recorded gradients.
    let model = tree::map(&model, |parameter| parameter.cast(DType::F64));
    let images = images.cast(DType::F64);
    agrees(&pack, &model, &images, &ids, [1e-12; 3]);
    gradients(&pack, &model, &images, &ids, [1e-7; 3]);
}

#[test]
fn the_end_of_a_text_is_the_largest_id_in_old_files() {
    let (pack, mut model, _, ids) = recorded();
    let differs = |model: &Clip| {
        let found = values(&model.encode_texts(&ids, &mut Context::eval()));
        let wanted = pack.get("text_largest");
        found.iter().zip(&wanted).any(|(a, b)| (a - b).abs() > 1e-5)
    };
    assert!(differs(&model));
    model.config.text.eos_token_id = 2;
    assert!(!differs(&model));
}

#[test]
fn a_directory_comes_back() {
    let (_, model, images, ids) = recorded();
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("clip");
    model.save(&folder).unwrap();
    let again = Clip::load(&folder).unwrap();
    assert_eq!(again.config, model.config);
    let scores = |model: &Clip| {
        let cx = &mut Context::eval();
        values(&model.scores(&model.encode_images(&images, cx), &model.encode_texts(&ids, cx)))
    };
    assert_eq!(scores(&again), scores(&model));
    let other = Pack::open("vit-tiny").folder;
    assert!(Clip::load(other).unwrap_err().to_string().contains("is no CLIP"));
}

#[test]
fn wrong_images_and_texts_are_refused() {
    let (_, model, images, _) = recorded();
    let cx = &mut Context::eval();
    let error = model.encode_images(&images.narrow(2, 0, 8), cx).error().unwrap();
    assert!(error.to_string().contains("have 6 patches, but the model has positions for 9"));
    let error = model.encode_texts(&Tensor::zeros([1, 9], DType::I64), cx).error().unwrap();
    assert!(error.to_string().contains("no texts of at most 8 tokens"));
}

#[test]
fn training_brings_texts_to_their_images() {
    // Images of one colour each, and the word for it.
    let (_, model, _, _) = recorded();
    let mut model = Clip::new(&model.config, &Key::new(3)).unwrap();
    let colours = Tensor::randn([6, 3, 1, 1], DType::F32, &Key::new(4));
    let images = &colours + Tensor::normal([6, 3, 12, 12], 0.3, DType::F32, &Key::new(5));
    let word = (Tensor::arange(6) + 10).unsqueeze(1);
    let ids = Tensor::concat(&[&word.full_like(48), &word, &word.full_like(49)], 1);
    let optimizer = Optimizer::new(Adam::default());
    let mut state = optimizer.init(&model);
    let step = compile(|(model, state, rates): (Clip, _, _)| {
        let loss = |model: &Clip| model.loss(&images, &ids, &mut Context::eval());
        let (loss, slope) = value_and_grad(loss)(&model);
        let (model, state) = optimizer.update(&model, &slope, &state, &rates);
        (model, state, loss)
    });
    let mut losses = Vec::new();
    for i in 0..60 {
        let loss: Tensor;
        (model, state, loss) = step.call((model, state, optimizer.rates(i, 3e-3))).unwrap();
        losses.push(loss.item::<f32>().unwrap());
    }
    assert!(losses[0] > 1.5 && losses[59] < 0.1, "{losses:?}");
    let cx = &mut Context::eval();
    let other = &colours + Tensor::normal([6, 3, 12, 12], 0.3, DType::F32, &Key::new(6));
    let scores = model.scores(&model.encode_images(&other, cx), &model.encode_texts(&ids, cx));
    assert_eq!(scores.argmax(1).to_vec::<i64>().unwrap(), [0, 1, 2, 3, 4, 5]);
}
