//! Several ranks, as a user starts them.

use crate::common::{alike, refuse, run, scratch, small_run, succeed};

#[test]
fn job_scripts_have_the_shape_that_is_asked_for() {
    let folder = scratch("job_scripts");
    let shape = ["launch", "--ranks", "16", "--per-node", "8", "--time", "1:00:00", "--write"];
    let command = ["--", "train", "gpt.toml", "--out", "runs/gpt"];
    let script = succeed(&folder, &[&shape[..], &["slurm"], &command].concat());
    assert!(script.starts_with("#!/bin/bash\n"), "{script}");
    assert!(script.contains("#SBATCH --nodes=2\n#SBATCH --ntasks=16\n"), "{script}");
    assert!(script.ends_with("-- train gpt.toml --out runs/gpt --resume\n"), "{script}");
    let manifest = succeed(&folder, &[&shape[..], &["kubernetes"], &command].concat());
    assert!(manifest.starts_with("apiVersion: jobset.x-k8s.io/"), "{manifest}");
}

#[test]
fn a_program_that_does_not_join_is_told_how() {
    let folder = scratch("not_joining");
    let command = ["launch", "--ranks", "2", "--program", "/bin/sh", "--", "-c", "echo to the top"];
    let output = run(&folder, &command);
    let (out, errors) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let (out, errors) = (out.unwrap(), errors.unwrap());
    assert!(out.contains("] to the top\n"), "{out}");
    assert!(errors.contains("ended without joining the others; the program has to"), "{errors}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn ranks_learn_what_one_process_learns_and_continue_on_another_mesh() {
    let folder = scratch("meshes");
    small_run(&folder);
    let alone = ["train", "small.toml", "--set", "train.log_every=1"];
    succeed(&folder, &[&alone[..], &["--out", "one"]].concat());
    let launch = |ranks: &str, more: &[&str]| {
        let start = ["launch", "--ranks", ranks, "--"];
        let output = run(&folder, &[&start[..], &alone, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // 4 sequences over 3 ranks.
    let zero = ["--set", "parallel.zero=2", "--out", "parts", "--set", "train.steps=10"];
    let said = launch("3", &[&zero[..], &["--set", "schedule.warmup=2"]].concat());
    assert!(said.contains("[rank 0 cpu") && said.contains("ranks: data=3"), "{said}");
    assert!(!said.contains("[rank 1"), "only the first rank tells: {said}");
    let whole = ["--mesh", "tensor=2", "--set", "parallel.sequence=true", "--out", "two"];
    launch("2", &whole);
    alike(&folder.join("one"), &folder.join("two"));
    let mesh = ["--mesh", "data=2,context=2", "--out", "three", "--set", "train.steps=20"];
    launch("4", &mesh);
    let again = ["train", "--resume", "--out", "three", "--set", "train.steps=30"];
    let said = succeed(&folder, &again);
    assert!(said.contains("the checkpoint was written on"), "{said}");
    let plan = launch("2", &["--mesh", "tensor=2", "--dry-run", "--out", "four"]);
    assert!(plan.contains("each rank sends") && plan.contains("partial sum over tensor"), "{plan}");
}

#[test]
fn stages_learn_what_one_process_learns_and_continue_alone() {
    let folder = scratch("stages");
    small_run(&folder);
    let alone =
        ["train", "small.toml", "--set", "train.log_every=1", "--set", "train.accumulate=4"];
    let alone = [&alone[..], &["--set", "train.batch=2", "--set", "model.layers=3"]].concat();
    succeed(&folder, &[&alone[..], &["--out", "one"]].concat());
    let launch = |ranks: &str, more: &[&str]| {
        let start = ["launch", "--ranks", ranks, "--"];
        let output = run(&folder, &[&start[..], &alone, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let checked = ["--set", "parallel.verify_every=5"];
    let two = ["--mesh", "pipeline=2", "--out", "two", "--set", "parallel.schedule=gpipe"];
    launch("2", &[&two[..], &checked].concat());
    alike(&folder.join("one"), &folder.join("two"));
    // Each rank writes its part of the optimiser's state; what continues needs none of them.
    let four = ["--mesh", "pipeline=2,data=2", "--set", "parallel.zero=1", "--out", "four"];
    launch("4", &[&four[..], &checked, &["--set", "train.steps=20"]].concat());
    let parts = std::fs::read_dir(folder.join("four/step-00000020")).unwrap().filter(|file| {
        let name = file.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("training-0000")
    });
    assert_eq!(parts.count(), 4);
    succeed(&folder, &["train", "--resume", "--out", "four", "--set", "train.steps=30"]);
    let refused = |more: &[&str]| {
        let start = ["launch", "--ranks", "2", "--"];
        let output = run(&folder, &[&start[..], &alone, &["--mesh", "pipeline=2"], more].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused(&["--set", "parallel.interleave=9"]);
    assert!(error.contains("has not enough for 2 stages of 9 chunks"), "{error}");
    let error = refused(&["--set", "parallel.schedule=2f2b"]);
    assert!(error.contains("`2f2b` is no pipeline schedule"), "{error}");
}

#[test]
fn meshes_that_cannot_be_are_refused() {
    let folder = scratch("meshes_refused");
    small_run(&folder);
    let train = |mesh: &str| refuse(&folder, &["train", "small.toml", "--mesh", mesh]);
    assert!(train("data=2").contains("this process is alone; start it with `ferrata launch"));
    assert!(train("data").contains("name axes with their sizes"));
    assert!(train("tensr=2").contains("nothing is cut along the axis `tensr`"));
    let launched = |mesh: &str| {
        let start = ["launch", "--ranks", "2", "--restarts", "0", "--", "train", "small.toml"];
        let output = run(&folder, &[&start[..], &["--mesh", mesh]].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(launched("data=3").contains("takes 3 ranks, not 2"));
    let few = ["launch", "--ranks", "2", "--", "train", "small.toml", "--set", "train.batch=1"];
    let output = run(&folder, &few);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("too few for 2 ranks along `data`"), "{errors}");
}
