//! Image classifiers: names and numbers of their weights, shapes, statistics, what is refused.

use ferrata::models::{
    Architecture, ImageConfig, ImageModel, MobileNetV2Config, ResNetConfig, ResNetDepth, Stem,
    VitConfig,
};
use ferrata::nn::Context;
use ferrata::{DType, Key, Module, Tensor};

fn config(architecture: Architecture, classes: usize) -> ImageConfig {
    ImageConfig { architecture, classes, labels: vec![], channels: 3, dtype: DType::F32 }
}

fn resnet(depth: ResNetDepth, width: usize, stem: Stem) -> Architecture {
    Architecture::ResNet(ResNetConfig { depth, width, stem })
}

fn mobilenet(stem: Stem) -> Architecture {
    Architecture::MobileNetV2(MobileNetV2Config { stem, dropout: 0.2 })
}

fn vit(dim: usize, heads: usize, layers: usize, side: usize, patch: usize) -> Architecture {
    Architecture::Vit(VitConfig {
        image_size: side,
        patch_size: patch,
        hidden_size: dim,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: 4 * dim,
        hidden_act: ferrata_formats::huggingface::Activation::Gelu,
        qkv_bias: true,
        layer_norm_eps: 1e-12,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        initializer_range: 0.02,
    })
}

fn model(config: &ImageConfig) -> ImageModel {
    ImageModel::new(config, &Key::new(3)).unwrap()
}

/// The numbers of parameters that torchvision and transformers state, and some of their names.
#[test]
fn weights_are_those_of_published_models() {
    let cases: [(Architecture, usize, &[&str]); 5] = [
        (
            resnet(ResNetDepth::D18, 64, Stem::Imagenet),
            11_689_512,
            &["layer2.0.downsample.0.weight", "layer4.1.bn2.running_var", "fc.bias"],
        ),
        (resnet(ResNetDepth::D34, 64, Stem::Imagenet), 21_797_672, &["layer3.5.conv2.weight"]),
        (
            resnet(ResNetDepth::D50, 64, Stem::Imagenet),
            25_557_032,
            &["layer1.0.downsample.1.running_mean", "layer1.2.conv3.weight", "layer3.5.bn3.bias"],
        ),
        (
            mobilenet(Stem::Imagenet),
            3_504_872,
            &[
                "features.0.0.weight",
                "features.1.conv.1.weight",
                "features.1.conv.2.running_mean",
                "features.17.conv.0.1.bias",
                "features.17.conv.2.weight",
                "features.17.conv.3.weight",
                "features.18.1.running_var",
                "classifier.1.weight",
            ],
        ),
        (
            vit(768, 12, 12, 224, 16),
            86_567_656,
            &[
                "vit.embeddings.cls_token",
                "vit.embeddings.patch_embeddings.projection.weight",
                "vit.encoder.layer.11.attention.attention.query.bias",
                "vit.encoder.layer.11.attention.output.dense.weight",
                "vit.encoder.layer.0.intermediate.dense.weight",
                "vit.encoder.layer.0.layernorm_after.bias",
                "vit.layernorm.weight",
                "classifier.bias",
            ],
        ),
    ];
    for (architecture, count, some) in cases {
        let model = model(&config(architecture, 1000));
        let all = model.named_parameters();
        let trained = all.iter().filter(|(name, _)| !name.contains("running_"));
        assert_eq!(trained.map(|(_, t)| t.elements()).sum::<usize>(), count);
        for name in some {
            assert!(all.iter().any(|(have, _)| have == name), "no {name}");
        }
    }
}

/// Every model trains on small images: scores of all classes, statistics of every normalisation.
#[test]
fn statistics_come_from_training_passes() {
    let images = Tensor::normal([2, 3, 16, 16], 1.0, DType::F32, &Key::new(1));
    for (architecture, layers) in [
        (resnet(ResNetDepth::D18, 8, Stem::Cifar), 20),
        (resnet(ResNetDepth::D50, 4, Stem::Cifar), 53),
        (mobilenet(Stem::Cifar), 52),
        (vit(16, 2, 2, 16, 4), 0),
    ] {
        let model = model(&config(architecture, 5));
        let mut cx = Context::train(Key::new(2));
        assert_eq!(model.forward(&images, &mut cx).shape(), [2, 5]);
        let updates = cx.updates(&model);
        assert_eq!(updates.len(), 2 * layers);
        let moved = model.updated(&updates);
        let before = model.forward(&images, &mut Context::eval());
        let after = moved.forward(&images, &mut Context::eval());
        let change = (&after - &before).abs().max(..).item::<f32>().unwrap();
        assert_eq!(change > 1e-4, layers > 0, "{change}");
    }
}

#[test]
fn directories_read_back() {
    let folder = std::env::temp_dir().join(format!("ferrata-images-{}", std::process::id()));
    let labels = vec!["cat".to_owned(), "dog".to_owned()];
    let config = ImageConfig { labels, ..config(resnet(ResNetDepth::D18, 4, Stem::Cifar), 2) };
    let saved = model(&config);
    saved.save(&folder).unwrap();
    let loaded = ImageModel::load(&folder).unwrap();
    assert_eq!(loaded.config, config);
    let images = Tensor::normal([1, 3, 8, 8], 1.0, DType::F32, &Key::new(1));
    let scores =
        |model: &ImageModel| model.forward(&images, &mut Context::eval()).to_vec::<f32>().unwrap();
    assert_eq!(scores(&loaded), scores(&saved));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let vit = model(&config(vit(16, 2, 1, 16, 4), 5));
    let resnet = model(&config(resnet(ResNetDepth::D18, 4, Stem::Cifar), 5));
    for (model, shape, part) in [
        (&vit, &[1, 3, 20, 20][..], "have 25 patches, but the model has positions for 16"),
        (&vit, &[1, 3, 15, 16], "do not fall into patches"),
        (&vit, &[1, 1, 16, 16], "patches of 3 channels"),
        (&vit, &[3, 16, 16], "give [batch, channels, height, width]"),
        (&resnet, &[1, 1, 16, 16], "does not fit 1 channels"),
        (&resnet, &[3, 16, 16], "spatial dimensions each, but got f32[3,16,16]"),
    ] {
        let images = Tensor::zeros(shape, DType::F32);
        let error = model.forward(&images, &mut Context::eval()).error().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
}
