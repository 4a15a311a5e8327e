//! Ranks that are processes: launched, disturbed, and on several hosts.
#![cfg(unix)]

mod common;
mod faults;
#[cfg(target_os = "linux")]
mod hosts;
