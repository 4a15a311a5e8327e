//! `ferrata devices`

use std::fs;
use std::path::Path;

use ferrata::device::Report;
use ferrata::train::{Error, Result};

use crate::args::{Checked, Devices};
use crate::device;
use crate::progress::say;

/// Prints what this machine has, or tries one of its devices out.
pub fn run(args: &Devices) -> Result<()> {
    match args.check {
        Some(Checked::Ascend) => check_npu(&args.out),
        None => list(),
    }
}

/// Tries the NPU out and writes the report.
fn check_npu(out: &Path) -> Result<()> {
    let report = device::check_npu();
    say!("{}", report.text.trim_end());
    let file = out.display();
    fs::write(out, &report.text).map_err(|e| {
        Error::new(format!("cannot write {file}: {e}"), "name another file with `--out`")
    })?;
    say!("the report is in {file}");
    match report.wrong {
        0 => Ok(()),
        wrong => Err(Error::new(
            format!("{wrong} of {} checks went wrong", wrong + report.right),
            format!("attach {file} to an issue"),
        )),
    }
}

/// Prints what this machine has and which paths kernels take on it.
fn list() -> Result<()> {
    for device in device::all()? {
        let Report { name, fingerprint, facts, dtypes, paths } = device;
        say!("{name}: {fingerprint}");
        for (what, value) in facts {
            say!("  {what}: {value}");
        }
        let listed = |supported: bool| -> String {
            let names = dtypes.iter().filter(|(_, found)| *found == supported);
            names.map(|(dtype, _)| dtype.name()).collect::<Vec<_>>().join(" ")
        };
        if !dtypes.is_empty() {
            say!("  dtypes: {}", listed(true));
        }
        if !listed(false).is_empty() {
            say!("  not supported (a compile error): {}", listed(false));
        }
        if !paths.is_empty() {
            say!("  kernels:");
        }
        for (kernels, path) in paths {
            say!("    {kernels:<36} {path}");
        }
    }
    Ok(())
}
