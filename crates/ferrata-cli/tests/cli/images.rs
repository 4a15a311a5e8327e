//! Images: from a folder of pictures to a classifier, as a user would.

use std::fs;
use std::path::Path;

use crate::common::{ferrata, losses, refuse, resumes_as_whole, scratch, succeed};

/// A recipe small enough for tests.
const RECIPE: &str = "
[model]
kind = \"vit\"
layers = 1
heads = 2
dim = 16
patch = 8
[data]
kind = \"images\"
size = 16
crop = \"random\"
padding = 2
rand_augment = [1, 5]
on_damaged = \"skip\"
[train]
steps = 12
batch = 8
ema = 0.5
eval_every = 6
sample_every = 6
checkpoint_every = 6
[optimizer]
lr = 1e-2
";

fn pictures(folder: &Path) {
    let make = ["data", "scenes", "--out", "shapes", "--count", "84", "--size", "16"];
    let text = succeed(folder, &[&make[..], &["--classes", "colour"]].concat());
    assert!(text.contains("84 pictures to learn from, 42 for validation"), "{text}");
    fs::write(folder.join("small.toml"), RECIPE).unwrap();
}

#[test]
fn a_folder_of_pictures_becomes_a_classifier() {
    let folder = scratch("images");
    pictures(&folder);
    fs::write(folder.join("shapes/train/red/broken.png"), "no picture").unwrap();
    let train = ["train", "small.toml", "--images", "shapes"];
    let text = succeed(&folder, &[&train[..], &["--out", "whole"]].concat());
    for part in [
        "7 classes",
        "85 to learn from, 42 for validation",
        "8 images of 16 x 16 pixels",
        "broken.png` is left out: it is no PNG",
        "images/s",
        "top1 ",
        "samples in whole/samples/step-00000006.png",
        "ferrata classify whole",
    ] {
        assert!(text.contains(part), "{text} does not say {part}");
    }
    let metrics = fs::read_to_string(folder.join("whole/metrics.jsonl")).unwrap();
    for part in
        ["\"images_per_second\":", "\"data_wait\":", "\"top1\":", "\"top5\":", "\"damaged\":1"]
    {
        assert!(metrics.contains(part), "{metrics} has no {part}");
    }
    let confusion = fs::read_to_string(folder.join("whole/confusion.csv")).unwrap();
    assert!(confusion.starts_with("\"class\",\"blue\",\"cyan\"") && confusion.lines().count() == 8);

    resumes_as_whole(&folder, &train);

    let text = succeed(&folder, &["eval", "whole"]);
    assert!(text.contains("over 42 images") && text.contains("top5: "), "{text}");
    let last = metrics.lines().rev().find(|line| line.contains("top1")).unwrap();
    let loss = last.split("\"validation_loss\":").nth(1).unwrap();
    let loss: f64 = loss.split([',', '}']).next().unwrap().parse().unwrap();
    assert!(text.contains(&format!("loss: {loss:.4}")), "{text} {loss}");
    assert!(succeed(&folder, &["eval", "whole", "--images", "shapes"]).contains("over 42 images"));
    let text = succeed(&folder, &["inspect", "whole", "--training", "--batch", "2"]);
    assert!(text.contains("7 classes") && text.contains("FLOP per image"), "{text}");
    let image = "shapes/val/red";
    let image = fs::read_dir(folder.join(image)).unwrap().next().unwrap().unwrap().path();
    let text = succeed(&folder, &["classify", "whole", image.to_str().unwrap(), "--top", "2"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains(" %  "), "{text}");
}

#[test]
fn a_trained_classifier_learns_other_classes() {
    let folder = scratch("images_init");
    pictures(&folder);
    succeed(&folder, &["train", "small.toml", "--images", "shapes", "--out", "colours"]);
    let make = ["data", "scenes", "--out", "others", "--count", "42", "--size", "16"];
    succeed(&folder, &[&make[..], &["--classes", "shape"]].concat());
    let tune = ["train", "small.toml", "--images", "others", "--init", "colours", "--out", "tuned"];
    let text = succeed(&folder, &tune);
    let note = "note: classifier.weight, classifier.bias start anew, for 6 classes instead of 7";
    assert!(text.contains(note), "{text}");
    let first = |run: &str| losses(&folder.join(run))[0].clone();
    assert_ne!(first("tuned"), first("colours"));
    assert!(succeed(&folder, &["eval", "tuned"]).contains("over 42 images"));
}

#[test]
fn wrong_images_are_refused() {
    let folder = scratch("wrong_images");
    pictures(&folder);
    fs::create_dir(folder.join("empty")).unwrap();
    let train = ["train", "small.toml", "--out", "out"];
    for (arguments, part) in [
        (&["--images", "no"][..], "cannot read the data"),
        (&["--images", "empty"], "there are no images in"),
        (
            &["--images", "shapes", "--set", "model.kind=gpt2"],
            "has no meaning for model.kind = \"gpt2\"",
        ),
        (&["--images", "shapes", "--set", "data.size=12"], "patch_size"),
        (&["--images", "shapes", "--text", "a"], "cannot be used with"),
        (&[], "no images are given; set data.images or pass --images DIR"),
    ] {
        let line = refuse(&folder, &[&train[..], arguments].concat());
        assert!(line.contains(part), "{arguments:?} says {line}");
        assert!(!folder.join("out").exists(), "{arguments:?} has written something");
    }
    fs::write(folder.join("shapes/train/red/broken.png"), "").unwrap();
    let stop = ["--images", "shapes", "--set", "data.on_damaged=stop"];
    let line = refuse(&folder, &[&train[..], &stop].concat());
    assert!(line.contains("broken.png` cannot be used: the file is empty"), "{line}");
    let line = refuse(&folder, &["classify", "shapes", "small.toml"]);
    assert!(line.contains("no model"), "{line}");
}

#[test]
fn scenes_are_checked_by_their_pixels() {
    let folder = scratch("scenes");
    let make = ["data", "scenes", "--out", "scenes", "--count", "10", "--seed", "4"];
    let text = succeed(&folder, &make);
    assert!(
        text.contains("10 pictures to learn from, 1 for validation, 1 with held-out"),
        "{text}"
    );
    let captions = fs::read_to_string(folder.join("scenes/train/captions.jsonl")).unwrap();
    let line = captions.lines().nth(3).unwrap();
    let caption = line.split("\"text\":[\"").nth(1).unwrap().split('"').next().unwrap();
    let check = |caption: &str| {
        let all = ["data", "scenes", "--check", "scenes/train/000003.png", caption];
        ferrata(&folder, &all).output().unwrap()
    };
    let output = check(caption);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"they agree\n"[..]));
    let output = check("four large purple stars on a white background");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("they do not agree: "), "{text}");
    let line = refuse(&folder, &["data", "scenes", "--check", "scenes/held_out.txt", "a red star"]);
    assert!(line.contains("held_out.txt`: it is no PNG"), "{line}");
    assert!(refuse(&folder, &["data", "scenes"]).contains("--out"));
}
