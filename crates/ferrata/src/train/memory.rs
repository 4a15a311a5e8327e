//! Memory of this process and this machine.

use super::{Error, Result, in_bytes};

/// The bytes of memory that this process occupies, where the system says.
pub fn process_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The bytes of memory that this process may have at most, where the system says.
pub(crate) fn available_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    Some((kibibytes << 10).min(limit))
}

/// Checks that training can have so many bytes of memory.
///
/// # Errors
/// If this machine has less.
pub(super) fn check_memory(needed: u128) -> Result<()> {
    match available_memory() {
        Some(available) if u128::from(available) < needed => Err(Error::new(
            format!(
                "training needs at least {} of memory and this machine has {}",
                in_bytes(u64::try_from(needed).unwrap_or(u64::MAX)),
                in_bytes(available)
            ),
            "lower train.batch or make the model smaller",
        )),
        _ => Ok(()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_is_enough_for_this_process() {
        check_memory(process_memory().unwrap().into()).unwrap();
        let error = check_memory(1 << 70).unwrap_err().to_string();
        assert!(error.contains("this machine has"), "{error}");
    }

    #[test]
    fn memory_is_that_of_a_process() {
        let bytes = process_memory().unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
    }
}
