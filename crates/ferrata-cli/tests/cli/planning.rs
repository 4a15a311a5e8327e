//! `plan` and `simulate` from outside.

use std::fs;
use std::path::Path;

use crate::common::{refuse, scratch, succeed};

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clusters/dgx-a100.toml");

/// The recipe of the 175B model of Korthikanti et al. (arXiv 2205.05198), in `folder`.
fn recipe(folder: &Path, vocabulary: usize) {
    let text = format!(
        "[model]\nkind = \"gpt2\"\nlayers = 96\ndim = 12288\nheads = 96\ncontext = 2048\n\
         vocab = {vocabulary}\ndropout = 0.1\n[train]\nbatch = 64\n"
    );
    fs::write(folder.join("gpt.toml"), text).unwrap();
}

fn number(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).unwrap();
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn a_published_run_is_predicted_as_it_was_run() {
    let folder = scratch("plan");
    recipe(&folder, 51200);
    for (recompute, seconds) in [("full", 18.13), ("selective", 13.75)] {
        let json = succeed(
            &folder,
            &[
                "plan",
                "gpt.toml",
                "--cluster",
                CLUSTER,
                "--mesh",
                "tensor=8,pipeline=8,data=1",
                "--microbatch",
                "1",
                "--interleave",
                "3",
                "--recompute",
                recompute,
                "--json",
            ],
        );
        let error = number(&json, "step_seconds") / seconds - 1.0;
        assert!(error.abs() < 0.05, "{recompute}: {:+.1} %", 100.0 * error);
        assert_eq!(number(&json, "devices"), 64.0);
        assert!(json.contains("\"fits\":true"), "{json}");
    }
}

#[test]
fn a_plan_is_found_written_and_simulated() {
    let folder = scratch("simulate");
    recipe(&folder, 51200);
    let plan = ["plan", "gpt.toml", "--cluster", CLUSTER, "--devices", "64", "--out", "plan.toml"];
    let text = succeed(&folder, &plan);
    for part in ["layout: tensor=", "TFLOP/s per device", "memory: ", "not tensor="] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    let text = succeed(&folder, &["simulate", "plan.toml", "--trace", "t.json", "--days", "10"]);
    for part in ["goodput", "a checkpoint every", "spare nodes"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(fs::read_to_string(folder.join("t.json")).unwrap().contains("\"traceEvents\""));
    recipe(&folder, 32000);
    let line = refuse(&folder, &["simulate", "plan.toml"]);
    assert!(line.contains("another model"), "{line}");
}

#[test]
fn meshes_that_do_not_fit_are_refused() {
    let folder = scratch("plan_refused");
    recipe(&folder, 51200);
    for (mesh, part) in [
        ("tensor=7", "tensor=7"),
        ("tensor=8,pipeline=8,data=3", "data=3"),
        ("tensors=8", "`tensors=8` is no axis"),
    ] {
        let line = refuse(&folder, &["plan", "gpt.toml", "--cluster", CLUSTER, "--mesh", mesh]);
        assert!(line.contains(part), "{line}");
    }
    let line = refuse(&folder, &["plan", "gpt.toml", "--cluster", "none.toml"]);
    assert!(line.contains("none.toml"), "{line}");
    fs::write(folder.join("cluster.toml"), "name = 3").unwrap();
    let line = refuse(&folder, &["plan", "gpt.toml", "--cluster", "cluster.toml"]);
    assert!(line.contains("the cluster file is wrong"), "{line}");
}
