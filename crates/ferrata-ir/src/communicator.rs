//! How the ranks of a run exchange data, whatever carries it.

use crate::primitive::ReduceKind;
use crate::{DType, Error, Result};
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;

/// What a rank is about to do, for whoever watches over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// A training step. Ranks in steps are compared with each other: one that lets the others wait
    /// for long is taken for broken.
    Step(u64),
    /// What takes its own time on each rank: compiling, an evaluation, a checkpoint.
    Other(&'a str),
    /// Collectives that belong to this scope of the program.
    Scope(&'a str),
    /// Nothing: the run is complete.
    Done,
}

/// One rank's end of the lines between the ranks of a run.
///
/// A backend only has to [`exchange`](Communicator::exchange); everything else is made of it, with
/// sums in the order of the group, so that they are the same bits on every rank, run and backend.
/// One that has collectives of its own with the same promise may use them instead.
///
/// All members of a group make the same calls in the same order, one at a time.
pub trait Communicator: Send + Sync + fmt::Debug {
    /// This rank's number, below [`Communicator::size`].
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// How many ranks share the cores that this process may use, this one counted; those that are
    /// not known to do so do not.
    fn neighbours(&self) -> usize {
        1
    }

    /// Tells whoever watches over the run what this rank is about to do. Nobody does by default.
    fn report(&self, _what: Report<'_>) {}

    /// Sends `send[i]` to rank `group[i]` and fills `receive[i]` with what it sent here, for all `i`
    /// at once. `group` has every member once and this rank among them; what it sends to itself is
    /// copied. Empty parts are not waited for.
    ///
    /// # Errors
    /// When a member is lost, or sends another number of bytes: names its rank.
    fn exchange(&self, group: &[usize], send: &[&[u8]], receive: &mut [&mut [u8]]) -> Result<()>;

    /// Sends `data` to another rank without waiting until that takes it. Messages between two ranks
    /// arrive in the order in which they were sent; what was posted last arrives for certain only
    /// if another call of this rank with the same one follows. Nothing is sent of empty data.
    ///
    /// # Errors
    /// When that rank is lost.
    fn post(&self, to: usize, data: &[u8]) -> Result<()>;

    /// Fills `data` with what another rank has posted.
    ///
    /// # Errors
    /// As [`Communicator::exchange`].
    fn receive(&self, from: usize, data: &mut [u8]) -> Result<()> {
        self.exchange(&[self.rank(), from], &[&[], &[]], &mut [&mut [], data])
    }

    /// Every member's `part`, one after the other in the order of the group, in `whole`; member `i`
    /// gives `sizes[i]` bytes.
    ///
    /// # Errors
    /// As [`Communicator::exchange`].
    fn all_gather(
        &self,
        group: &[usize],
        part: &[u8],
        sizes: &[usize],
        whole: &mut [u8],
    ) -> Result<()> {
        let send = vec![part; group.len()];
        self.exchange(group, &send, &mut split_mut(whole, sizes))
    }

    /// The combination of all members' `whole`, of which member `i` gets the `sizes[i]` bytes that
    /// follow those of the members before it. Half precision is summed in f32 and rounded once.
    ///
    /// # Errors
    /// As [`Communicator::exchange`].
    fn reduce_scatter(
        &self,
        group: &[usize],
        kind: ReduceKind,
        dtype: DType,
        whole: &[u8],
        sizes: &[usize],
        part: &mut [u8],
    ) -> Result<()> {
        let me = position(group, self.rank())?;
        reduce_part(self, group, me, (kind, dtype), &split(whole, sizes), &mut Vec::new(), part)
    }

    /// Replaces every member's `data` by the combination of all.
    ///
    /// # Errors
    /// As [`Communicator::exchange`].
    fn all_reduce(
        &self,
        group: &[usize],
        kind: ReduceKind,
        dtype: DType,
        data: &mut [u8],
    ) -> Result<()> {
        let me = position(group, self.rank())?;
        let (mut buffer, mut sum) = (Vec::new(), Vec::new());
        for piece in data.chunks_mut(PIECE) {
            let elements = piece.len() / dtype.size();
            let size = |i| chunk(elements, group.len(), i).len() * dtype.size();
            let sizes: Vec<usize> = (0..group.len()).map(size).collect();
            sum.resize(sizes[me], 0);
            let parts = split(piece, &sizes);
            reduce_part(self, group, me, (kind, dtype), &parts, &mut buffer, &mut sum)?;
            let mut parts = split_mut(piece, &sizes);
            parts[me].copy_from_slice(&sum);
            parts[me] = &mut [];
            let mut send = vec![&sum[..]; group.len()];
            send[me] = &[];
            self.exchange(group, &send, &mut parts)?;
        }
        Ok(())
    }
}

/// Bytes that are reduced at a time, so that they stay in the caches from one step to the next; a
/// multiple of the size of every dtype.
const PIECE: usize = 4 << 20;

/// Where a rank stands in a group.
fn position(group: &[usize], rank: usize) -> Result<usize> {
    let found = group.iter().position(|&member| member == rank);
    found.ok_or_else(|| Error::new(format!("rank {rank} is not in the group {group:?}")))
}

/// Gives every member its part, and combines what came, in the order of the group, in `out`. What
/// member `me`, this one, keeps is not copied; `buffer` holds what others sent.
fn reduce_part<C: Communicator + ?Sized>(
    with: &C,
    group: &[usize],
    me: usize,
    (kind, dtype): (ReduceKind, DType),
    parts: &[&[u8]],
    buffer: &mut Vec<u8>,
    out: &mut [u8],
) -> Result<()> {
    let mut sizes = vec![out.len(); group.len()];
    sizes[me] = 0;
    buffer.resize(out.len() * (group.len() - 1), 0);
    let mut send = parts.to_vec();
    send[me] = &[];
    with.exchange(group, &send, &mut split_mut(buffer, &sizes))?;
    let mut received = split(buffer, &sizes);
    received[me] = parts[me];
    combine(kind, dtype, &received, out)
}

/// Part `i` of `count` nearly equal parts of `0..size`: how dimensions and buffers are cut.
pub fn chunk(size: usize, count: usize, i: usize) -> Range<usize> {
    size * i / count..size * (i + 1) / count
}

/// The pieces of these sizes, one after the other.
pub(crate) fn split<'a>(mut whole: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    sizes.iter().map(|&size| whole.split_off(..size).unwrap_or_default()).collect()
}

/// As [`split`], to be written.
pub(crate) fn split_mut<'a>(mut whole: &'a mut [u8], sizes: &[usize]) -> Vec<&'a mut [u8]> {
    sizes.iter().map(|&size| whole.split_off_mut(..size).unwrap_or_default()).collect()
}

/// Elements that are combined at a time: their accumulators stay in the first cache.
const BLOCK: usize = 1024;

/// An element as it lies in memory, and as it is accumulated.
trait Element: Copy {
    type Sum: Copy;
    const SIZE: usize;
    fn read(bytes: &[u8]) -> Self::Sum;
    fn write(sum: Self::Sum, bytes: &mut [u8]);
}

macro_rules! element {
    ($($ty:ty as $sum:ty: $read:expr, $write:expr;)*) => {
        $(impl Element for $ty {
            type Sum = $sum;
            const SIZE: usize = size_of::<$ty>();

            fn read(bytes: &[u8]) -> $sum {
                $read(<$ty>::from_le_bytes(bytes.try_into().expect("one element")))
            }

            fn write(sum: $sum, bytes: &mut [u8]) {
                let element: $ty = $write(sum);
                bytes.copy_from_slice(&element.to_le_bytes());
            }
        })*
    };
}

element! {
    f64 as f64: |x| x, |x| x;
    f32 as f32: |x| x, |x| x;
    f16 as f32: f16::to_f32, f16::from_f32;
    bf16 as f32: bf16::to_f32, bf16::from_f32;
    i64 as i64: |x| x, |x| x;
    i32 as i32: |x| x, |x| x;
    i16 as i16: |x| x, |x| x;
    i8 as i8: |x| x, |x| x;
    u8 as u8: |x| x, |x| x;
    u32 as u32: |x| x, |x| x;
}

fn combine_with<T: Element>(parts: &[&[u8]], out: &mut [u8], f: impl Fn(T::Sum, T::Sum) -> T::Sum) {
    let Some((first, rest)) = parts.split_first() else { return };
    let mut sums = Vec::with_capacity(BLOCK);
    for (block, out) in out.chunks_mut(BLOCK * T::SIZE).enumerate() {
        let start = block * BLOCK * T::SIZE;
        let elements = |part: &&[u8]| start..(start + out.len()).min(part.len());
        sums.clear();
        sums.extend(first[elements(first)].chunks_exact(T::SIZE).map(T::read));
        for part in rest {
            let next = part[elements(part)].chunks_exact(T::SIZE).map(T::read);
            sums.iter_mut().zip(next).for_each(|(sum, x)| *sum = f(*sum, x));
        }
        out.chunks_exact_mut(T::SIZE).zip(&sums).for_each(|(out, sum)| T::write(*sum, out));
    }
}

/// The elementwise combination of `parts`, all as long as `out`, in their order.
///
/// # Errors
/// When values of this dtype cannot be combined so.
pub fn combine(kind: ReduceKind, dtype: DType, parts: &[&[u8]], out: &mut [u8]) -> Result<()> {
    kind.accepts(dtype)?;
    macro_rules! float {
        ($ty:ty) => {
            match kind {
                ReduceKind::Sum => combine_with::<$ty>(parts, out, |x, y| x + y),
                ReduceKind::Product => combine_with::<$ty>(parts, out, |x, y| x * y),
                // NaN wins, as in every reduction.
                ReduceKind::Max => {
                    combine_with::<$ty>(parts, out, |x, y| if x.is_nan() || x > y { x } else { y })
                }
                ReduceKind::Min => {
                    combine_with::<$ty>(parts, out, |x, y| if x.is_nan() || x < y { x } else { y })
                }
                ReduceKind::And | ReduceKind::Or => return Err(no_bits(dtype)),
            }
        };
    }
    macro_rules! int {
        ($ty:ty) => {
            match kind {
                ReduceKind::Sum => combine_with::<$ty>(parts, out, |x, y| x.wrapping_add(y)),
                ReduceKind::Product => combine_with::<$ty>(parts, out, |x, y| x.wrapping_mul(y)),
                ReduceKind::Max => combine_with::<$ty>(parts, out, |x, y| x.max(y)),
                ReduceKind::Min => combine_with::<$ty>(parts, out, |x, y| x.min(y)),
                ReduceKind::And => combine_with::<$ty>(parts, out, |x, y| x & y),
                ReduceKind::Or => combine_with::<$ty>(parts, out, |x, y| x | y),
            }
        };
    }
    match dtype {
        DType::F64 => float!(f64),
        DType::F32 => float!(f32),
        DType::F16 => float!(f16),
        DType::BF16 => float!(bf16),
        DType::I64 => int!(i64),
        DType::I32 => int!(i32),
        DType::I16 => int!(i16),
        DType::I8 => int!(i8),
        DType::U8 | DType::Bool => int!(u8),
        DType::U32 => int!(u32),
    }
    Ok(())
}

/// The error of a collective where nothing connects to other ranks.
pub fn alone() -> Error {
    Error::new("this program is one of several ranks, and nothing connects them")
        .help("run it on a device with a communicator")
}

fn no_bits(dtype: DType) -> Error {
    Error::new(format!("{dtype} has no bits to combine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ReduceKind; 4] =
        [ReduceKind::Sum, ReduceKind::Product, ReduceKind::Max, ReduceKind::Min];

    /// Elements of a dtype from numbers, and back.
    fn bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
        let element = |&x: &f64| match dtype {
            DType::F64 => x.to_le_bytes().to_vec(),
            DType::F32 => (x as f32).to_le_bytes().to_vec(),
            DType::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
            DType::I64 => (x as i64).to_le_bytes().to_vec(),
            DType::I32 => (x as i32).to_le_bytes().to_vec(),
            DType::U32 => (x as u32).to_le_bytes().to_vec(),
            DType::I16 => (x as i16).to_le_bytes().to_vec(),
            DType::I8 => (x as i8).to_le_bytes().to_vec(),
            DType::U8 | DType::Bool => vec![x as u8],
        };
        values.iter().flat_map(element).collect()
    }

    fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
        let element = |x: &[u8]| match dtype {
            DType::F64 => f64::from_le_bytes(x.try_into().unwrap()),
            DType::F32 => f32::from_le_bytes(x.try_into().unwrap()).into(),
            DType::F16 => f16::from_le_bytes(x.try_into().unwrap()).into(),
            DType::BF16 => bf16::from_le_bytes(x.try_into().unwrap()).into(),
            DType::I64 => i64::from_le_bytes(x.try_into().unwrap()) as f64,
            DType::I32 => i32::from_le_bytes(x.try_into().unwrap()).into(),
            DType::U32 => u32::from_le_bytes(x.try_into().unwrap()).into(),
            DType::I16 => i16::from_le_bytes(x.try_into().unwrap()).into(),
            DType::I8 => i8::from_le_bytes(x.try_into().unwrap()).into(),
            DType::U8 | DType::Bool => x[0].into(),
        };
        bytes.chunks_exact(dtype.size()).map(element).collect()
    }

    #[test]
    fn every_dtype_is_combined_as_its_numbers_are() {
        let dtypes = [
            DType::F64,
            DType::F32,
            DType::F16,
            DType::BF16,
            DType::I64,
            DType::I32,
            DType::U32,
            DType::I16,
            DType::I8,
            DType::U8,
        ];
        // More than a block, and not a multiple of it; small enough to be exact in all dtypes.
        let part = |seed: usize| (0..2500).map(|i| ((i * seed + i / 7) % 5) as f64).collect();
        let parts: [Vec<f64>; 3] = [part(3), part(5), part(11)];
        for (dtype, kind) in dtypes.into_iter().flat_map(|dtype| KINDS.map(|kind| (dtype, kind))) {
            let raw: Vec<Vec<u8>> = parts.iter().map(|part| bytes(dtype, part)).collect();
            let raw: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
            let mut out = vec![0; 2500 * dtype.size()];
            combine(kind, dtype, &raw, &mut out).unwrap();
            let all = |f: fn(f64, f64) -> f64| -> Vec<f64> {
                (0..2500).map(|i| f(f(parts[0][i], parts[1][i]), parts[2][i])).collect()
            };
            let want = match kind {
                ReduceKind::Sum => all(|x, y| x + y),
                ReduceKind::Product => all(|x, y| x * y),
                ReduceKind::Max => all(f64::max),
                _ => all(f64::min),
            };
            assert_eq!(values(dtype, &out), want, "{kind:?} of {dtype}");
        }
    }

    #[test]
    fn nan_wins_and_half_precision_is_rounded_once() {
        let nan = f64::NAN;
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            for kind in KINDS {
                let parts =
                    [[nan, 1.0, 1.0], [1.0, nan, 2.0], [2.0, 3.0, nan]].map(|x| bytes(dtype, &x));
                let parts = parts.each_ref().map(Vec::as_slice);
                let mut out = vec![0; 3 * dtype.size()];
                combine(kind, dtype, &parts, &mut out).unwrap();
                let out = values(dtype, &out);
                assert!(out.iter().all(|x| x.is_nan()), "{kind:?} of {dtype}: {out:?}");
            }
        }
        // 256 + 1 is 256 in bf16, if it is rounded after each addition.
        let parts = [256.0, 1.0, 1.0].map(|x| bytes(DType::BF16, &[x]));
        let parts = parts.each_ref().map(Vec::as_slice);
        let mut out = [0; 2];
        combine(ReduceKind::Sum, DType::BF16, &parts, &mut out).unwrap();
        assert_eq!(values(DType::BF16, &out), [258.0]);
    }

    #[test]
    fn truth_is_combined_by_and_and_or_alone() {
        let parts: [&[u8]; 2] = [&[0, 0, 1, 1], &[0, 1, 0, 1]];
        let mut out = [9; 4];
        combine(ReduceKind::And, DType::Bool, &parts, &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 1]);
        combine(ReduceKind::Or, DType::Bool, &parts, &mut out).unwrap();
        assert_eq!(out, [0, 1, 1, 1]);
        assert!(combine(ReduceKind::Sum, DType::Bool, &parts, &mut out).is_err());
        assert!(combine(ReduceKind::And, DType::F32, &parts, &mut out).is_err());
    }
}
