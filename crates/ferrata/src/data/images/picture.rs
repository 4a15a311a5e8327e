//! Pictures in memory, and their decoding.

use std::io::Cursor;
use std::path::Path;

use ferrata_formats::atomic;

use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits};

use crate::data::error::one_line;
use crate::data::{Error, Result};

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row by row from the top, three bytes for each pixel.
    pub pixels: Vec<u8>,
}

/// Decoders may take this many bytes for each pixel they are allowed, and a little more.
const BYTES_PER_PIXEL: u64 = 16;
const DECODER_BYTES: u64 = 16 << 20;
/// What is behind transparent pixels.
const PAPER: u32 = 255;

impl Picture {
    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Picture {
        Picture { width, height, pixels: colour.repeat(width * height) }
    }

    /// The colour at column `x` of row `y`, which lie inside.
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let place = 3 * (y * self.width + x);
        [self.pixels[place], self.pixels[place + 1], self.pixels[place + 2]]
    }

    /// Sets the colour at column `x` of row `y`, which lie inside.
    pub fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        let place = 3 * (y * self.width + x);
        self.pixels[place..place + 3].copy_from_slice(&colour);
    }

    /// Decodes a PNG, JPEG, GIF, BMP or WebP file of at most `max_pixels` pixels; the content says
    /// which of them it is, not the name.
    ///
    /// Samples of 16 bits are rounded to 8, palettes and grey are expanded, CMYK becomes RGB,
    /// transparent pixels lie on white, of an animation the first frame is taken, and a picture
    /// that its EXIF data declares turned is turned.
    ///
    /// # Errors
    /// What is wrong, in words: no known format, damaged, truncated, too large, without pixels.
    pub fn decode(bytes: &[u8], max_pixels: u64) -> std::result::Result<Picture, String> {
        Picture::decode_any(bytes, max_pixels).map_err(|what| one_line(what).trim().to_owned())
    }

    fn decode_any(bytes: &[u8], max_pixels: u64) -> std::result::Result<Picture, String> {
        if bytes.is_empty() {
            return Err("the file is empty".into());
        }
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| error.to_string())?;
        let Some(format) = reader.format() else {
            return Err("it is no PNG, JPEG, GIF, BMP or WebP".into());
        };
        reader.no_limits();
        let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(format!("it has {width} x {height} pixels"));
        }
        if pixels > max_pixels {
            return Err(format!(
                "it has {width} x {height} pixels and {max_pixels} are allowed (data.max_pixels)"
            ));
        }
        if format == image::ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
            // The decoder would fill up what is missing.
            return Err("it is truncated: the JPEG has no end".into());
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(DECODER_BYTES + BYTES_PER_PIXEL * pixels);
        decoder.set_limits(limits).map_err(|error| error.to_string())?;
        let turned = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
        decoded.apply_orientation(turned);
        Ok(Picture::from_decoded(decoded))
    }

    fn from_decoded(decoded: DynamicImage) -> Picture {
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        if !decoded.color().has_alpha() {
            return Picture { width, height, pixels: decoded.into_rgb8().into_raw() };
        }
        let mut pixels = Vec::with_capacity(3 * width * height);
        for pixel in decoded.into_rgba8().into_raw().chunks_exact(4) {
            let alpha = u32::from(pixel[3]);
            pixels.extend(pixel[..3].iter().map(|&value| {
                ((u32::from(value) * alpha + PAPER * (255 - alpha) + 127) / 255) as u8
            }));
        }
        Picture { width, height, pixels }
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`Error::Dataset`] if the pixels are not as many as the size says, or there are none.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        if self.pixels.len() != 3 * self.width * self.height || self.pixels.is_empty() {
            let (width, height) = (self.width, self.height);
            return Err(Error::Dataset(format!("no picture has {width} x {height} pixels")));
        }
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        let (width, height) = (self.width as u32, self.height as u32);
        encoder
            .write_image(&self.pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|error| Error::Dataset(format!("a PNG cannot be made: {error}")))?;
        Ok(bytes)
    }

    /// Writes a PNG file, which appears whole.
    ///
    /// # Errors
    /// [`crate::data::Error::Formats`] if it cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<()> {
        Ok(atomic::write_bytes(path, &self.to_png()?)?)
    }

    /// Pictures of one size side by side in rows of `columns`, a pixel apart.
    ///
    /// # Errors
    /// [`Error::Dataset`] if there are none or their sizes differ.
    pub fn grid(pictures: &[Picture], columns: usize) -> Result<Picture> {
        let Some(first) = pictures.first() else {
            return Err(Error::Dataset("a grid needs at least one picture".into()));
        };
        let (width, height) = (first.width, first.height);
        if pictures.iter().any(|p| (p.width, p.height) != (width, height)) {
            return Err(Error::Dataset("the pictures of a grid must have one size".into()));
        }
        let columns = columns.clamp(1, pictures.len());
        let rows = pictures.len().div_ceil(columns);
        let size = |count: usize, each: usize| count * (each + 1) - 1;
        let mut grid = Picture::filled(size(columns, width), size(rows, height), [255; 3]);
        for (number, picture) in pictures.iter().enumerate() {
            let (left, top) = (number % columns * (width + 1), number / columns * (height + 1));
            for (y, row) in picture.pixels.chunks_exact(3 * width).enumerate() {
                let start = 3 * ((top + y) * grid.width + left);
                grid.pixels[start..start + row.len()].copy_from_slice(row);
            }
        }
        Ok(grid)
    }
}

/// Whether the marker of the end follows the beginning of the pixels of a JPEG. Behind that, 0xFF
/// is followed by 0xD9 nowhere else.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut place = 2;
    while let Some(&[first, marker, high, low]) = bytes.get(place..place + 4) {
        match (first, marker) {
            (0xff, 0xff) => place += 1,
            (0xff, START_OF_SCAN) => {
                return bytes[place..].windows(2).any(|pair| pair == [0xff, 0xd9]);
            }
            (0xff, _) => place += 2 + usize::from(u16::from_be_bytes([high, low])),
            // Not the order that this function knows: the decoder is to judge.
            _ => return true,
        }
    }
    false
}
