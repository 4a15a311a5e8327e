//! Pictures from text: from captioned pictures to a painted one, as a user would.

use std::fs;
use std::path::Path;

use crate::common::{refuse, resumes_as_whole, scratch, succeed};

/// A recipe small enough for tests.
const RECIPE: &str = "
[model]
kind = \"mmdit\"
layers = 1
heads = 2
dim = 16
patch = 8
[data]
kind = \"images\"
scenes = 100
size = 16
crop = \"stretch\"
flip = 0
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[flow]
steps = 2
eval_prompts = 2
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

fn recipe(folder: &Path) {
    fs::write(folder.join("small.toml"), RECIPE).unwrap();
}

/// Width and height of a PNG file.
fn size(file: &Path) -> [u32; 2] {
    let bytes = fs::read(file).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn captioned_scenes_become_a_painter() {
    let folder = scratch("painting");
    recipe(&folder);
    let train = ["train", "small.toml"];
    let text = succeed(&folder, &[&train[..], &["--out", "whole"]].concat());
    for part in [
        "model: mmdit",
        "100 to learn from, 1 for validation",
        "8 images of 16 x 16 pixels",
        "accepted_one ",
        "accepted_two ",
        "samples in whole/samples/step-00000006.png",
        "ferrata paint whole",
    ] {
        assert!(text.contains(part), "{text} does not say {part}");
    }
    assert_eq!(size(&folder.join("whole/held_out.png")), [4 * 17 - 1, 16]);

    resumes_as_whole(&folder, &train);

    let paint = ["paint", "whole", "a red circle", "--steps", "2"];
    succeed(&folder, &[&paint[..], &["--out", "a.png"]].concat());
    assert_eq!(size(&folder.join("a.png")), [16, 16]);
    succeed(&folder, &[&paint[..], &["--out", "again.png"]].concat());
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    assert!(read("a.png") == read("again.png"), "the same seed paints the same picture");
    succeed(&folder, &[&paint[..], &["--out", "b.png", "--seed", "1"]].concat());
    assert!(read("a.png") != read("b.png"), "another seed paints another");
    let more = ["a blue star", "--count", "2", "--out", "grid.png", "--solver", "heun"];
    succeed(&folder, &[&paint[..], &more].concat());
    assert_eq!(size(&folder.join("grid.png")), [4 * 17 - 1, 16]);

    let text = succeed(&folder, &["eval", "whole", "--prompts", "3", "--steps", "2"]);
    assert!(text.contains("one object: ") && text.contains(" of 3"), "{text}");
    let text = succeed(&folder, &["inspect", "whole", "--training", "--batch", "2"]);
    assert!(text.contains("mmdit") && text.contains("FLOP per picture"), "{text}");

    // Going on from its weights, with other pictures.
    let make = ["data", "scenes", "--out", "own", "--count", "20", "--size", "16"];
    succeed(&folder, &make);
    let tune = ["train", "tune.toml", "--images", "own", "--init", "whole", "--out", "tuned"];
    let [_, after] = RECIPE.split_once("[data]").map(|(a, b)| [a, b]).unwrap();
    let own = format!("[data]{after}").replace("scenes = 100\n", "");
    fs::write(folder.join("tune.toml"), own).unwrap();
    let text = succeed(&folder, &tune);
    assert!(text.contains("20 to learn from, 2 for validation"), "{text}");
}

#[test]
fn a_model_knows_that_it_tells_pictures() {
    let folder = scratch("painting_pictures");
    recipe(&folder);
    let train = ["train", "small.toml", "--set", "flow.predict=picture"];
    succeed(&folder, &[&train[..], &["--out", "whole"]].concat());
    let config = fs::read_to_string(folder.join("whole/final/config.json")).unwrap();
    assert!(config.contains("\"prediction_type\": \"picture\""), "{config}");

    let paint = |model: &str, out: &str| {
        let arguments = ["paint", model, "a red circle", "--steps", "2", "--out", out];
        succeed(&folder, &arguments);
        fs::read(folder.join(out)).unwrap()
    };
    let own = paint("whole", "a.png");
    // The same weights, taken for those of a velocity.
    let other = config.replace("\"picture\"", "\"velocity\"");
    fs::write(folder.join("whole/final/config.json"), other).unwrap();
    assert!(own != paint("whole/final", "b.png"));

    let on = ["--init", "whole/final", "--out", "on"];
    let message = refuse(&folder, &[&train[..], &on].concat());
    assert!(message.contains("`flow.predict` is not what the model has learned"), "{message}");
}

#[test]
fn folders_of_classes_can_be_painted_too() {
    let folder = scratch("painting_classes");
    recipe(&folder);
    let make = ["data", "scenes", "--out", "shapes", "--count", "42", "--size", "16"];
    succeed(&folder, &[&make[..], &["--classes", "shape-colour"]].concat());
    let own = RECIPE.replace("scenes = 100\n", "images = \"shapes\"\n");
    fs::write(folder.join("own.toml"), own.replace("eval_prompts = 2\n", "")).unwrap();
    let text = succeed(&folder, &["train", "own.toml", "--out", "run"]);
    assert!(text.contains("42 to learn from, 42 for validation"), "{text}");
    succeed(&folder, &["paint", "run", "red-circle", "--steps", "1", "--out", "a.png"]);
}

#[test]
fn wrong_input_is_refused() {
    let folder = scratch("painting_wrong");
    recipe(&folder);
    for (set, part) in [
        ("data.images=.", "both data.images and data.scenes"),
        ("data.scenes=0", "`data.scenes` is 0"),
        ("model.patch=5", "does not divide `image_size` = 16"),
        ("model.dim=18", "no multiple of 4"),
        ("model.dropout=0.1", "`model.dropout` has no meaning for model.kind = \"mmdit\""),
        ("flow.guidance=-1", "`flow.guidance` is -1"),
        ("flow.shift=0", "`flow.shift` is 0"),
        ("flow.steps=0", "`flow.steps` is 0"),
        ("flow.solver=rk4", "one of euler, heun, dpm++"),
        ("model.kind=resnet18", "`model.layers` has no meaning"),
    ] {
        let message = refuse(&folder, &["train", "small.toml", "--out", "no", "--set", set]);
        assert!(message.contains(part), "{set} says {message:?}");
    }
    let message = refuse(&folder, &["paint", "nowhere", "a red circle"]);
    assert!(message.contains("there is no model `nowhere`"), "{message}");
    succeed(&folder, &["train", "small.toml", "--out", "run", "--set", "train.steps=1"]);
    let message = refuse(&folder, &["paint", "run", "a red circle", "--steps", "0"]);
    assert!(message.contains("`flow.steps` is 0"), "{message}");
    let message = refuse(&folder, &["paint", "run", "a red circle", "--out", "no/such/a.png"]);
    assert!(message.contains("no/such"), "{message}");
    let message = refuse(&folder, &["eval", "run", "--prompts", "0"]);
    assert!(message.contains("0 scenes say nothing"), "{message}");
    let message = refuse(&folder, &["classify", "run", "a.png"]);
    assert!(message.contains("is no image classifier"), "{message}");
    let message = refuse(&folder, &["generate", "run"]);
    assert!(message.contains("mmdit"), "{message}");
    fs::remove_file(folder.join("run/final/tokenizer.json")).unwrap();
    let message = refuse(&folder, &["paint", "run", "a red circle"]);
    assert!(message.contains("tokenizer.json"), "{message}");
}
