//! `plan` and `simulate` from outside.

use std::fs;
use std::path::Path;

use crate::common::{alike, refuse, refused, run, scratch, small_run, succeed};

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

/// What the model of [`small_run`] has besides, so that there is something to lay out.
const SETTINGS: [&str; 10] = [
    "--set",
    "model.layers=4",
    "--set",
    "model.dim=64",
    "--set",
    "model.vocab=64",
    "--set",
    "model.dropout=0",
    "--set",
    "train.log_every=1",
];

/// The configuration that a run has written, without spaces.
fn configuration(run: &Path) -> String {
    fs::read_to_string(run.join("config.toml")).unwrap().split_whitespace().collect()
}

/// This machine as a cluster of `devices` ranks, measured into `folder`.
fn measured(folder: &Path, devices: &str) -> String {
    let name = format!("local-{devices}.toml");
    let plan = ["plan", "small.toml", "--cluster", "local", "--devices", devices];
    let save = ["--save-cluster", name.as_str()];
    let text = succeed(folder, &[&plan[..], &SETTINGS, &save].concat());
    assert!(text.contains(&format!("cluster: {devices} of local")), "{text}");
    name
}

#[test]
fn this_machine_is_a_cluster_that_can_be_written_and_read() {
    let folder = scratch("plan_local");
    small_run(&folder);
    let cluster = measured(&folder, "2");
    let text = fs::read_to_string(folder.join(&cluster)).unwrap();
    for part in ["name = \"local\"", "devices = 2", "name = \"sockets\"", "reduction = ", "f32 = "]
    {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    let plan = ["plan", "small.toml", "--cluster", &cluster, "--out", "plan.toml", "--json"];
    let json = succeed(&folder, &[&plan[..], &SETTINGS].concat());
    let seconds = number(&json, "step_seconds");
    assert!((1e-6..10.0).contains(&seconds), "{seconds} s");
    assert_eq!(number(&json, "devices"), 2.0);
    // The dtype is that of the recipe.
    assert!(fs::read_to_string(folder.join("plan.toml")).unwrap().contains("dtype = \"f32\""));
}

#[test]
fn plans_are_executed_as_they_are() {
    let folder = scratch("planned");
    small_run(&folder);
    let train = [&["train", "small.toml"][..], &SETTINGS].concat();
    succeed(&folder, &[&train[..], &["--out", "alone"]].concat());
    for (number, (devices, layout, own)) in [
        ("2", &["--mesh", "tensor=2", "--sequence-parallel", "true"][..], "sequence=true"),
        (
            "2",
            &[
                "--mesh",
                "pipeline=2",
                "--microbatch",
                "2",
                "--interleave",
                "2",
                "--recompute",
                "full",
            ],
            "layers=[1,1,1,1,]",
        ),
        (
            "4",
            &["--mesh", "pipeline=2,data=2", "--microbatch", "1", "--zero", "1"],
            "mesh=\"pipeline=2,data=2\"zero=1stored=[0,1,2,3,]",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let cluster = measured(&folder, devices);
        let (plan, out) = (format!("plan-{number}.toml"), format!("planned-{number}"));
        let given = ["plan", "small.toml", "--cluster", &cluster, "--out", &plan];
        succeed(&folder, &[&given[..], &SETTINGS, layout].concat());
        if layout.contains(&"--zero") {
            // As if the weights of all layers did not fit.
            let text = fs::read_to_string(folder.join(&plan)).unwrap();
            fs::write(folder.join(&plan), text.replace("sharded = false", "sharded = true"))
                .unwrap();
        }
        // As many ranks as the plan has.
        let launch = [&["launch", "--"][..], &train, &["--plan", &plan, "--out", &out]].concat();
        let output = run(&folder, &launch);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config = configuration(&folder.join(&out));
        assert!(config.contains(own), "{own:?} is missing in {config}");
        alike(&folder.join("alone"), &folder.join(&out));
    }
    let config = configuration(&folder.join("planned-1"));
    for part in ["recompute=[0,1,2,3,]", "batch=2accumulate=2"] {
        assert!(config.contains(part), "{part:?} is missing in {config}");
    }
}

#[test]
fn plans_that_do_not_fit_are_refused_before_anything_starts() {
    let folder = scratch("planned_refused");
    small_run(&folder);
    let cluster = measured(&folder, "2");
    let plan = ["plan", "small.toml", "--cluster", &cluster, "--mesh", "data=2", "--out"];
    succeed(&folder, &[&plan[..], &["plan.toml"], &SETTINGS].concat());
    let train = [&["train", "small.toml", "--plan", "plan.toml"][..], &SETTINGS].concat();
    for (more, part) in [
        (&[][..], "this process is alone; start it with `ferrata launch --ranks 2"),
        (&["--set", "model.layers=2"], "the plan is for another model"),
        (&["--set", "train.batch=8"], "the plan is for steps of 4 sequences"),
        (&["--set", "parallel.zero=2"], "both say what `[parallel]` is for"),
        (&["--set", "train.memory=1GB"], "both say what `train.memory` is for"),
        (&["--mesh", "data=2"], "'--mesh"),
    ] {
        let line = refuse(&folder, &[&train[..], more].concat());
        assert!(line.contains(part), "{line}");
    }
    for (ranks, part) in
        [(&["--ranks", "3"][..], "is for 2 ranks, not 3"), (&["--min-ranks", "1"], "not 1")]
    {
        let launch = [&["launch"][..], ranks, &["--"], &train].concat();
        let line = refuse(&folder, &launch);
        assert!(line.contains(part), "{line}");
    }
    let line = refuse(&folder, &["launch", "--", "train", "small.toml"]);
    assert!(line.contains("pass --ranks N"), "{line}");
    // What no rank can do.
    let text = fs::read_to_string(folder.join("plan.toml")).unwrap();
    for (from, to, part) in [
        ("expert = 1", "expert = 2", "experts are not executed yet"),
        ("dtype = \"f32\"", "dtype = \"f16\"", "multiplies in f16"),
        ("claims = [\"attention\",", "claims = [", "value by value"),
        ("name = \"cpu ", "name = \"another cpu ", "not cpu"),
        ("chunks = [4]", "chunks = [3]", "the plan file is wrong"),
    ] {
        assert!(text.contains(from), "{from:?} is missing in {text}");
        fs::write(folder.join("plan.toml"), text.replace(from, to)).unwrap();
        let line = refused(&run(&folder, &train), part);
        assert!(line.contains(part), "{line}");
    }
}
