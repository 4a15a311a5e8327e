//! `profile` and `bench` from outside.

use std::fs;

use crate::common::{refuse, scratch, small_run, succeed};

#[test]
fn a_profile_leaves_nothing_but_the_trace() {
    let folder = scratch("profile");
    small_run(&folder);
    let command = ["profile", "small.toml", "--steps", "2"];
    let table = succeed(&folder, &[&command[..], &["--trace", "trace.json"]].concat());
    for part in ["2 steps on cpu", "limits: ", "contract", "transformer.h.*", "of the limit"] {
        assert!(table.contains(part), "{part:?} is missing in {table}");
    }
    let trace = fs::read_to_string(folder.join("trace.json")).unwrap();
    for part in ["\"traceEvents\"", "\"step 1\"", "transformer.h.0", "\"memory\"", "\"flops\""] {
        assert!(trace.contains(part), "{part:?} is missing in the trace");
    }
    let json = succeed(&folder, &[&command[..], &["--json"]].concat());
    for part in ["\"kernels\": [", "\"of_limit\"", "\"outside\"", "\"memory\""] {
        assert!(json.contains(part), "{part:?} is missing in {json}");
    }
    assert!(!folder.join("runs").exists());
}

#[test]
fn a_profile_of_a_run_in_its_course() {
    let folder = scratch("profile_run");
    small_run(&folder);
    let text = succeed(&folder, &["train", "small.toml", "--out", "run", "--profile", "9"]);
    for part in ["9 steps on cpu", "evaluation", "checkpoint", "step 30/30", "profile: run"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    for (name, part) in [("profile.json", "\"kernels\": ["), ("trace.json", "\"traceEvents\"")] {
        let written = fs::read_to_string(folder.join("run").join(name)).unwrap();
        assert!(written.contains(part), "{part} is missing in {name}");
    }
    let line = refuse(&folder, &["train", "small.toml", "--out", "new", "--profile", "29"]);
    assert!(line.contains("set train.steps to 31"), "{line}");
    assert!(!folder.join("new").exists());
}

#[test]
fn what_cannot_be_profiled() {
    let folder = scratch("profile_refused");
    small_run(&folder);
    for (arguments, part) in [
        (&["small.toml", "--steps", "0"][..], "--steps"),
        (&["no.toml"], "no.toml"),
        (&["small.toml", "--set", "model.heads=3"], "model.heads"),
        (&["small.toml", "-n", "1", "--trace", "no/folder/trace.json"], "trace.json"),
    ] {
        let line = refuse(&folder, &[&["profile"], arguments].concat());
        assert!(line.contains(part), "{arguments:?} says {line}");
    }
}

#[test]
fn a_bench_of_chosen_cases() {
    let folder = scratch("bench");
    let command = ["bench", "matmul-f32-64x64x64", "matmul-bf16-64", "--seconds", "0.01"];
    let table = succeed(&folder, &command);
    for part in ["cpu ", "f32 ", "case ", "matmul-f32-64x64x64 ", "matmul-bf16-64x64x64 ", "%"] {
        assert!(table.contains(part), "{part:?} is missing in {table}");
    }
    assert!(!table.contains("L1"), "the levels of memory were not asked for: {table}");
    let json = succeed(&folder, &[&command[..], &["--json"]].concat());
    for part in
        ["\"machine\": {", "\"memory\"", "\"name\": \"matmul-f32-64x64x64\"", "\"of_limit\""]
    {
        assert!(json.contains(part), "{part:?} is missing in {json}");
    }
    assert!(json.contains("\"flops\": 524288.0"), "{json}");
}

#[test]
fn what_cannot_be_benched() {
    let folder = scratch("bench_refused");
    for (arguments, part) in [
        (&["warp-drive"][..], "there is no case `warp-drive`; cases are matmul-f32-2048x2048x2048"),
        (&["--seconds", "0"], "--seconds is 0"),
        (&["--seconds", "nan"], "--seconds is NaN"),
        (&["--threads", "many"], "'many'"),
    ] {
        let line = refuse(&folder, &[&["bench"], arguments].concat());
        assert!(line.contains(part), "{arguments:?} says {line}");
    }
}
