//! Ctrl-C: the first one asks for an end, the second one aborts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrata::train::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code of a process that a signal ended at once.
const ABORTED: i32 = 130;

/// Sets `stop` at the first interrupt or request to terminate; exits at the second.
pub fn on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let register = || -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset and passes the first one.
            flag::register_conditional_shutdown(signal, ABORTED, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        Ok(())
    };
    register().map_err(|error| {
        let cause = format!("Ctrl-C cannot be watched for: {error}");
        Error::new(cause, "run it where signals are allowed")
    })
}

/// Sets both at the signal by which Slurm says that the time of a job is nearly over.
#[cfg(unix)]
pub fn on_time_limit(over: &Arc<AtomicBool>, stop: &Arc<AtomicBool>) -> Result<()> {
    let register =
        |set: &Arc<AtomicBool>| flag::register(signal_hook::consts::SIGUSR1, set.clone());
    register(over).and_then(|_| register(stop)).map(drop).map_err(|error| {
        let cause = format!("SIGUSR1 cannot be watched for: {error}");
        Error::new(cause, "leave out --requeue")
    })
}
