//! The memories of a core and global memory, and strided arrays in them.

use super::number;
use super::order::{Access, Place, merged};
use super::syntax::{Kind, Space};
use crate::target::Target;
use ferrata_ir::{Error, Result};

/// A strided array in some memory. Offset and strides count elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub place: Place,
    pub kind: Kind,
    /// Byte that offset 0 is at.
    pub base: usize,
    pub offset: i64,
    pub sizes: Vec<usize>,
    pub strides: Vec<i64>,
}

impl View {
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Positions of all elements, row-major, counted as the offset is.
    pub fn positions(&self) -> Vec<i64> {
        let mut positions = vec![self.offset];
        for (&n, &stride) in self.sizes.iter().zip(&self.strides) {
            let step = |at: i64| (0..n as i64).map(move |i| at + i * stride);
            positions = positions.into_iter().flat_map(step).collect();
        }
        positions
    }

    /// The bytes of these elements of the view.
    fn ranges(&self, positions: &[i64]) -> Vec<(usize, usize)> {
        let bits = self.kind.bits();
        let range = |&at: &i64| {
            let first = at.max(0) as usize * bits;
            (self.base + first / 8, self.base + (first + bits).div_ceil(8))
        };
        // Rows are mostly without gaps: neighbours are joined before anything is sorted.
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for (from, end) in positions.iter().map(range) {
            match ranges.last_mut() {
                Some(last) if from <= last.1 && from >= last.0 => last.1 = last.1.max(end),
                _ => ranges.push((from, end)),
            }
        }
        merged(ranges)
    }

    /// What an instruction that reads or writes the whole view accesses.
    pub fn access(&self, write: bool) -> Access {
        Access { place: self.place, ranges: self.ranges(&self.positions()), write }
    }

    /// The view with sizes of 1 repeated to `sizes`.
    pub fn spread(&self, sizes: &[usize]) -> Result<View> {
        let mut view = self.clone();
        if view.sizes.len() != sizes.len() {
            return Err(Error::new(format!("{:?} beside {sizes:?}", view.sizes)));
        }
        for ((n, stride), &want) in view.sizes.iter_mut().zip(&mut view.strides).zip(sizes) {
            if *n != want {
                if *n != 1 {
                    return Err(Error::new(format!("{:?} beside {sizes:?}", self.sizes)));
                }
                (*n, *stride) = (want, 0);
            }
        }
        Ok(view)
    }
}

/// All bytes that a program can reach.
pub(crate) struct Memories<'a> {
    /// Buffers in global memory.
    pub global: &'a mut [Vec<u8>],
    local: [Vec<u8>; 5],
}

/// What uninitialised memory is filled with: numbers that a reader would notice.
const UNWRITTEN: u8 = 0xA5;

impl<'a> Memories<'a> {
    pub fn new(target: &Target, global: &'a mut [Vec<u8>]) -> Self {
        let sizes = [target.unified, target.l1, target.l0, target.l0, target.l0c];
        Memories { global, local: sizes.map(|n| vec![UNWRITTEN; n]) }
    }

    fn bytes(&self, (space, buffer): Place) -> &[u8] {
        match space {
            Space::Global => &self.global[buffer],
            Space::Unified => &self.local[0],
            Space::L1 => &self.local[1],
            Space::L0A => &self.local[2],
            Space::L0B => &self.local[3],
            Space::L0C => &self.local[4],
        }
    }

    fn bytes_mut(&mut self, (space, buffer): Place) -> &mut [u8] {
        match space {
            Space::Global => &mut self.global[buffer],
            Space::Unified => &mut self.local[0],
            Space::L1 => &mut self.local[1],
            Space::L0A => &mut self.local[2],
            Space::L0B => &mut self.local[3],
            Space::L0C => &mut self.local[4],
        }
    }

    /// Checks that all elements of a view lie in its memory.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self, view: &View) -> Result<()> {
        if view.elements() == 0 {
            return Ok(());
        }
        let span = |sign: i64| -> i64 {
            let ends = view.sizes.iter().zip(&view.strides).map(|(&n, &s)| (n as i64 - 1) * s);
            ends.filter(|e| e * sign > 0).sum()
        };
        let (first, last) = (view.offset + span(-1), view.offset + span(1));
        let bits = view.kind.bits() as i64;
        let end = view.base as i64 + ((last + 1) * bits + 7) / 8;
        let room = self.bytes(view.place).len();
        if first < 0 || end > room as i64 {
            let memory = view.place.0;
            return Err(Error::new(format!(
                "elements {first} to {last} from byte {} on leave the {room} bytes of {memory:?}",
                view.base
            )));
        }
        Ok(())
    }

    /// The bits of an element.
    pub fn get(&self, view: &View, position: i64) -> u64 {
        let bytes = self.bytes(view.place);
        let bits = view.kind.bits();
        if bits == 1 {
            let byte = bytes[view.base + position as usize / 8];
            return u64::from(byte >> (position % 8) & 1);
        }
        let from = view.base + position as usize * bits / 8;
        let mut word = [0; 8];
        word[..bits / 8].copy_from_slice(&bytes[from..from + bits / 8]);
        u64::from_le_bytes(word)
    }

    /// Writes the bits of an element.
    pub fn put(&mut self, view: &View, position: i64, value: u64) {
        let bits = view.kind.bits();
        let bytes = self.bytes_mut(view.place);
        if bits == 1 {
            let byte = &mut bytes[view.base + position as usize / 8];
            let mask = 1 << (position % 8);
            *byte = if value & 1 == 1 { *byte | mask } else { *byte & !mask };
            return;
        }
        let from = view.base + position as usize * bits / 8;
        bytes[from..from + bits / 8].copy_from_slice(&value.to_le_bytes()[..bits / 8]);
    }

    /// All elements, row-major, as bits.
    pub fn read(&self, view: &View) -> Vec<u64> {
        view.positions().into_iter().map(|at| self.get(view, at)).collect()
    }

    /// Writes all elements, row-major.
    pub fn write(&mut self, view: &View, values: impl IntoIterator<Item = u64>) {
        for (at, value) in view.positions().into_iter().zip(values) {
            self.put(view, at, value);
        }
    }

    /// Writes all elements, row-major, each rounded.
    pub fn write_numbers(&mut self, view: &View, values: impl IntoIterator<Item = f64>) {
        let kind = view.kind;
        self.write(view, values.into_iter().map(|x| number::encode(x, kind)));
    }
}
