//! Random bits and keys.

use super::index::Indices;
use super::moves::start;
use crate::exec::Context;
use crate::isa::{Kernel, Level};
use ferrata_compiler::kernel::View;
use ferrata_ir::primitive::random::fold_key;

/// Cipher blocks that are computed side by side.
pub(in crate::exec) const LANES: usize = 16;
/// Cipher blocks of one task.
const TASK: usize = 4096;

/// Fills words with the bits of a key, from a cipher block on.
struct Fill<'a> {
    key: [u32; 2],
    block: u64,
    out: &'a mut [u32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Level>(self) {
        let mut block = self.block;
        for words in self.out.chunks_mut(4 * LANES) {
            let [a, b, c, d] = cipher(self.key, block);
            let mut all = [0; 4 * LANES];
            for i in 0..LANES {
                all[4 * i..4 * i + 4].copy_from_slice(&[a[i], b[i], c[i], d[i]]);
            }
            words.copy_from_slice(&all[..words.len()]);
            block += LANES as u64;
        }
    }
}

/// Philox 4×32-10 at `LANES` counters that follow each other: the first words, the second, ….
/// Words are kept in 64 bits, as vectors multiply them.
#[inline(always)]
pub(in crate::exec) fn cipher(mut key: [u32; 2], block: u64) -> [[u32; LANES]; 4] {
    const LOW: u64 = 0xffff_ffff;
    let counter: [u64; LANES] = std::array::from_fn(|i| block + i as u64);
    let (mut a, mut b) = (counter.map(|c| c & LOW), counter.map(|c| c >> 32));
    let (mut c, mut d) = ([0u64; LANES], [0u64; LANES]);
    for _ in 0..10 {
        let [first, second] = key.map(u64::from);
        for i in 0..LANES {
            let (left, right) = (a[i] * 0xD251_1F53, c[i] * 0xCD9E_8D57);
            a[i] = (right >> 32) ^ b[i] ^ first;
            c[i] = (left >> 32) ^ d[i] ^ second;
            (b[i], d[i]) = (right & LOW, left & LOW);
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    [a, b, c, d].map(|words| words.map(|word| word as u32))
}

/// The key number `at` of an operand.
///
/// # Safety
/// The operand has that many keys.
pub(in crate::exec) unsafe fn key_at(keys: &View, operands: &[*mut u8], at: usize) -> [u32; 2] {
    let indices = Indices::new(keys);
    // SAFETY: passed on; the bits of a u32 are those of an i32.
    [0, 1].map(|word| unsafe { indices.get(operands, 2 * at + word) } as u32)
}

#[derive(Clone, Copy)]
struct Words(*mut u32);

// SAFETY: tasks write different words.
unsafe impl Sync for Words {}

impl Words {
    unsafe fn part<'a>(self, first: usize, count: usize) -> &'a mut [u32] {
        // SAFETY: the caller stays inside, and apart from others.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first), count) }
    }
}

/// Runs `random_bits`.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn bits(cx: &Context<'_>, keys: &View, output: &View, operands: &[*mut u8]) {
    let count: usize = keys.shape.iter().product::<usize>() / 2;
    let words = output.shape.iter().product::<usize>() / count.max(1);
    let tasks = words.div_ceil(4 * TASK);
    let out = Words(start(output, operands).cast());
    let isa = cx.isa;
    for at in 0..count {
        // SAFETY: the key is in its operand.
        let key = unsafe { key_at(keys, operands, at) };
        cx.pool.run(tasks, &|task, _| {
            let first = task * 4 * TASK;
            let length = (4 * TASK).min(words - first);
            // SAFETY: tasks have different words of the result.
            let out = unsafe { out.part(at * words + first, length) };
            isa.run(Fill { key, block: (task * TASK) as u64, out });
        });
    }
}

/// Runs `fold_key`.
///
/// # Safety
/// As for [`crate::exec::Prepared::run`].
pub(super) unsafe fn fold(inputs: &[View], output: &View, operands: &[*mut u8]) {
    let count: usize = inputs[1].shape.iter().product();
    let data = Indices::new(&inputs[1]);
    let out = start(output, operands).cast::<u32>();
    for at in 0..count {
        // SAFETY: keys and data are in their operands, and the result has a key for each.
        unsafe {
            let key = key_at(&inputs[0], operands, at);
            let [a, b] = fold_key(key, data.get(operands, at) as u32);
            (*out.add(2 * at), *out.add(2 * at + 1)) = (a, b);
        }
    }
}
