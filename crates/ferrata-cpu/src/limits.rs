//! The limits of this machine, as the device tells them.

use crate::isa::Isa;
use crate::peak::{self, bf16_dot, f32_fma, f64_fma, int8_dot};
use ferrata_compiler::watch::{Bandwidth, Level, Limits};
use ferrata_ir::DType;
use std::path::Path;

/// Bytes of a thread that are too many for caches, where nothing is known of them.
const MEMORY: usize = 64 << 20;

/// Peaks of arithmetic, and the speed of memory.
pub(crate) fn limits(threads: usize, isa: Isa) -> Limits {
    let rates = [
        (DType::F32, Some(f32_fma(threads, isa))),
        (DType::F64, Some(f64_fma(threads, isa))),
        (DType::BF16, bf16_dot(threads, isa)),
        (DType::I8, int8_dot(threads, isa)),
    ];
    Limits {
        operations: rates.into_iter().filter_map(|(dtype, rate)| Some((dtype, rate?))).collect(),
        memory: speed(threads, isa, beyond_caches(&caches())),
    }
}

/// The speed of each cache, with data that fill half of a thread's part, and of memory.
pub(crate) fn levels(threads: usize, isa: Isa) -> Vec<Level> {
    let caches = caches();
    let memory = ("memory".to_owned(), beyond_caches(&caches));
    let parts = caches.iter().map(|cache| {
        (format!("L{}", cache.level), cache.bytes / threads.min(cache.processors) / 2)
    });
    let level = |(name, bytes)| Level { name, bytes, bandwidth: speed(threads, isa, bytes) };
    parts.chain([memory]).map(level).collect()
}

fn speed(threads: usize, isa: Isa, bytes: usize) -> Bandwidth {
    let peak::Bandwidth { read, copy, write } = peak::bandwidth(threads, isa, bytes);
    Bandwidth { read, copy, write }
}

fn beyond_caches(caches: &[Cache]) -> usize {
    caches.iter().map(|cache| 4 * cache.bytes).max().unwrap_or_default().max(MEMORY)
}

/// A cache for data.
#[derive(Debug)]
struct Cache {
    level: usize,
    bytes: usize,
    /// How many processors share it.
    processors: usize,
}

/// The caches of the first processor, smallest first, where the system tells them.
fn caches() -> Vec<Cache> {
    let all = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let entries = std::fs::read_dir(all).into_iter().flatten().flatten();
    let mut caches: Vec<Cache> = entries.filter_map(|entry| cache(&entry.path())).collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

/// A cache as Linux describes it: files `level`, `type`, `size` (`32K`) and `shared_cpu_list`
/// (`0-3,8`).
fn cache(folder: &Path) -> Option<Cache> {
    let read = |name| std::fs::read_to_string(folder.join(name)).ok();
    if read("type")?.trim() == "Instruction" {
        return None;
    }
    let kibibytes: usize = read("size")?.trim().strip_suffix('K')?.parse().ok()?;
    let list = read("shared_cpu_list")?;
    let processors = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
    });
    Some(Cache {
        level: read("level")?.trim().parse().ok()?,
        bytes: kibibytes << 10,
        processors: processors.sum::<Option<usize>>()?.max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_speed_and_memory_is_the_last() {
        let levels = levels(2, Isa::detect());
        assert_eq!(levels.len(), caches().len() + 1);
        assert_eq!(levels.last().map(|level| &*level.name), Some("memory"));
        assert!(levels.windows(2).all(|pair| pair[0].bytes < pair[1].bytes), "{levels:?}");
        let slowest = |speed: Bandwidth| speed.read.min(speed.copy).min(speed.write);
        assert!(levels.iter().all(|level| slowest(level.bandwidth) > 1e7), "{levels:?}");
    }

    #[test]
    fn limits_are_those_of_the_path() {
        let portable = limits(1, Isa::Portable);
        assert!(portable.operations(DType::F32).is_some());
        // Half precision goes at the rate of f32 where there is no instruction for it.
        assert_eq!(portable.operations(DType::BF16), portable.operations(DType::F32));
        assert!(portable.memory.read > 1e7);
    }
}
