//! What the program takes of the machine.

use std::process::Command;

use crate::common::{scratch, succeed};

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
