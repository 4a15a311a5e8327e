//! What a user can write, and what is said when it is wrong.

use std::fs;

use ferrata_formats::huggingface::{Architecture, FlowNetwork, Stem};
use ferrata_ir::testing::fuzz;

use super::*;
use crate::train::Result;

fn load(text: &str, overrides: &[&str]) -> Result<Config> {
    let overrides = overrides.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>>>();
    Config::load(Source::Text { name: "test.toml", text }, &overrides?)
}

fn refused(text: &str, overrides: &[&str]) -> String {
    load(text, overrides).and_then(|config| config.check()).unwrap_err().to_string()
}

#[test]
fn reads_sections_and_overrides() {
    let text = "[model]\nkind = \"llama\"\nheads = 8\n[train]\nsteps = 10\n";
    let set = [
        "train.memory=1.5GB",
        "train.steps=20",
        "optimizer.lr=1",
        "train.prompt=fn main",
        "data.text=a.txt",
    ];
    let config = load(text, &set).unwrap();
    let model = config.model.as_ref().unwrap();
    assert_eq!((model.kind, model.heads, config.train.steps), (ModelKind::Llama, Some(8), 20));
    assert_eq!((config.optimizer.lr, config.train.prompt.as_str()), (1.0, "fn main"));
    assert_eq!(config.data.text().unwrap().text, [std::env::current_dir().unwrap().join("a.txt")]);
    assert_eq!(config.train.memory, Some(Size(1_500_000_000)));
    let again = load(&config.to_toml(), &[]).unwrap();
    assert_eq!(again, config, "what is written reads back");
}

#[test]
fn wrong_keys_and_types_name_the_key() {
    for (text, overrides, parts) in [
        ("[train]\nstesp = 1", &[][..], &["unknown key `train.stesp`", "`train.steps`"][..]),
        ("[trian]\nsteps = 1", &[], &["unknown key `trian`", "`train`"]),
        ("", &["model.layrs=3"], &["unknown key `model.layrs`", "`model.layers`"]),
        ("[train]\nzzz = 1", &[], &["unknown key `train.zzz`", "known keys", "batch"]),
        ("[train]\nsteps = \"many\"", &[], &["`train.steps` is the text \"many\"", "number"]),
        ("", &["train.steps=-3"], &["`train.steps` is -3", "0 or more"]),
        ("", &["train.steps=1.5"], &["`train.steps` is 1.5", "whole number"]),
        ("", &["optimizer.kind=adamv"], &["`optimizer.kind`", "did you mean `adamw`?"]),
        ("", &["optimizer.kind=3"], &["`optimizer.kind` is 3", "one of sgd"]),
        ("", &["train=3"], &["section.key=value"]),
        ("", &["train.steps"], &["section.key=value"]),
        ("", &["train.memory=much"], &["`train.memory` is the text \"much\"", "\"4GB\""]),
        ("", &["train.memory=-3"], &["`train.memory` is -3", "amount of memory"]),
        ("train = 3", &[], &["`train` is 3", "a section with keys"]),
        ("train = 3", &["train.steps=3"], &["`train` is no section"]),
        ("[train]\nsteps = = 3", &[], &["`test.toml` line 2 is not TOML"]),
        ("[data]\ntext = [1]", &[], &["`data.text` is 1", "text in quotes"]),
    ] {
        let message = refused(text, overrides);
        for part in parts {
            assert!(message.contains(part), "{text:?} {overrides:?} says {message:?}");
        }
        assert!(!message.contains('\n') && message.contains("; "), "{message:?}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_a_remedy() {
    let base = "[model]\n[data]\ncargo_sources = true\n";
    assert_eq!(load(base, &[]).unwrap().check(), Ok(()));
    for (set, part) in [
        ("model.heads=3", "does not divide `model.dim` = 128; set model.heads to 2"),
        ("model.heads=0", "`model.heads` is 0; it has to be at least 1"),
        ("model.dropout=1.0", "less than 1"),
        ("model.kv_heads=2", "set model.kind"),
        ("data.cargo_sources=false", "no data is given; set data.text"),
        ("data.text=no/such/file", "cannot read the data"),
        ("data.validation=1.5", "less than 1"),
        ("data.tokenizer=bpee", "choose char, byte, bpe"),
        ("train.batch=0", "`train.batch` is 0; it has to be at least 1"),
        ("train.accumulate=0", "`train.accumulate` is 0"),
        ("train.steps=0", "`train.steps` is 0"),
        ("train.ema=1.0", "less than 1"),
        ("optimizer.lr=nan", "`optimizer.lr` is NaN; it has to be a finite number"),
        ("optimizer.lr=inf", "`optimizer.lr` is inf"),
        ("optimizer.betas=[0.9]", "give two"),
        ("optimizer.momentum=0.9", "no meaning for optimizer.kind = \"adamw\""),
        ("schedule.decay=3", "\"wsd\" only"),
    ] {
        let message = refused(base, &[set]);
        assert!(message.contains(part), "{set} says {message:?}");
    }
    let set = ["schedule.kind=cosine", "schedule.warmup=11", "train.steps=10"];
    assert!(refused(base, &set).contains("take 11 steps and the run has 10"));
    let set = ["model.kind=llama", "model.kv_heads=3"];
    assert!(refused(base, &set).contains("does not divide `model.heads` = 4"));
    for (set, part) in [
        (["model.kind=gpt2", "model.experts=4"], "set model.kind = \"llama\""),
        (["model.kind=llama", "model.capacity=1.25"], "without `model.experts`; remove it"),
        (["model.kind=llama", "model.experts=0"], "`model.experts` is 0"),
        (["model.experts=4", "model.experts_per_token=5"], "is more than `model.experts` = 4"),
        (["model.experts=4", "model.experts_per_token=0"], "`model.experts_per_token` is 0"),
        (["model.experts=4", "model.capacity=0.0"], "`model.capacity` is 0; it has to be above 0"),
        (["model.experts=4", "model.balance=-1.0"], "`model.balance` is -1"),
    ] {
        let message = refused(base, &[&["model.kind=llama"][..], &set].concat());
        assert!(message.contains(part), "{set:?} says {message:?}");
    }
}

#[test]
fn images_are_another_kind_of_data() {
    let text =
        "[data]\nkind = \"images\"\nimages = \"Cargo.toml\"\ncrop = \"resized\"\njitter = 0.4\n";
    let config = load(text, &["data.rand_augment=[2, 9]", "data.on_damaged=skip"]).unwrap();
    let images = config.data.images().unwrap();
    assert_eq!((images.jitter.as_slice(), images.size), (&[0.4][..], 32));
    assert_eq!(config.data.check(), Ok(()));
    assert!(images.transforms().unwrap().rand_augment.is_some());
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config, "what is written reads back");
    assert!(config.data.text().unwrap_err().to_string().contains("data.kind is \"images\""));
    for (set, part) in [
        ("data.text=a", "unknown key `data.text`"),
        ("data.kind=image", "`data.kind` is the text \"image\"; it has to be one of text, images"),
        ("data.kind=3", "`data.kind` is 3"),
        ("data.crops=random", "did you mean `data.crop`?"),
        ("data.padding=2", "`data.padding` has a meaning for data.crop = \"random\" only"),
        ("data.scale=[0.5, 0.1]", "`data.scale` = [0.5, 0.1] is no range"),
        ("data.scale=[0.5]", "`data.scale` has 1 entries; give 2"),
        ("data.size=0", "`data.size` is 0"),
        ("data.flip=1.5", "`data.flip` is 1.5"),
        ("data.jitter=[0, 0, 0, 0.6]", "data.jitter (hue)"),
        ("data.std=[0, 1, 1]", "`data.std` is 0"),
        ("data.rand_augment=[2, 40]", "data.rand_augment (strength)"),
        ("data.images=no/such", "cannot read the data"),
        ("train.label_smoothing=1", "less than 1"),
    ] {
        let message = refused(text, &[set]);
        assert!(message.contains(part), "{set} says {message:?}");
    }
    assert!(refused("", &["data.size=3"]).contains("unknown key `data.size`"));
    assert!(refused("[data]\nkind = \"images\"", &[]).contains("pass --images DIR"));
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let folder = std::env::temp_dir().join(format!("ferrata-config-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("run.toml");
    fs::write(&file, "[data]\ntext = [\"a.txt\", \"/b.txt\"]\ntokenizer = \"t.json\"\n").unwrap();
    let config = Config::load(Source::File(&file), &[]).unwrap();
    let data = config.data.text().unwrap();
    assert_eq!(data.text, [folder.join("a.txt"), PathBuf::from("/b.txt")]);
    assert_eq!(PathBuf::from(data.tokenizer.clone().unwrap()), folder.join("t.json"));
    let missing = Config::load(Source::File(&folder.join("no.toml")), &[]).unwrap_err();
    assert!(missing.to_string().contains("check the path"), "{missing}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn sections_become_model_configurations() {
    let model = ModelSection { kind: ModelKind::Llama, dim: Some(96), ..Default::default() };
    let config = model.to_model_config(65).unwrap();
    assert_eq!((config.vocab_size(), config.context()), (65, 64));
    let small = ModelSection { vocab: Some(60), ..Default::default() };
    let message = small.to_model_config(65).unwrap_err().to_string();
    assert!(message.contains("less than the tokenizer's 65 tokens"), "{message}");
    let padded = ModelSection { vocab: Some(128), ..Default::default() };
    assert_eq!(padded.to_model_config(65).unwrap().vocab_size(), 128);
    let vit = ModelSection { kind: ModelKind::Vit, patch: Some(2), ..Default::default() };
    let labels = ["cat".to_owned(), "dog".to_owned()];
    let config = vit.to_image_config(&labels, 8).unwrap();
    assert_eq!((config.classes, config.label(1)), (2, "dog".to_owned()));
    let stem = |side: usize, set: &[&str]| {
        let set = [&["model.kind=resnet18", "model.width=8"], set].concat();
        let section = load("", &set).unwrap().model.unwrap();
        match section.to_image_config(&labels, side).unwrap().architecture {
            Architecture::ResNet(resnet) if resnet.width == 8 => resnet.stem,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((stem(32, &[]), stem(224, &[])), (Stem::Cifar, Stem::Imagenet));
    assert_eq!(stem(32, &["model.stem=imagenet"]), Stem::Imagenet);
    for (section, side, part) in [
        (vit.clone(), 9, "`patch_size` = 2 does not divide `image_size` = 9"),
        (ModelSection { classes: Some(3), ..vit }, 8, "`model.classes` = 3 and the data has 2"),
        (padded, 8, "does not classify images"),
    ] {
        let message = section.to_image_config(&labels, side).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_unet_fits_its_pictures() {
    let unet = |set: &[&str], side| {
        let set = [&["model.kind=unet", "model.dim=64", "model.heads=2"], set].concat();
        let section = load("", &set).unwrap().model.unwrap();
        section.to_flow_config(100, 20, side).map(|config| match config.network {
            FlowNetwork::UNet(unet) => unet,
            other => panic!("{other:?}"),
        })
    };
    let usual = unet(&[], 32).unwrap();
    assert_eq!((&usual.block_out_channels[..], usual.layers_per_block), (&[64, 128, 192][..], 2));
    assert_eq!((&usual.attention_resolutions[..], usual.attention_head_dim), (&[16, 8][..], 32));
    assert_eq!((usual.norm_num_groups, usual.cross_attention_dim), (32, 64));
    let own = ["model.channels=[32, 96]", "model.attention=[]", "model.layers=1"];
    let own = unet(&own, 32).unwrap();
    assert_eq!((own.norm_num_groups, own.layers_per_block), (32, 1));
    assert!(own.attention_resolutions.is_empty());
    for (set, side, part) in [
        ("model.channels=[64, 64, 64, 64]", 20, "cannot be halved 3 times"),
        ("model.channels=[64, 80]", 32, "does not divide `block_out_channels` = 80"),
        ("model.channels=[]", 32, "`block_out_channels` is empty"),
        ("model.attention=[15]", 32, "the heights are [32, 16, 8]"),
        ("model.patch=4", 32, "`model.patch` has no meaning for model.kind = \"unet\""),
        ("model.channels=[0]", 32, "`model.channels`"),
    ] {
        let message = match unet(&[set], side) {
            Ok(_) => panic!("{set} was taken"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(part), "{set} says {message:?}");
    }
}

#[test]
fn mutated_recipes_never_panic() {
    let text = "data.text=['Cargo.toml']";
    for (recipe, data) in [
        (include_str!("../../../../../recipes/quickstart.toml"), text),
        (include_str!("../../../../../recipes/shakespeare.toml"), text),
        (include_str!("../../../../../recipes/images.toml"), "data.images='Cargo.toml'"),
    ] {
        fuzz(recipe.as_bytes(), 5000, |bytes| {
            let config = load(&String::from_utf8_lossy(bytes), &[data])?;
            assert_eq!(load(&config.to_toml(), &[])?, config, "what is written reads back");
            config.check()
        });
    }
}

#[test]
fn mutated_overrides_never_panic() {
    fuzz(b"data.text=[\"a.txt\", 'b']", 5000, |bytes| {
        load("", &[&String::from_utf8_lossy(bytes)]).map(drop)
    });
}
