//! Text-to-image models, also against PyTorch in float64.

use crate::pack::{Deviation, Pack, values};
use ferrata::models::{DirectoryConfig, FlowConfig, FlowModel};
use ferrata::nn::Context;
use ferrata::{DType, Key, Module, Tensor, tree, value_and_grad};

fn config() -> FlowConfig {
    let text = include_bytes!("../../../ferrata-formats/tests/data/mmdit.config.json");
    let small = String::from_utf8_lossy(text)
        .replace("\"image_size\": 32", "\"image_size\": 8")
        .replace("\"hidden_size\": 192", "\"hidden_size\": 24")
        .replace("\"num_hidden_layers\": 8", "\"num_hidden_layers\": 2")
        .replace("\"max_position_embeddings\": 19", "\"max_position_embeddings\": 3");
    FlowConfig::from_json(small.as_bytes(), "config.json".as_ref()).unwrap().unwrap()
}

fn inputs() -> [Tensor; 3] {
    let x = Tensor::randn([2, 3, 8, 8], DType::F32, &Key::new(1));
    [x, Tensor::from([0.2f32, 0.9]), Tensor::from([[1i64, 2, 3], [4, 5, 399]])]
}

/// The model with all parameters moved away from their beginning.
fn moved(model: &FlowModel) -> FlowModel {
    let mut number = 0;
    tree::map(model, |parameter| {
        number += 1;
        parameter + Tensor::randn(parameter.shape(), DType::F32, &Key::new(number)) * 0.1
    })
}

#[test]
fn velocity_is_zero_until_something_is_learned() {
    let model = FlowModel::new(&config(), &Key::new(0)).unwrap();
    let [x, t, text] = inputs();
    let velocity = model.forward(&x, &t, &text, &mut Context::eval());
    assert_eq!(velocity.shape(), x.shape());
    assert_eq!(velocity.abs().max(..).item::<f32>().unwrap(), 0.0);
}

#[test]
fn velocity_depends_on_place_time_and_text_of_its_own_sample() {
    let model = moved(&FlowModel::new(&config(), &Key::new(0)).unwrap());
    let velocity = |x: &Tensor, t: &Tensor, text: &Tensor| {
        model.forward(x, t, text, &mut Context::eval()).to_vec::<f32>().unwrap()
    };
    let [x, t, text] = inputs();
    let base = velocity(&x, &t, &text);
    let half = base.len() / 2;
    for changed in [
        velocity(&(&x + Tensor::from([0.0f32, 1.0]).reshape([2, 1, 1, 1])), &t, &text),
        velocity(&x, &Tensor::from([0.2f32, 0.8]), &text),
        velocity(&x, &t, &Tensor::from([[1i64, 2, 3], [4, 6, 399]])),
        velocity(&x, &t, &Tensor::from([[1i64, 2, 3], [5, 4, 399]])),
    ] {
        assert_eq!(base[..half], changed[..half], "the first sample stays");
        assert!(base[half..] != changed[half..], "the second one changes");
    }
}

#[test]
fn every_parameter_learns() {
    let model = moved(&FlowModel::new(&config(), &Key::new(0)).unwrap());
    let [x, t, text] = inputs();
    let (_, slope) = value_and_grad(|model: &FlowModel| {
        model.forward(&x, &t, &text, &mut Context::eval()).square().mean(..)
    })(&model);
    for (name, slope) in slope.named_parameters() {
        // Nobody looks at the caption after the last layer but through its keys and values.
        let unseen = ["attended", "up", "down", "query_norm"].map(|end| format!("1.text.{end}"));
        if unseen.iter().any(|part| name.contains(part)) {
            continue;
        }
        assert!(slope.abs().max(..).item::<f32>().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn directories_read_back() {
    let folder = std::env::temp_dir().join(format!("ferrata-painter-{}", std::process::id()));
    let model = moved(&FlowModel::new(&config(), &Key::new(0)).unwrap());
    model.save(&folder).unwrap();
    let again = FlowModel::load(&folder).unwrap();
    assert_eq!(again.config, model.config);
    for ((name, a), (_, b)) in model.named_parameters().iter().zip(again.named_parameters()) {
        assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name}");
    }
    let [x, t, _] = inputs();
    let long = Tensor::from([[1i64, 2, 3, 4], [1, 2, 3, 4]]);
    let error = again.forward(&x, &t, &long, &mut Context::eval()).error().unwrap();
    assert!(error.to_string().contains("4 tokens, but the model has positions for 3"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn velocities_and_gradients_are_those_of_pytorch() {
    for name in ["mmdit-tiny", "unet-tiny"] {
        compare(&Pack::open(name));
    }
}

fn compare(pack: &Pack) {
    let [x, t, ids, target] = ["x", "t", "ids", "target"].map(|name| pack.recorded(name));
    let model = FlowModel::load(&pack.folder).unwrap();
    let check = |model: &FlowModel, dtype, velocity, gradient| {
        let (x, target) = (x.cast(dtype), target.cast(dtype));
        let cost = |model: &FlowModel| {
            let y = model.forward(&x, &t.cast(dtype), &ids, &mut Context::eval());
            (y.mse(&target, ferrata::Reduction::Mean), y)
        };
        let ((_, y), slope) = value_and_grad(cost)(model);
        tree::eval(&slope).unwrap();
        Deviation::of(&values(&y), &pack.get("velocity")).within("velocity", velocity);
        let found = slope.named_parameters();
        assert_eq!(found.len(), pack.names("grad/").len());
        let mut worst = Deviation::default();
        for (name, value) in &found {
            let wanted = pack.get(&format!("grad/{name}"));
            worst = worst.worst(Deviation::of(&values(value), &wanted));
        }
        worst.within("gradients", gradient);
    };
    check(&model, DType::F32, [2e-5, 1e-5, 1e-5], [2e-5, 1e-4, 1e-4]);
    // In f64 but for the rounding of the recorded gradients.
    let model = tree::map(&model, |parameter| parameter.cast(DType::F64));
    check(&model, DType::F64, [1e-5; 3], [1e-5; 3]);
}
