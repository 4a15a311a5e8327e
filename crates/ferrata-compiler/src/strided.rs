//! Strided windows and index maps: how shapes, broadcasts, transposes, slices and reshapes become
//! arithmetic on the row-major element number of the value that is really stored.

use ferrata_ir::Primitive;
use ferrata_ir::primitive::{Broadcast, Reverse, Slice, Transpose, Windows};

/// A window on a value: element `i` of the window is element `offset + Σ strides[d] i[d]` of the
/// value in row-major order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Strided {
    /// Element at index 0.
    pub offset: isize,
    /// Shape of the window.
    pub shape: Vec<usize>,
    /// Elements of the value for the next index of each dimension; 0 repeats.
    pub strides: Vec<isize>,
}

/// A dimension of at least this many elements is worth to be stepped through one by one.
pub const LONG: usize = 16;

/// Row-major strides of a shape.
pub fn row_major(shape: &[usize]) -> Vec<isize> {
    ferrata_ir::row_major_strides(shape).into_iter().map(|s| s as isize).collect()
}

impl Strided {
    /// The whole value.
    pub fn whole(shape: &[usize]) -> Self {
        Strided { offset: 0, shape: shape.to_vec(), strides: row_major(shape) }
    }

    /// Whether this is the whole value in its own order, whatever the shape is called.
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && self.is_dense()
    }

    /// Whether the elements lie one after the other.
    pub fn is_dense(&self) -> bool {
        let dense = row_major(&self.shape);
        (0..self.shape.len()).all(|d| self.shape[d] == 1 || self.strides[d] == dense[d])
    }

    /// The window that `inner` is, as a window on the elements of this one; `None` if no strides
    /// say so.
    pub fn compose(&self, inner: &Strided) -> Option<Strided> {
        let map = Map { offset: inner.offset, strides: inner.strides.clone() };
        let indices = map.indices(&inner.shape, &self.shape).ok()?;
        let Map { offset, strides } = Map::compose(self, &indices, inner.shape.len());
        Some(Strided { offset, shape: inner.shape.clone(), strides })
    }

    /// The place of a value of `elements` elements of which this window, put at `place`, shows a
    /// permutation: dimensions are in the value's own order. `None` if it is no permutation.
    pub fn in_order(&self, elements: usize, place: &Strided) -> Option<Strided> {
        let mut order: Vec<usize> = (0..self.shape.len()).filter(|&d| self.shape[d] != 1).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(self.strides[d]));
        let pick = |strides: &[isize]| order.iter().map(|&d| strides[d]).collect::<Vec<_>>();
        let shape: Vec<usize> = order.iter().map(|&d| self.shape[d]).collect();
        let permuted = Strided { offset: self.offset, shape, strides: pick(&self.strides) };
        let all = permuted.is_whole() && permuted.shape.iter().product::<usize>() == elements;
        all.then(|| Strided { offset: place.offset, strides: pick(&place.strides), ..permuted })
    }

    /// If this window shows each of the value's `elements` once and its shortest steps are along
    /// short dimensions, although there is a long one: the window that shows them with the long
    /// dimension innermost, and for each of its dimensions the one of this window.
    pub fn in_rows(&self, elements: usize) -> Option<(Strided, Vec<usize>)> {
        let mut order: Vec<usize> = (0..self.shape.len()).filter(|&d| self.shape[d] > 1).collect();
        order.sort_by_key(|&d| std::cmp::Reverse(self.strides[d].unsigned_abs()));
        let short = order.iter().rev().take_while(|&&d| self.shape[d] < LONG).count();
        if short == 0 || short == order.len() {
            return None;
        }
        let falling = |d: &&usize| self.strides[**d] < 0;
        let span = |&d: &usize| self.strides[d] * (self.shape[d] as isize - 1);
        let pick = |order: &[usize]| Strided {
            offset: self.offset + order.iter().filter(falling).map(span).sum::<isize>(),
            shape: order.iter().map(|&d| self.shape[d]).collect(),
            strides: order.iter().map(|&d| self.strides[d].abs()).collect(),
        };
        let whole = pick(&order);
        if !whole.is_whole() || whole.shape.iter().product::<usize>() != elements {
            return None;
        }
        let long = order.len() - short - 1;
        order[long..].rotate_left(1);
        Some((pick(&order), order))
    }

    /// This window on a dense copy of what `stored` shows, whose dimension `i` is dimension
    /// `order[i]` of this window, forwards.
    pub fn on_copy(&self, stored: &Strided, order: &[usize]) -> Strided {
        let mut out =
            Strided { offset: 0, shape: self.shape.clone(), strides: vec![0; self.shape.len()] };
        for (&d, stride) in order.iter().zip(row_major(&stored.shape)) {
            let falling = self.strides[d] < 0;
            out.strides[d] = if falling { -stride } else { stride };
            out.offset += if falling { stride * (self.shape[d] as isize - 1) } else { 0 };
        }
        out
    }

    /// The window seen through a primitive that only moves elements; `None` if that needs a copy.
    pub fn through(&self, op: &Primitive) -> Option<Strided> {
        match op {
            Primitive::Broadcast(b) => Some(self.broadcast(b)),
            Primitive::Transpose(t) => Some(self.transpose(t)),
            Primitive::Slice(s) => Some(self.slice(s)),
            Primitive::Reverse(r) => Some(self.reverse(r)),
            Primitive::Windows(w) => Some(self.windows(w)),
            Primitive::Reshape(r) => self.reshape(&r.shape),
            _ => None,
        }
    }

    fn broadcast(&self, op: &Broadcast) -> Strided {
        let mut strides = vec![0; op.shape.len()];
        for (i, &d) in op.dims.iter().enumerate() {
            strides[d] = if self.shape[i] == 1 { 0 } else { self.strides[i] };
        }
        Strided { offset: self.offset, shape: op.shape.clone(), strides }
    }

    fn transpose(&self, op: &Transpose) -> Strided {
        Strided {
            offset: self.offset,
            shape: op.permutation.iter().map(|&p| self.shape[p]).collect(),
            strides: op.permutation.iter().map(|&p| self.strides[p]).collect(),
        }
    }

    fn slice(&self, op: &Slice) -> Strided {
        let (mut out, rank) = (self.clone(), self.shape.len());
        for d in 0..rank {
            out.offset += self.strides[d] * op.start[d] as isize;
            out.strides[d] *= op.stride[d] as isize;
            out.shape[d] = op.limit[d].saturating_sub(op.start[d]).div_ceil(op.stride[d]);
        }
        out
    }

    fn reverse(&self, op: &Reverse) -> Strided {
        let mut out = self.clone();
        for &d in &op.dims {
            out.offset += self.strides[d] * (self.shape[d] as isize - 1);
            out.strides[d] = -out.strides[d];
        }
        out
    }

    fn windows(&self, op: &Windows) -> Strided {
        let (mut out, d) = (self.clone(), op.dim);
        out.shape = op.shape(&self.shape);
        out.strides[d] = self.strides[d] * op.stride as isize;
        out.strides.insert(d + 1, self.strides[d] * op.dilation as isize);
        out
    }

    /// The same elements in another shape, where strides can say so.
    fn reshape(&self, shape: &[usize]) -> Option<Strided> {
        // Coalesce, then deal the sizes of the new shape out of the coalesced dimensions.
        let mut sizes = self.shape.clone();
        let mut strides = vec![self.strides.clone()];
        coalesce(&mut sizes, &mut strides, |_, _| true);
        let mut old: Vec<(usize, isize)> = sizes.into_iter().zip(strides.remove(0)).collect();
        let mut out = vec![0; shape.len()];
        for d in (0..shape.len()).rev() {
            if shape[d] == 1 {
                continue;
            }
            let (size, stride) = old.last_mut()?;
            if *size % shape[d] != 0 {
                return None;
            }
            out[d] = *stride;
            *size /= shape[d];
            *stride *= shape[d] as isize;
            if *size == 1 {
                old.pop();
            }
        }
        Some(Strided { offset: self.offset, shape: shape.to_vec(), strides: out })
    }
}

/// Merges neighbouring loops that all accesses step through as one, and drops loops of one step.
/// `may(i, j)` says whether loops `i` and `j = i + 1` of the current list may become one. Returns
/// for each loop that is left how many there were before it in the original list.
pub fn coalesce(
    loops: &mut Vec<usize>,
    accesses: &mut [Vec<isize>],
    may: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let (mut sizes, mut origins): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut strides: Vec<Vec<isize>> = vec![Vec::new(); accesses.len()];
    for (i, &size) in loops.iter().enumerate().filter(|(_, s)| **s != 1) {
        let joins = sizes.last().is_some_and(|_| {
            may(origins[origins.len() - 1], i)
                && accesses
                    .iter()
                    .zip(&strides)
                    .all(|(a, s)| s.last() == Some(&(a[i] * size as isize)))
        });
        if joins {
            let last = sizes.len() - 1;
            sizes[last] *= size;
            strides.iter_mut().zip(accesses.iter()).for_each(|(s, a)| s[last] = a[i]);
            origins[last] = i;
        } else {
            sizes.push(size);
            origins.push(i);
            strides.iter_mut().zip(accesses.iter()).for_each(|(s, a)| s.push(a[i]));
        }
    }
    *loops = sizes;
    accesses.iter_mut().zip(strides).for_each(|(a, s)| *a = s);
    origins
}

/// Where a loop nest stands in some value: at row-major element `offset + Σ strides[l] i[l]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Map {
    /// Element at loop indices 0.
    pub offset: isize,
    /// Elements for the next index of each loop.
    pub strides: Vec<isize>,
}

/// Why a map could not be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It can be after splitting a loop into an outer and an inner one of `inner` steps.
    Split {
        /// Which loop.
        at: usize,
        /// Steps of the inner loop.
        inner: usize,
    },
    /// It cannot.
    Never,
}

impl Map {
    /// The map that stays at element 0.
    pub fn zero(loops: usize) -> Self {
        Map { offset: 0, strides: vec![0; loops] }
    }

    /// Splits loop `at` into an outer and an inner one of `inner` steps.
    pub fn split(&mut self, at: usize, inner: usize) {
        let stride = self.strides[at];
        self.strides[at] = stride * inner as isize;
        self.strides.insert(at + 1, stride);
    }

    /// The index of every dimension of a value of this shape.
    ///
    /// # Errors
    /// When an index is not affine in the loops.
    pub fn indices(&self, loops: &[usize], shape: &[usize]) -> Result<Vec<Map>, Refusal> {
        let dims = row_major(shape);
        // Walk falling loops upwards: then every index grows with every loop.
        let falling = |l: usize| self.strides[l] < 0;
        let span = |l: usize| self.strides[l] * (loops[l] as isize - 1);
        let first: isize =
            self.offset + (0..loops.len()).filter(|&l| falling(l)).map(span).sum::<isize>();
        let mut out: Vec<Map> = (0..shape.len())
            .map(|d| Map {
                offset: first / dims[d] % shape[d] as isize,
                strides: vec![0; loops.len()],
            })
            .collect();
        let mut last: Vec<isize> = out.iter().map(|m| m.offset).collect();
        for l in (0..loops.len()).filter(|&l| loops[l] > 1 && self.strides[l] != 0) {
            let stride = self.strides[l].abs();
            let fits = |&d: &usize| shape[d] > 1 && dims[d] <= stride;
            let d = (0..shape.len()).find(fits).ok_or(Refusal::Never)?;
            if stride % dims[d] != 0 {
                return Err(Refusal::Never);
            }
            let step = stride / dims[d];
            let reach = step * (loops[l] as isize - 1);
            if last[d] + reach >= shape[d] as isize {
                return Err(carry(l, loops[l], step, shape[d]));
            }
            last[d] += reach;
            out[d].strides[l] = if falling(l) { -step } else { step };
            if falling(l) {
                out[d].offset += reach;
            }
        }
        Ok(out)
    }

    /// The map into the value that `window` looks at, for these indices of the window.
    pub fn compose(window: &Strided, indices: &[Map], loops: usize) -> Map {
        let mut out = Map { offset: window.offset, strides: vec![0; loops] };
        for (index, &stride) in indices.iter().zip(&window.strides) {
            out.offset += stride * index.offset;
            for (o, s) in out.strides.iter_mut().zip(&index.strides) {
                *o += stride * s;
            }
        }
        out
    }

    /// Whether the loops visit all `elements` once, but for loops of stride 0.
    pub fn covers(&self, loops: &[usize], elements: usize) -> bool {
        let moving = loops.iter().zip(&self.strides).filter(|(n, s)| **s != 0 && **n > 1);
        let mut moving: Vec<(usize, usize)> = moving.map(|(&n, s)| (s.unsigned_abs(), n)).collect();
        moving.sort_unstable();
        // Windows that overlap could visit as many elements, but not all.
        let dense = |size: usize, &(stride, n): &(usize, usize)| (stride == size).then(|| size * n);
        moving.iter().try_fold(1, dense) == Some(elements)
    }
}

/// A loop that walks over the end of a dimension: at a boundary it can be split.
fn carry(at: usize, steps: usize, step: isize, size: usize) -> Refusal {
    let inner = size / step as usize;
    let whole = inner * step as usize == size;
    if whole && inner > 1 && inner < steps && steps.is_multiple_of(inner) {
        return Refusal::Split { at, inner };
    }
    Refusal::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_of_a_transposed_window_needs_a_copy_only_across_it() {
        let x = Strided::whole(&[2, 3, 4]);
        let t = x.transpose(&Transpose { permutation: vec![1, 0, 2] });
        assert_eq!(t.reshape(&[3, 2, 2, 2]).unwrap().strides, [4, 12, 2, 1]);
        assert!(t.reshape(&[6, 4]).is_none());
        assert_eq!(x.reshape(&[6, 4]).unwrap().strides, [4, 1]);
        assert_eq!(x.reshape(&[24]).unwrap().strides, [1]);
        assert_eq!(Strided::whole(&[]).reshape(&[1, 1]).unwrap().strides, [0, 0]);
    }

    #[test]
    fn a_kernel_is_copied_in_the_same_rows_forwards_and_backwards() {
        let kernel = Strided::whole(&[1, 32, 64, 3, 3]);
        let (stored, order) = kernel.in_rows(32 * 64 * 9).unwrap();
        assert_eq!((&stored.shape[..], &order[..]), (&[32, 3, 3, 64][..], &[1, 3, 4, 2][..]));
        assert_eq!(stored.strides, [576, 3, 1, 9]);
        assert_eq!(kernel.on_copy(&stored, &order).strides, [0, 576, 1, 192, 64]);
        let flipped = kernel.reverse(&Reverse { dims: vec![3, 4] });
        let exchanged = flipped.transpose(&Transpose { permutation: vec![0, 2, 1, 3, 4] });
        let (same, order) = exchanged.in_rows(32 * 64 * 9).unwrap();
        assert_eq!(same, stored);
        let back = exchanged.on_copy(&same, &order);
        assert_eq!((back.offset, &back.strides[..]), (8 * 64, &[0, 1, 576, -192, -64][..]));
        assert!(Strided::whole(&[32, 64]).in_rows(32 * 64).is_none());
        assert!(Strided::whole(&[3, 3]).in_rows(9).is_none());
    }

    #[test]
    fn windows_on_windows() {
        // Heads of [2, 5, 3 · 4] as a value [2, 3, 5, 4] of their own.
        let heads = Strided { offset: 0, shape: vec![2, 5, 3, 4], strides: vec![60, 4, 20, 1] };
        let place = heads.in_order(120, &Strided::whole(&[2, 5, 3, 4])).unwrap();
        let layout = place.compose(&Strided::whole(&[2, 3, 5, 4])).unwrap();
        assert_eq!((layout.offset, layout.strides), (0, vec![60, 4, 12, 1]));
        assert!(heads.in_order(121, &place).is_none());
        // The second of three such values, side by side.
        let part = Strided { offset: 12, shape: vec![10, 12], strides: vec![36, 1] };
        let layout = part.compose(&place).unwrap();
        assert_eq!((layout.offset, layout.strides), (12, vec![180, 4, 36, 1]));
        // Six rows of ten elements are no rows of twelve.
        let other = Strided { offset: 0, shape: vec![12, 10], strides: vec![10, 1] };
        assert!(part.compose(&other).is_none());
    }

    #[test]
    fn indices_of_a_flat_loop_ask_for_a_split() {
        let map = Map { offset: 0, strides: vec![1] };
        assert_eq!(map.indices(&[12], &[3, 4]), Err(Refusal::Split { at: 0, inner: 4 }));
        let mut split = map.clone();
        split.split(0, 4);
        let at = split.indices(&[3, 4], &[3, 4]).unwrap();
        assert_eq!((at[0].strides.clone(), at[1].strides.clone()), (vec![1, 0], vec![0, 1]));
    }

    #[test]
    fn indices_of_reversed_and_sliced_windows() {
        // Rows 2 and 1, columns 1 and 3 of a 3 by 4 value.
        let map = Map { offset: 2 * 4 + 1, strides: vec![-4, 2] };
        let at = map.indices(&[2, 2], &[3, 4]).unwrap();
        assert_eq!(at[0], Map { offset: 2, strides: vec![-1, 0] });
        assert_eq!(at[1], Map { offset: 1, strides: vec![0, 2] });
        // A diagonal is no index of one dimension.
        assert_eq!(Map { offset: 0, strides: vec![5] }.indices(&[3], &[3, 4]), Err(Refusal::Never));
    }
}
