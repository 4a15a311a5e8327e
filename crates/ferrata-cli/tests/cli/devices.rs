//! What the program takes of the machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use ferrata_ascend_fake::Fake;

use crate::common::{ferrata, refused, scratch, succeed};

/// The program where the imitation of the NPU's libraries is installed, without a compiler.
fn with_npu(folder: &Path, fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = ferrata(folder, arguments);
    command.env("FERRATA_ASCEND_LIBRARIES", fake.folder());
    command.env("FERRATA_ASCEND_COMPILER", "/nowhere").env_remove("ASCEND_HOME_PATH");
    command.env("FERRATA_FAKE_FINDINGS", folder.join("findings"));
    command
}

/// What the imitation found that a chip would let pass.
fn findings(folder: &Path) -> String {
    fs::read_to_string(folder.join("findings")).unwrap()
}

#[test]
fn an_npu_is_listed() {
    let folder = scratch("npu-listed");
    let fake = Fake::new().unwrap();
    let output = with_npu(&folder, &fake, &["devices"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\nascend: ascend Ascend910B3, CANN fake"), "{text}");
    assert!(text.contains("1.0 GiB free"), "{text}");
    assert!(text.contains("aclnnMatmul"), "{text}");
    assert_eq!(findings(&folder), "");
    // One that cannot be used is no secret.
    let fake = Fake::without(&["aclrtMalloc"]).unwrap();
    let output = with_npu(&folder, &fake, &["devices"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nascend: cannot be used: "), "{text}");
    assert!(text.contains("lacks aclrtMalloc; install CANN"), "{text}");
}

#[test]
fn an_npu_is_tried_out() {
    let folder = scratch("npu-tried");
    let fake = Fake::new().unwrap();
    let arguments = ["devices", "--check", "ascend", "--out", "report.txt"];
    let output = with_npu(&folder, &fake, &arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let report = fs::read_to_string(folder.join("report.txt")).unwrap();
    assert_eq!(text, format!("{report}the report is in report.txt\n"));
    assert!(report.contains(" functions found, 0 missing\n"), "{report}");
    assert!(report.ends_with(" right, 0 wrong\n"), "{report}");
    assert_eq!(findings(&folder), "");
    // Without an NPU there is a report, too.
    let nothing = Fake::without(&["libascendcl"]).unwrap();
    let output = with_npu(&folder, &nothing, &arguments).output().unwrap();
    let line = refused(&output, "a check without a runtime");
    assert!(line.contains("1 of 1 checks went wrong; attach report.txt"), "{line}");
    assert!(fs::read_to_string(folder.join("report.txt")).unwrap().contains("set_env.sh"));
}

#[test]
fn a_model_trains_on_an_npu() {
    let folder = scratch("npu-trains");
    let config = crate::common::small_run(&folder);
    let fake = Fake::new().unwrap();
    let config = config.to_str().unwrap();
    let steps = ["--set", "train.steps=2", "--set", "schedule.warmup=1"];
    let train = ["train", config, "--device", "ascend", "--out", "run"];
    let train = [&train[..], &steps].concat();
    let output = with_npu(&folder, &fake, &train).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(folder.join("run/final").is_dir());
}

/// `taskset` limits a process to some of the processors.
#[cfg(target_os = "linux")]
#[test]
fn threads_are_as_many_as_the_process_may_use() {
    let folder = scratch("devices");
    assert!(succeed(&folder, &["devices"]).contains("threads: "));
    let program = env!("CARGO_BIN_EXE_ferrata");
    let limited = Command::new("taskset").args(["-c", "0", program, "devices"]).output();
    match limited {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("threads: 1\n"), "{text}");
        }
        Err(error) => println!("not run: taskset: {error}"),
    }
}
