//! `ferrata devices`

use ferrata::device::Report;
use ferrata::train::Result;

use crate::device;
use crate::progress::say;

/// Prints what this machine has and which paths kernels take on it.
pub fn run() -> Result<()> {
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
        say!("  dtypes: {}", listed(true));
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
