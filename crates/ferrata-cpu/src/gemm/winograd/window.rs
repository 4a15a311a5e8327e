//! Products that are convolutions of 3 × 3 taps, and the squares of 4 × 4 pixels that they are cut
//! into, each the source of 2 × 2 pixels of the result.

use std::ops::Range;

use super::transform::UNIT;
use crate::gemm::packed::share;
use crate::steps::Steps;

/// Channels and outputs, at least: fewer do not pay for the transforms.
const LEAST: usize = 32;
/// Squares, at least: fewer do not pay for the transform of the weights.
const LEAST_TILES: usize = 64;

/// A window of 3 × 3 taps that steps over images by single pixels, and the squares it is cut into.
#[derive(Clone, Copy)]
pub struct Window {
    pub images: usize,
    /// Rows and columns of pixels of the result.
    pub size: [usize; 2],
    pub channels: usize,
    /// Elements from one image, row and column to the next.
    pub strides: [isize; 3],
}

impl Window {
    /// Of where pixels lie, and where taps and channels do.
    pub fn of(pixels: &Steps, taps: &Steps) -> Option<Window> {
        let (images, rows, columns) = match *pixels.dims() {
            [images, rows, columns] => (images, rows, columns),
            [rows, columns] => ((1, 0), rows, columns),
            _ => return None,
        };
        let (down, across, channels) = match *taps.dims() {
            [(3, down), (3, across), (channels, 1)] => (down, across, channels),
            [(3, down), (all, 1)] if all % 3 == 0 => (down, (all / 3) as isize, all / 3),
            _ => return None,
        };
        let window = Window {
            images: images.0,
            size: [rows.0, columns.0],
            channels,
            strides: [images.1, rows.1, columns.1],
        };
        let pays = window.lines() * window.across() >= LEAST_TILES;
        (pays && worthwhile(channels) && [down, across] == [rows.1, columns.1]).then_some(window)
    }

    /// Lines of squares in an image.
    pub fn lines_of_image(&self) -> usize {
        self.size[0].div_ceil(2)
    }

    pub fn lines(&self) -> usize {
        self.images * self.lines_of_image()
    }

    /// Squares in a line.
    pub fn across(&self) -> usize {
        self.size[1].div_ceil(2)
    }

    /// Image, row and column of the first pixel of a square, lines being counted over all images.
    pub fn corner(&self, line: usize, across: usize) -> [usize; 3] {
        [line / self.lines_of_image(), 2 * (line % self.lines_of_image()), 2 * across]
    }

    /// The pixels of some lines of squares; they are one range if the lines are of one image, or of
    /// whole images.
    pub fn pixels(&self, lines: &Range<usize>) -> Range<usize> {
        let (of_image, [rows, columns]) = (self.lines_of_image(), self.size);
        let at =
            |line: usize| (line / of_image * rows + (2 * (line % of_image)).min(rows)) * columns;
        at(lines.start)..at(lines.end)
    }

    /// Lines cut into blocks of about `tiles` squares, each in one image or of whole images.
    pub fn blocks(&self, tiles: usize) -> Blocks {
        let (of_image, lines) = (self.lines_of_image(), tiles / self.across());
        let parts = of_image.div_ceil(lines.max(1));
        let blocks = if parts > 1 {
            self.images * parts
        } else {
            self.images.div_ceil((lines / of_image).max(1))
        };
        Blocks { images: self.images, of_image, parts, blocks }
    }
}

/// Whether so many channels or outputs pay for the transforms.
pub fn worthwhile(channels: usize) -> bool {
    channels >= LEAST && channels.is_multiple_of(UNIT)
}

/// Blocks of lines of squares.
pub struct Blocks {
    pub images: usize,
    pub of_image: usize,
    /// Blocks of an image, if it has several.
    pub parts: usize,
    pub blocks: usize,
}

impl Blocks {
    pub fn lines(&self, block: usize) -> Range<usize> {
        if self.parts > 1 {
            let lines = share(&(0..self.of_image), self.parts, 1, block % self.parts);
            let first = block / self.parts * self.of_image;
            return first + lines.start..first + lines.end;
        }
        let images = share(&(0..self.images), self.blocks, 1, block);
        images.start * self.of_image..images.end * self.of_image
    }

    /// Lines of the largest block.
    pub fn most(&self) -> usize {
        if self.parts > 1 {
            self.of_image.div_ceil(self.parts)
        } else {
            self.images.div_ceil(self.blocks) * self.of_image
        }
    }
}

/// The strides over images, rows and columns of pixels that lie as `steps` says.
pub fn pixel_strides(steps: &Steps, window: &Window) -> Option<[isize; 3]> {
    let (images, [rows, columns]) = (window.images, window.size);
    match *steps.dims() {
        [(_, stride)] => {
            Some([(rows * columns) as isize * stride, columns as isize * stride, stride])
        }
        [a, b, c] if [a.0, b.0, c.0] == [images, rows, columns] => Some([a.1, b.1, c.1]),
        [b, c] if images == 1 && [b.0, c.0] == [rows, columns] => Some([0, b.1, c.1]),
        _ => None,
    }
}
