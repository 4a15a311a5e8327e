//! Networks that see and paint: training steps and inference.

use std::path::Path;

use ferrata_ir::DType;

use super::cases::{Training, made, uniform};
use super::{Case, Work};
use crate::flow::{self, Times};
use crate::models::{DirectoryConfig, FlowConfig, FlowModel, ImageConfig, ImageModel};
use crate::nn::Context;
use crate::optim::{Adam, Optimizer, Sgd};
use crate::train::Result;
use crate::{Key, Tensor};

/// A network, and what it is measured on.
struct Net {
    name: &'static str,
    /// Its `config.json`.
    config: &'static str,
    /// Height and width of an image.
    size: usize,
    /// Multiplications of a forward pass of one image.
    products: f64,
    parameters: f64,
}

const RESNET18: Net = Net {
    name: "resnet18",
    config: r#"{"architecture": "resnet18", "num_classes": 10, "stem": "cifar"}"#,
    size: 32,
    products: 0.5554e9,
    parameters: 11.17e6,
};
const RESNET50: Net = Net {
    name: "resnet50",
    config: r#"{"architecture": "resnet50", "num_classes": 1000}"#,
    size: 224,
    products: 4.089e9,
    parameters: 25.56e6,
};
const MOBILENET: Net = Net {
    name: "mobilenet-v2",
    config: r#"{"architecture": "mobilenet_v2", "num_classes": 1000}"#,
    size: 224,
    products: 0.3008e9,
    parameters: 3.505e6,
};

/// Every case, in the order in which they are measured.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for compute in [DType::F32, DType::BF16] {
        cases.extend([RESNET18.step(32, compute), RESNET50.inference(compute)]);
    }
    cases.extend([MOBILENET.step(8, DType::F32), MOBILENET.inference(DType::F32)]);
    cases.extend([DType::F32, DType::BF16].map(painter));
    cases
}

/// The text-to-image model of the recipe `scenes.toml`.
const PAINTER: &str = r#"{"model_type": "mmdit", "image_size": 32, "patch_size": 4,
    "hidden_size": 192, "num_hidden_layers": 8, "num_attention_heads": 3,
    "intermediate_size": 768, "vocab_size": 400, "max_position_embeddings": 19}"#;

/// A training step of it on 64 pictures, with AdamW.
fn painter(compute: DType) -> Case {
    const BATCH: usize = 64;
    let training = Training {
        optimizer: Optimizer::new(Adam { decoupled: true, ..Adam::default() }),
        model: || {
            let config = FlowConfig::from_json(PAINTER.as_bytes(), Path::new("config.json"))?
                .ok_or_else(|| ferrata_ir::Error::new("no text-to-image model"))?;
            Ok(FlowModel::new(&config, &Key::new(1))?)
        },
        batch: || {
            let text = Tensor::randint([BATCH, 19], 0, 400, &Key::new(3));
            (uniform(&[BATCH, 3, 32, 32], DType::F32), text)
        },
        loss: |model: &FlowModel, images: &Tensor, text: &Tensor, cx: &mut Context| {
            let (x, t, noise) = flow::noised(images, &Times::default(), &Key::new(4));
            flow::loss(&model.forward(&x, &t, text, cx), &noise, images)
        },
    };
    // Multiplications of a forward pass of one picture; three times as many in a step.
    let (products, parameters) = (0.3166e9, 7.9e6);
    let [read, written] = [16.0, 12.0].map(|bytes| bytes * parameters);
    let flops = 2.0 * 3.0 * products * BATCH as f64;
    let work = Work { flops, read, written, dtype: compute };
    training.case(format!("painter-step-{compute}"), work, compute)
}

impl Net {
    fn model(&self) -> Result<ImageModel> {
        let config = ImageConfig::from_json(self.config.as_bytes(), Path::new("config.json"))?
            .ok_or_else(|| ferrata_ir::Error::new("no image classifier"))?;
        Ok(ImageModel::new(&config, &Key::new(1))?)
    }

    fn images(&self, batch: usize) -> Tensor {
        uniform(&[batch, 3, self.size, self.size], DType::F32)
    }

    /// `passes` times the multiplications of a forward pass; parameters are moved so many times.
    fn work(&self, passes: f64, moved: [f64; 2], dtype: DType) -> Work {
        let [read, written] = moved.map(|times| 4.0 * times * self.parameters);
        Work { flops: 2.0 * passes * self.products, read, written, dtype }
    }

    /// Forward, backward, and stochastic gradient descent with momentum.
    fn step(&'static self, batch: usize, compute: DType) -> Case {
        let training = Training {
            optimizer: Optimizer::new(Sgd { momentum: 0.9, ..Sgd::default() }),
            model: || self.model(),
            batch: move || (self.images(batch), Tensor::randint([batch], 0, 10, &Key::new(3))),
            loss: |model: &ImageModel, images: &Tensor, labels: &Tensor, cx: &mut Context| {
                model.forward(images, cx).cast(DType::F32).cross_entropy(labels)
            },
        };
        let work = self.work(3.0 * batch as f64, [2.0, 2.0], compute);
        training.case(format!("{}-step-{compute}", self.name), work, compute)
    }

    /// One image forward.
    fn inference(&'static self, compute: DType) -> Case {
        let work = self.work(1.0, [1.0, 0.0], compute);
        let name = format!("{}-inference-{compute}", self.name);
        let operands = move || {
            let model = self.model()?.cast(compute);
            Ok((model, self.images(1).cast(compute)))
        };
        made(name, work, operands, |(model, images): (ImageModel, Tensor)| {
            model.forward(&images, &mut Context::eval())
        })
    }
}
