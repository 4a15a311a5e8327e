//! Flattened dimensions of an operand, and moves of strided elements.

/// Where the elements of a flattened index space lie: sizes and strides in elements, outermost
/// first, neighbours merged where one stride steps over both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    dims: Vec<(usize, isize)>,
}

impl Steps {
    /// From sizes and strides; a size of 0 counts as 1.
    pub fn new(sizes: &[usize], strides: &[isize]) -> Steps {
        let mut dims: Vec<(usize, isize)> = Vec::with_capacity(sizes.len());
        for (&size, &stride) in sizes.iter().zip(strides) {
            let size = size.max(1);
            match dims.last_mut() {
                Some(outer) if outer.1 == stride * size as isize => {
                    *outer = (outer.0 * size, stride)
                }
                _ => dims.push((size, stride)),
            }
        }
        Steps { dims }
    }

    /// Sizes and strides, outermost first.
    pub fn dims(&self) -> &[(usize, isize)] {
        &self.dims
    }

    /// Whether every index lies at the same place.
    pub fn is_still(&self) -> bool {
        self.dims.iter().all(|d| d.1 == 0)
    }

    /// The stride, where one is enough (0 for a single index).
    pub fn single(&self) -> Option<isize> {
        match self.dims[..] {
            [] => Some(0),
            [(_, stride)] => Some(stride),
            _ => None,
        }
    }

    /// The innermost stride.
    pub fn stride(&self) -> isize {
        self.dims.last().map_or(0, |d| d.1)
    }

    /// How many indices follow each other with the innermost stride.
    pub fn inner(&self) -> usize {
        self.dims.last().map_or(1, |d| d.0)
    }

    /// Offset of an index.
    pub fn at(&self, index: usize) -> isize {
        if let [(_, stride)] = self.dims[..] {
            return index as isize * stride;
        }
        let (mut rest, mut offset) = (index, 0);
        for &(size, stride) in self.dims.iter().rev() {
            offset += (rest % size) as isize * stride;
            rest /= size;
        }
        offset
    }

    /// How many indices from this one on follow each other with the innermost stride.
    pub fn run(&self, index: usize) -> usize {
        match self.dims[..] {
            [] => 1,
            [(size, _)] => size - index,
            _ => {
                let size = self.dims[self.dims.len() - 1].0;
                size - index % size
            }
        }
    }

    /// Least and greatest offset.
    pub fn bounds(&self) -> (isize, isize) {
        let mut bounds = (0, 0);
        for &(size, stride) in &self.dims {
            let last = (size as isize - 1) * stride;
            if last < 0 {
                bounds.0 += last;
            } else {
                bounds.1 += last;
            }
        }
        bounds
    }
}

/// A block of elements between a dense side and a strided side.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub rows: usize,
    pub columns: usize,
    /// Elements from one row to the next on the dense side, whose columns are contiguous.
    pub dense_row: isize,
    /// Strides of the strided side, in elements.
    pub row: isize,
    pub column: isize,
}

/// Side of the squares that a transposing move goes through.
const SQUARE: usize = 16;

impl Block {
    /// Reads the strided side into the dense one; elements have `size` bytes.
    ///
    /// # Safety
    /// All elements are within their buffers, which do not overlap.
    pub unsafe fn gather(&self, size: usize, from: *const u8, to: *mut u8) {
        // SAFETY: passed on.
        unsafe {
            match size {
                1 => self.walk(|d, s| *to.cast::<u8>().offset(d) = *from.cast::<u8>().offset(s)),
                2 => self.pull::<u16>(from.cast(), to.cast()),
                4 => self.pull::<u32>(from.cast(), to.cast()),
                _ => self.pull::<u64>(from.cast(), to.cast()),
            }
        }
    }

    /// Writes the dense side out to the strided one.
    ///
    /// # Safety
    /// All elements are within their buffers. An element may be written where it was read; apart
    /// from that the buffers do not overlap.
    pub unsafe fn scatter(&self, size: usize, from: *const u8, to: *mut u8) {
        // SAFETY: passed on.
        unsafe {
            match size {
                1 => self.push::<u8>(from, to),
                2 => self.push::<u16>(from.cast(), to.cast()),
                4 => self.push::<u32>(from.cast(), to.cast()),
                _ => self.push::<u64>(from.cast(), to.cast()),
            }
        }
    }

    unsafe fn pull<T: Copy>(&self, from: *const T, to: *mut T) {
        if self.column == 1 {
            for r in 0..self.rows {
                // SAFETY: passed on.
                unsafe {
                    let row = from.offset(r as isize * self.row);
                    let to = to.offset(r as isize * self.dense_row);
                    std::ptr::copy_nonoverlapping(row, to, self.columns);
                }
            }
            return;
        }
        if self.rows > 1 && self.row == 1 {
            // SAFETY: passed on.
            return unsafe { self.turn(from, to) };
        }
        // SAFETY: passed on; elements may lie unaligned only if the buffer does.
        self.walk(|dense, strided| unsafe { *to.offset(dense) = *from.offset(strided) });
    }

    /// Transposes square by square, reading and writing contiguous elements: rows that lie a power
    /// of two apart would throw each other out of the cache if written one element at a time.
    unsafe fn turn<T: Copy>(&self, from: *const T, to: *mut T) {
        for r0 in (0..self.rows).step_by(SQUARE) {
            let rows = SQUARE.min(self.rows - r0);
            for c0 in (0..self.columns).step_by(SQUARE) {
                let columns = SQUARE.min(self.columns - c0);
                // SAFETY: passed on; the square is filled before it is read.
                unsafe {
                    let mut square = [[*from; SQUARE]; SQUARE];
                    for c in 0..columns {
                        let column = from.offset(r0 as isize + (c0 + c) as isize * self.column);
                        for (r, row) in square.iter_mut().enumerate().take(rows) {
                            row[c] = *column.add(r);
                        }
                    }
                    for (r, row) in square.iter().enumerate().take(rows) {
                        let to = to.offset((r0 + r) as isize * self.dense_row + c0 as isize);
                        to.copy_from_nonoverlapping(row.as_ptr(), columns);
                    }
                }
            }
        }
    }

    unsafe fn push<T: Copy>(&self, from: *const T, to: *mut T) {
        if self.column == 1 {
            for r in 0..self.rows {
                // SAFETY: passed on.
                unsafe {
                    let row = to.offset(r as isize * self.row);
                    // In place, a row may be stored where it was read.
                    let from = from.offset(r as isize * self.dense_row);
                    std::ptr::copy(from, row, self.columns);
                }
            }
            return;
        }
        // SAFETY: passed on.
        self.walk(|dense, strided| unsafe { *to.offset(strided) = *from.offset(dense) });
    }

    /// Visits dense and strided offsets, square by square, the shorter stride innermost.
    #[inline(always)]
    fn walk(&self, mut visit: impl FnMut(isize, isize)) {
        let at = |r: usize, c: usize| {
            let (r, c) = (r as isize, c as isize);
            (r * self.dense_row + c, r * self.row + c * self.column)
        };
        if self.rows == 1 || self.row.unsigned_abs() >= self.column.unsigned_abs() {
            for r in 0..self.rows {
                for c in 0..self.columns {
                    let (dense, strided) = at(r, c);
                    visit(dense, strided);
                }
            }
            return;
        }
        for r0 in (0..self.rows).step_by(SQUARE) {
            for c0 in (0..self.columns).step_by(SQUARE) {
                for c in c0..(c0 + SQUARE).min(self.columns) {
                    for r in r0..(r0 + SQUARE).min(self.rows) {
                        let (dense, strided) = at(r, c);
                        visit(dense, strided);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge() {
        let steps = Steps::new(&[2, 3, 4], &[12, 4, 1]);
        assert_eq!(steps.single(), Some(1));
        let steps = Steps::new(&[2, 3, 4], &[4, 0, 1]);
        assert_eq!(steps.single(), None);
        assert_eq!((0..24).map(|i| steps.at(i)).collect::<Vec<_>>(), {
            let row = |b: isize| (0..3).flat_map(move |_| (0..4).map(move |c| b * 4 + c));
            (0..2).flat_map(row).collect::<Vec<_>>()
        });
        assert_eq!((steps.run(0), steps.run(5), steps.bounds()), (4, 3, (0, 7)));
        assert_eq!(Steps::new(&[3], &[-2]).bounds(), (-4, 0));
        assert!(Steps::new(&[], &[]).is_still() && Steps::new(&[4, 2], &[0, 0]).is_still());
    }

    #[test]
    fn blocks_move_any_strides() {
        let source: Vec<u32> = (0..4000).collect();
        for (rows, columns, row, column) in
            [(3, 5, 50, 1), (40, 37, 1, 40), (7, 20, 100, 3), (1, 9, 0, 2), (20, 20, 20, 0)]
        {
            let block = Block { rows, columns, dense_row: columns as isize + 1, row, column };
            let mut dense = vec![0u32; rows * (columns + 1)];
            // SAFETY: the sizes above stay within both vectors.
            unsafe { block.gather(4, source.as_ptr().cast(), dense.as_mut_ptr().cast()) };
            for r in 0..rows {
                for c in 0..columns {
                    let want = r as isize * row + c as isize * column;
                    assert_eq!(dense[r * (columns + 1) + c], want as u32);
                }
            }
            let mut back = vec![0u32; 4000];
            // SAFETY: as above.
            unsafe { block.scatter(4, dense.as_ptr().cast(), back.as_mut_ptr().cast()) };
            let at = ((rows - 1) as isize * row + (columns - 1) as isize * column) as usize;
            assert_eq!(back[at], source[at]);
        }
    }

    #[test]
    fn dense_rows_may_run_backwards() {
        for column in [1, 2] {
            let block = Block { rows: 3, columns: 2, dense_row: -2, row: 4, column };
            let dense: Vec<u32> = (0..6).collect();
            let (mut spread, mut back) = (vec![0u32; 12], vec![9u32; 6]);
            // SAFETY: rows begin at 4, 2 and 0 of the dense side, and end within 12 of the other.
            unsafe {
                block.scatter(4, dense.as_ptr().add(4).cast(), spread.as_mut_ptr().cast());
                block.gather(4, spread.as_ptr().cast(), back.as_mut_ptr().add(4).cast());
            }
            let next = column as usize;
            assert_eq!([0, next, 4, 4 + next, 8, 8 + next].map(|i| spread[i]), [4, 5, 2, 3, 0, 1]);
            assert_eq!(back, dense);
        }
    }
}
