//! What the tests of the program share: folders, a text, a small configuration, running it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An empty folder for one test.
pub fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may not exist.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A configuration that trains in a moment, with its text beside it; gives its path.
pub fn small_run(folder: &Path) -> PathBuf {
    let words = ["iron", "path", "rock", "rope", "climb", "hold", "step", "wall"];
    // A fixed walk through the words.
    let mut state = 1u32;
    let mut text = String::new();
    for _ in 0..1200 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += words[(state >> 24) as usize % words.len()];
        text += if state >> 20 & 15 == 0 { "\n" } else { " " };
    }
    fs::write(folder.join("text.txt"), text).unwrap();
    let config = folder.join("small.toml");
    fs::write(
        &config,
        "[model]\nlayers = 1\nheads = 2\ndim = 16\ncontext = 16\ndropout = 0.1\n\
         [data]\ntext = \"text.txt\"\ntokenizer = \"char\"\n\
         [train]\nsteps = 30\nbatch = 4\neval_every = 10\ncheckpoint_every = 10\n\
         clip_norm = 1.0\n\
         [optimizer]\nlr = 1e-2\nweight_decay = 0.1\n\
         [schedule]\nkind = \"cosine\"\nwarmup = 5\n",
    )
    .unwrap();
    config
}

/// The program, ready to run in `folder` without the user's cache.
pub fn ferrata(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrata"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command.env("FERRATA_CACHE", folder.join("cache")).env_remove("RUST_BACKTRACE");
    command
}

/// Runs the program to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    ferrata(folder, arguments).output().unwrap()
}

/// Runs the program, which must succeed without a word on stderr; gives what it prints.
#[track_caller]
pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{arguments:?} says {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must refuse with exit code 2 and exactly one line on stderr that
/// holds cause and remedy; gives that line.
#[track_caller]
pub fn refuse(folder: &Path, arguments: &[&str]) -> String {
    refused(&run(folder, arguments), &format!("{arguments:?}"))
}

/// The line of a refusal; see [`refuse`].
#[track_caller]
pub fn refused(output: &Output, what: &str) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{what} says {errors}");
    let line = errors.strip_suffix('\n').unwrap_or_default().to_owned();
    assert!(!line.is_empty() && !line.contains('\n'), "{what} says {errors:?}");
    assert!(line.starts_with("error: ") && line.contains("; "), "{line}");
    line
}

/// Images are learned from to step 6 and, resumed with other workers, to step 12: the run must have
/// the same bits as the one in the folder `whole`, which went there without a break.
#[track_caller]
pub fn resumes_as_whole(folder: &Path, train: &[&str]) {
    let parts = [train, &["--out", "parts", "--set", "data.workers=3"]].concat();
    succeed(folder, &[&parts[..], &["--set", "train.steps=6"]].concat());
    succeed(folder, &[&parts[..], &["--resume", "--set", "train.steps=12"]].concat());
    same_run(&folder.join("whole"), &folder.join("parts"));
}

/// Two runs must have the same losses and final weights.
#[track_caller]
pub fn same_run(whole: &Path, parts: &Path) {
    assert_eq!(losses(whole), losses(parts));
    assert!(weights(whole) == weights(parts), "the final weights differ");
}

/// Two runs must have the same losses but for roundings.
#[track_caller]
pub fn alike(one: &Path, other: &Path) {
    let (a, b) = (losses(one), losses(other));
    assert_eq!(a.len(), b.len());
    for ((step, a, _), (_, b, _)) in a.iter().zip(&b) {
        let [a, b] = [a, b].map(|loss| loss.parse::<f64>().unwrap());
        assert!((a - b).abs() < 1e-4 * a, "step {step}: {a} and {b}");
    }
}

/// Step, loss and gradient norm of every step of a run, exactly as written.
pub fn losses(run: &Path) -> Vec<(u64, String, String)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let field = |line: &str, name: &str| -> Option<String> {
        let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
        Some(rest.split([',', '}']).next()?.to_owned())
    };
    let line = |line| {
        let step = field(line, "step")?.parse().ok()?;
        Some((step, field(line, "loss")?, field(line, "grad_norm")?))
    };
    text.lines().filter_map(line).collect()
}

/// The bytes of a trained model.
pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("final/model.safetensors")).unwrap()
}
