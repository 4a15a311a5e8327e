//! Training from outside: what it prints and leaves, threads, interrupts, and what comes after.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::common::{ferrata, losses, refuse, same_run, scratch, small_run, succeed, weights};

#[test]
fn a_run_and_what_comes_after_it() {
    let folder = scratch("a_run");
    small_run(&folder);
    let text = succeed(&folder, &["train", "small.toml", "--out", "run"]);
    assert!(!text.contains(['\r', '\x1b']), "piped output is plain: {text:?}");
    for part in ["parameters", "step 30/30", "validation loss: ", "checkpoint: ", "next:"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert_eq!(losses(&folder.join("run")).len(), 30);
    for name in ["config.toml", "metrics.jsonl", "final/config.json", "final/vocab.json"] {
        assert!(folder.join("run").join(name).is_file(), "{name} is missing");
    }
    let first: f64 = losses(&folder.join("run"))[0].1.parse().unwrap();
    let last: f64 = losses(&folder.join("run"))[29].1.parse().unwrap();
    assert!(last < first - 0.3, "{first} to {last}");

    let report = |name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let evaluated = succeed(&folder, &["eval", "run"]);
    let loss = format!("loss: {} over", report("validation loss:"));
    assert!(evaluated.contains(&loss), "{evaluated}, not {loss}");

    let generate = ["generate", "run", "--prompt", "iron ", "--max-new", "20", "--seed", "3"];
    let sample = succeed(&folder, &generate);
    assert!(sample.starts_with("iron ") && sample.chars().count() == 26, "{sample:?}");
    assert_eq!(sample, succeed(&folder, &generate), "the same seed gives the same text");
    let greedy = ["generate", "run", "--tokens", "5,7,3", "--max-new", "6", "--temperature", "0"];
    let ids = succeed(&folder, &[&greedy[..], &["--print-tokens"]].concat());
    let ids: Vec<u32> = ids.trim().split(',').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), 6);
    for (arguments, part) in [
        (&["generate", "run", "--tokens", "5,999"][..], "token id 999"),
        (&["generate", "run", "--top-p", "1.5"], "top-p is 1.5"),
        (&["generate", "run", "--temperature", "nan"], "temperature"),
        (&["generate", "run", "--prompt", "\u{3b1}"], "\u{3b1}"),
        (&["eval", "run", "--context", "99"], "between 1 and 16"),
        (&["inspect", "run", "--pass", "nothing"], "passes are"),
        (&["run", "run", "--input", "no.safetensors", "--output", "out"], "no.safetensors"),
    ] {
        let line = refuse(&folder, arguments);
        assert!(line.contains(part), "{arguments:?} says {line}");
    }

    let all = ["--parameters", "--kernels", "--schedule", "--pass", "program"];
    let inspected = succeed(&folder, &[&["inspect", "run", "--training"], &all[..]].concat());
    for part in ["FLOP per token", "at the peak", "transformer.wte.weight", "kernels:", "func @"] {
        assert!(inspected.contains(part), "{part:?} is missing in {inspected}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = scratch("dry_run");
    small_run(&folder);
    let text = succeed(&folder, &["train", "small.toml", "--dry-run", "--out", "run"]);
    assert!(text.contains("memory: ") && text.contains("nothing has been written"), "{text}");
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["small.toml", "text.txt"]);
}

#[test]
fn a_budget_of_memory_costs_work_and_no_accuracy() {
    let folder = scratch("memory");
    small_run(&folder);
    let larger =
        ["model.layers=4", "model.dim=64", "train.batch=64", "train.steps=3", "schedule.warmup=1"];
    let larger = larger.iter().flat_map(|set| ["--set", set]);
    let train: Vec<&str> = ["train", "small.toml"].into_iter().chain(larger).collect();
    let line = refuse(&folder, &[&train[..], &["--set", "train.memory=1MB", "--dry-run"]].concat());
    assert!(line.contains("is allowed 1MB"), "{line}");
    let least = line.split("allow ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let tight = format!("train.memory={least}");
    let tight = [&train[..], &["--set", &tight]].concat();
    let text = succeed(&folder, &[&tight[..], &["--dry-run"]].concat());
    assert!(text.contains("computed again in the backward pass: "), "{text}");
    assert!(text.contains(" instead of ") && text.contains(", 4 times"), "{text}");
    succeed(&folder, &[&train[..], &["--out", "plain"]].concat());
    succeed(&folder, &[&tight[..], &["--out", "tight"]].concat());
    let [plain, tight] = ["plain", "tight"].map(|run| losses(&folder.join(run)));
    assert_eq!(plain.len(), 3);
    for ((_, a, _), (_, b, _)) in plain.iter().zip(&tight) {
        let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
        assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = scratch("threads");
    small_run(&folder);
    for threads in ["1", "2"] {
        let set = format!("train.threads={threads}");
        succeed(&folder, &["train", "small.toml", "--set", &set, "--out", threads]);
    }
    let (one, two) = (folder.join("1"), folder.join("2"));
    assert_eq!(losses(&one), losses(&two));
    assert!(weights(&one) == weights(&two), "the final weights differ");
}

#[test]
#[cfg(unix)]
fn an_interrupt_saves_and_the_run_continues_bit_for_bit() {
    let folder = scratch("interrupt");
    small_run(&folder);
    let set = ["--set", "train.steps=400", "--set", "train.eval_every=0"];
    let train = [&["train", "small.toml", "--out"], &["whole"][..], &set].concat();
    succeed(&folder, &train);
    let train = [&["train", "small.toml", "--out"], &["parts"][..], &set].concat();
    let mut child = ferrata(&folder, &train).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("step ")), "it has begun");
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("stopped after step ")), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--out parts --resume")), "{rest:?}");
    // As the program says: without the configuration, which lies in the folder.
    succeed(&folder, &["train", "--out", "parts", "--resume"]);
    same_run(&folder.join("whole"), &folder.join("parts"));
}

#[test]
fn every_command_has_help() {
    let folder = scratch("help");
    for command in ["train", "generate", "eval", "run", "inspect", "devices"] {
        let text = succeed(&folder, &[command, "--help"]);
        assert!(text.contains(&format!("ferrata {command}")), "{text}");
        assert!(command == "devices" || text.contains("Examples:"), "{text}");
    }
    assert!(succeed(&folder, &["--help"]).contains("Exit codes:"));
    let devices = succeed(&folder, &["devices"]);
    assert!(devices.contains("cpu") && devices.contains("dtypes: f64 f32"), "{devices}");
}
