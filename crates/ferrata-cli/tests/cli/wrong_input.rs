//! Wrong input: one line with cause and remedy, exit code 2, nothing written.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{ferrata, refuse, refused, scratch, small_run, succeed};

/// Training must be refused with a line that holds `parts`, and must leave no folder.
#[track_caller]
fn training_refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let all = [&["train", "small.toml", "--out", "out"], arguments].concat();
    let line = refuse(folder, &all);
    for part in parts {
        assert!(line.contains(part), "{arguments:?} says {line:?}, without {part:?}");
    }
    assert!(!folder.join("out").exists(), "{arguments:?} has written something");
}

#[test]
fn wrong_text() {
    let folder = scratch("wrong_text");
    small_run(&folder);
    fs::write(folder.join("empty.txt"), "").unwrap();
    fs::write(folder.join("binary.bin"), [0u8, 159, 146, 150, 255, 0, 1]).unwrap();
    fs::write(folder.join("short.txt"), "too short").unwrap();
    training_refused(&folder, &["--text", "no.txt"], &["no.txt", "check the path"]);
    training_refused(&folder, &["--text", "empty.txt"], &["no text"]);
    training_refused(&folder, &["--text", "binary.bin"], &["binary.bin", "not text"]);
    training_refused(&folder, &["--text", "short.txt"], &["context of 16", "more text"]);
}

#[test]
fn wrong_configuration() {
    let folder = scratch("wrong_configuration");
    small_run(&folder);
    for (set, parts) in [
        ("train.stesp=3", &["unknown key `train.stesp`", "did you mean `train.steps`?"][..]),
        ("train.steps=many", &["`train.steps` is the text \"many\"", "whole number"]),
        ("model.heads=3", &["does not divide `model.dim` = 16", "set model.heads to 2"]),
        ("train.batch=0", &["`train.batch` is 0"]),
        ("data.tokenizer=letters", &["`letters`", "choose char, byte, bpe"]),
        ("model.dim=99999999996", &["`model.dim` is 99999999996", "at most"]),
        ("model.dim=2000000000", &["would have", "parameters", "model.dim"]),
        ("model.layers=1000000000", &["`model.layers` is 1000000000", "at most"]),
        ("train.batch=2000000000", &["this machine has", "lower train.batch"]),
        ("model.vocab=3", &["less than the tokenizer's", "model.vocab"]),
    ] {
        training_refused(&folder, &["--set", set], parts);
    }
    let line = refuse(&folder, &["train", "no.toml"]);
    assert!(line.contains("no.toml") && line.contains("check the path"), "{line}");
    fs::write(folder.join("broken.toml"), "[train]\nsteps = \n").unwrap();
    let line = refuse(&folder, &["train", "broken.toml"]);
    assert!(line.contains("`broken.toml` line 2 is not TOML"), "{line}");
}

#[test]
fn wrong_arguments() {
    let folder = scratch("wrong_arguments");
    for (arguments, part) in [
        (&["trian"][..], "unrecognized subcommand 'trian'"),
        (&["train", "--ouf", "x"], "did you mean --out?"),
        (&["train", "--replay", "x"], "--init"),
        (&["generate"], "<MODEL>"),
        (&["generate", "m", "--tokens", "1,x"], "'x'"),
        (&["generate", "no-model"], "there is no model `no-model`"),
        (&["eval", "no-model"], "there is no model `no-model`"),
        (&["run", "no-model", "--input", "a", "--output", "b"], "there is no model"),
        (&["inspect", "no-model"], "there is no model `no-model`"),
    ] {
        let line = refuse(&folder, arguments);
        assert!(line.contains(part), "{arguments:?} says {line}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written() {
    let folder = scratch("unwritable");
    small_run(&folder);
    fs::write(folder.join("a-file"), "").unwrap();
    for out in ["/proc/no/such", "a-file/run"] {
        let line = refuse(&folder, &["train", "small.toml", "--out", out]);
        assert!(line.contains("cannot write to") && line.contains("--out"), "{line}");
    }
}

/// Trains where the folder `small` holds 1 MiB only: a file system of its own, which nobody else
/// sees. `beside` is a shell command that runs meanwhile. Gives the output and the paths that lie
/// there in the end; `None`, and says so, where the system lets nobody make one.
#[cfg(target_os = "linux")]
fn train_in_little_space(folder: &Path, beside: &str, set: &[&str]) -> Option<(Output, String)> {
    let small = folder.join("small");
    fs::create_dir_all(&small).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=1m tmpfs small || exit 77; {beside} \"$@\"; code=$?; \
         find small > listing; exit $code"
    );
    let train = ferrata(folder, &["train", "small.toml", "--out", "small/run"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(train.get_program()).args(train.get_args()).args(set);
    command.current_dir(folder).stdin(Stdio::null()).env("FERRATA_CACHE", folder.join("cache"));
    command.env_remove("RUST_BACKTRACE");
    let output = command.output().ok();
    let listing = fs::read_to_string(folder.join("listing"));
    if let (Some(output), Ok(listing)) = (output, listing) {
        return Some((output, listing));
    }
    // Not by `eprintln!`, which the harness hides.
    let note = "a_full_disk: NOT RUN, no file system can be mounted in a user namespace\n";
    std::io::stderr().write_all(note.as_bytes()).unwrap();
    None
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    let folder = scratch("full_disk");
    small_run(&folder);
    // No room for the first checkpoint.
    let wide = ["--set", "model.dim=256"];
    let Some((output, listing)) = train_in_little_space(&folder, "", &wide) else { return };
    let line = refused(&output, "a full disk");
    assert!(line.contains("no space left"), "{line}");
    assert_eq!(listing.trim(), "small", "something is left");
    // Somebody else fills it after the first checkpoint: that one stays whole, and nothing
    // half-written lies beside it.
    let fill = "(until ls small/run/*/manifest.json; do sleep 0.01; done; \
                while kill -0 $$; do cat /dev/zero >> small/filler; sleep 0.01; done) \
                > /dev/null 2>&1 &";
    let many = ["--set", "train.checkpoint_every=1", "--set", "train.steps=2000"];
    let (output, listing) = train_in_little_space(&folder, fill, &many).unwrap();
    let line = refused(&output, "a disk that fills up");
    assert!(line.contains("no space left"), "{line}");
    let whole = listing.lines().filter(|path| path.ends_with("/manifest.json")).count();
    assert!(whole > 0 && !listing.contains(".tmp-"), "{listing}");
}

#[test]
fn a_loss_that_is_not_finite() {
    let folder = scratch("not_finite");
    small_run(&folder);
    let explode = [
        "--set",
        "optimizer.lr=1e38",
        "--set",
        "schedule.kind=constant",
        "--set",
        "schedule.warmup=0",
    ];
    let plain = [&["train", "small.toml", "--out", "plain"], &explode[..]].concat();
    let line = refuse(&folder, &plain);
    assert!(line.contains(" at step ") && line.contains("lower optimizer.lr"), "{line}");
    let watch = [&["train", "small.toml", "--out", "watched"], &explode[..]].concat();
    let line = refuse(&folder, &[&watch[..], &["--set", "train.watch_nan=true"]].concat());
    assert!(line.contains(": ") && line.contains(" at step "), "{line}");
}

#[test]
fn damaged_checkpoints_and_other_data() {
    let folder = scratch("damaged");
    small_run(&folder);
    let train = ["train", "small.toml", "--out", "run"];
    succeed(&folder, &[&train[..], &["--set", "train.steps=10"]].concat());
    let line = refuse(&folder, &train);
    assert!(line.contains("already holds a run"), "{line}");

    fs::write(folder.join("other.txt"), "quite another text. ".repeat(200)).unwrap();
    let resume = [&train[..], &["--resume"]].concat();
    let line = refuse(&folder, &[&resume[..], &["--text", "other.txt"]].concat());
    assert!(line.contains("is not the one"), "{line}");
    let line = refuse(&folder, &[&resume[..], &["--set", "optimizer.lr=0.5"]].concat());
    assert!(line.contains("`optimizer.lr` has another value"), "{line}");

    // A model with fewer ids than the tokenizer has.
    let line = refuse(
        &folder,
        &["train", "small.toml", "--init", "run", "--set", "data.tokenizer=byte", "--out", "new"],
    );
    assert!(line.contains("the tokenizer has 256 tokens and the model"), "{line}");
    assert!(!folder.join("new").exists());

    let file = folder.join("run/step-00000010/model.safetensors");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (content, part) in [(&flipped[..], "has changed"), (&whole[..whole.len() / 2], "bytes")] {
        fs::write(&file, content).unwrap();
        let line = refuse(&folder, &resume);
        assert!(line.contains("is damaged") && line.contains(part), "{line}");
        let line = refuse(&folder, &["generate", "run/step-00000010"]);
        assert!(line.contains("is damaged"), "{line}");
    }
}
