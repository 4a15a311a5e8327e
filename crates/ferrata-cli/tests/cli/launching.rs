//! Several ranks, as a user starts them.

use crate::common::{run, scratch, succeed};

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
