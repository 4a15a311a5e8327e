//! Sizes of the processor's caches, for blocking: they may decide which work is done together, never
//! the order in which a sum is added up.

use std::sync::OnceLock;

/// Bytes of the caches that one core sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// First level, data.
    pub l1: usize,
    /// Second level.
    pub l2: usize,
    /// Last level, shared by all cores.
    pub l3: usize,
}

/// What most processors have at least; for systems that do not tell.
const USUAL: Caches = Caches { l1: 32 << 10, l2: 512 << 10, l3: 8 << 20 };

impl Caches {
    /// This machine's caches, asked once.
    pub fn get() -> Caches {
        static CACHES: OnceLock<Caches> = OnceLock::new();
        *CACHES.get_or_init(|| Caches::read().unwrap_or(USUAL))
    }

    /// As Linux tells.
    fn read() -> Option<Caches> {
        let mut levels = [0; 4];
        for index in 0..8 {
            let read = |name: &str| {
                let file = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
                std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
            };
            let Some(kind) = read("type") else { break };
            if kind != "Instruction" {
                let level: usize = read("level")?.parse().ok()?;
                *levels.get_mut(level)? = bytes(&read("size")?)?;
            }
        }
        let [_, l1, l2, l3] = levels;
        // Without a third level the second is the last.
        (l1 > 0 && l2 > 0).then_some(Caches { l1, l2, l3: l3.max(l2) })
    }
}

/// `32K` or `1M` as a number.
fn bytes(size: &str) -> Option<usize> {
    let (number, shift) = match size.as_bytes().last()? {
        b'K' => (&size[..size.len() - 1], 10),
        b'M' => (&size[..size.len() - 1], 20),
        _ => (size, 0),
    };
    Some(number.parse::<usize>().ok()? << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(bytes("32K"), Some(32 << 10));
        assert_eq!(bytes("1M"), Some(1 << 20));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("K"), None);
        let caches = Caches::get();
        assert!(caches.l1 <= caches.l2 && caches.l2 <= caches.l3, "{caches:?}");
    }
}
