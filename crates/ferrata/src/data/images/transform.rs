//! From a picture of any size to the numbers that a model sees.

use super::draws::Draws;
use super::{Picture, RandAugment, Region};

/// Which part of a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// All of it, stretched to the size.
    Stretch,
    /// The middle, after the shorter side has been scaled to the size.
    Center,
    /// A random place of the same, with so many black pixels around it.
    Random {
        /// Pixels on every side.
        padding: usize,
    },
    /// A random part (Szegedy et al. 2014), scaled to the size.
    Resized {
        /// The least and the greatest share of the area.
        scale: [f64; 2],
        /// The least and the greatest width as a multiple of the height.
        ratio: [f64; 2],
    },
}

/// Random changes of colour: factors between `1 - x` and `1 + x`, a turn between `-hue` and `hue`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// Of the brightness.
    pub brightness: f64,
    /// Of the contrast.
    pub contrast: f64,
    /// Of the saturation.
    pub saturation: f64,
    /// Part of the circle of hues, at most one half.
    pub hue: f64,
}

/// What is done to every picture; the random part in training only.
#[derive(Clone, Debug, PartialEq)]
pub struct Transforms {
    /// Height and width of the result in pixels.
    pub size: usize,
    /// Which part of a picture is taken in training.
    pub crop: Crop,
    /// In evaluation: the share of the shorter side of the picture that is seen.
    pub eval_crop: f64,
    /// The probability that left and right are exchanged.
    pub flip: f64,
    /// Random changes of colour.
    pub jitter: Jitter,
    /// More random changes.
    pub rand_augment: Option<RandAugment>,
    /// Subtracted from each channel, whose values go from 0 to 1.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
}

impl Transforms {
    /// The picture as it is seen in training.
    pub(super) fn augmented(&self, picture: &Picture, draws: &mut Draws) -> Picture {
        let mut picture = self.cropped(picture, draws);
        if draws.happens(self.flip) {
            picture.flip();
        }
        let Jitter { brightness, contrast, saturation, hue } = self.jitter;
        let mut around = |x: f64| draws.between((1.0 - x).max(0.0), 1.0 + x);
        if brightness > 0.0 {
            picture.brightness(around(brightness));
        }
        if contrast > 0.0 {
            picture.contrast(around(contrast));
        }
        if saturation > 0.0 {
            picture.saturation(around(saturation));
        }
        if hue > 0.0 {
            picture.hue(draws.between(-hue, hue));
        }
        if let Some(augment) = self.rand_augment {
            augment.apply(&mut picture, draws);
        }
        picture
    }

    /// The picture as it is seen in evaluation.
    pub fn centred(&self, picture: &Picture) -> Picture {
        let region = match self.crop {
            Crop::Stretch => picture.region(),
            _ => square(picture, self.eval_crop),
        };
        picture.resampled(region, self.size, self.size)
    }

    /// Values of a picture as the model sees them: `[3, size, size]`, normalised.
    pub fn normalised(&self, picture: &Picture) -> Vec<f32> {
        let mut values = Vec::with_capacity(picture.pixels.len());
        for (channel, (mean, std)) in self.mean.iter().zip(self.std).enumerate() {
            let bytes = picture.pixels.iter().skip(channel).step_by(3);
            values.extend(bytes.map(|byte| (f32::from(*byte) / 255.0 - mean) / std));
        }
        values
    }

    /// The picture that `values` are the normalised ones of.
    pub fn restored(&self, values: &[f32]) -> Picture {
        let mut picture = Picture::filled(self.size, self.size, [0; 3]);
        let planes = values.chunks_exact(self.size * self.size);
        for (channel, plane) in planes.take(3).enumerate() {
            let bytes = picture.pixels.iter_mut().skip(channel).step_by(3);
            for (byte, value) in bytes.zip(plane) {
                *byte = (255.0 * (value * self.std[channel] + self.mean[channel]) + 0.5) as u8;
            }
        }
        picture
    }

    fn cropped(&self, picture: &Picture, draws: &mut Draws) -> Picture {
        let size = self.size;
        match self.crop {
            Crop::Stretch => picture.resampled(picture.region(), size, size),
            Crop::Center => picture.resampled(square(picture, 1.0), size, size),
            Crop::Random { padding } => {
                let shorter = picture.width.min(picture.height) as f64;
                // In pixels of the result, of which the shorter side has `size`.
                let scale = size as f64 / shorter;
                let spare = |side: usize| (side as f64 * scale).round() as usize - size;
                let place = |spare: usize, draws: &mut Draws| {
                    draws.below(spare + 2 * padding + 1) as f64 - padding as f64
                };
                let (right, down) = (spare(picture.width), spare(picture.height));
                let (left, top) = (place(right, draws), place(down, draws));
                let inner = |at: f64, spare: usize| at.clamp(0.0, spare as f64);
                let region = Region {
                    left: inner(left, right) / scale,
                    top: inner(top, down) / scale,
                    width: shorter,
                    height: shorter,
                };
                let mut result = picture.resampled(region, size, size);
                result.shift(left - inner(left, right), top - inner(top, down));
                result
            }
            Crop::Resized { scale, ratio } => {
                picture.resampled(random_part(picture, scale, ratio, draws), size, size)
            }
        }
    }
}

/// The middle square of which the side is this share of the shorter side.
fn square(picture: &Picture, share: f64) -> Region {
    let (width, height) = (picture.width as f64, picture.height as f64);
    let side = width.min(height) * share;
    let (left, top) = ((width - side) / 2.0, (height - side) / 2.0);
    Region { left, top, width: side, height: side }
}

/// A part with a random share of the area, a random shape and a random place; the middle, should
/// none of ten fit.
fn random_part(picture: &Picture, scale: [f64; 2], ratio: [f64; 2], draws: &mut Draws) -> Region {
    let (width, height) = (picture.width as f64, picture.height as f64);
    for _ in 0..10 {
        let area = draws.between(scale[0], scale[1]) * width * height;
        let shape = draws.between(ratio[0].ln(), ratio[1].ln()).exp();
        let (w, h) = ((area * shape).sqrt(), (area / shape).sqrt());
        if w <= width && h <= height {
            let (left, top) = (draws.between(0.0, width - w), draws.between(0.0, height - h));
            return Region { left, top, width: w, height: h };
        }
    }
    let shape = (width / height).clamp(ratio[0], ratio[1]);
    let (w, h) = (width.min(height * shape), height.min(width / shape));
    Region { left: (width - w) / 2.0, top: (height - h) / 2.0, width: w, height: h }
}

impl Picture {
    /// Exchanges left and right.
    fn flip(&mut self) {
        let width = self.width;
        for row in self.pixels.chunks_exact_mut(3 * width) {
            for x in 0..width / 2 {
                for c in 0..3 {
                    row.swap(3 * x + c, 3 * (width - 1 - x) + c);
                }
            }
        }
    }

    /// What is seen of the picture from so many pixels further right and down; black beyond it.
    fn shift(&mut self, right: f64, down: f64) {
        if (right, down) == (0.0, 0.0) {
            return;
        }
        let source = self.clone();
        let from = |at: usize, by: f64, size: usize| {
            let place = at as f64 + by;
            (place >= 0.0 && place < size as f64).then_some(place as usize)
        };
        for y in 0..self.height {
            for x in 0..self.width {
                let place = from(x, right, self.width).zip(from(y, down, self.height));
                self.set(x, y, place.map_or([0; 3], |(x, y)| source.at(x, y)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(size: usize, crop: Crop) -> Transforms {
        Transforms {
            size,
            crop,
            eval_crop: 1.0,
            flip: 0.0,
            jitter: Jitter::default(),
            rand_augment: None,
            mean: [0.5; 3],
            std: [0.25; 3],
        }
    }

    fn ramp(width: usize, height: usize) -> Picture {
        let mut picture = Picture::filled(width, height, [0; 3]);
        for y in 0..height {
            (0..width).for_each(|x| picture.set(x, y, [(20 + 10 * x) as u8, 10 * y as u8, 99]));
        }
        picture
    }

    #[test]
    fn crops_without_chance() {
        let picture = ramp(8, 4);
        let middle = plain(4, Crop::Center).augmented(&picture, &mut Draws::new(0, 0, 0));
        assert_eq!((middle.at(0, 0), middle.at(3, 3)), (picture.at(2, 0), picture.at(5, 3)));
        assert_eq!(plain(4, Crop::Center).centred(&picture), middle);
        let all = plain(4, Crop::Stretch).centred(&picture);
        assert_eq!((all.width, all.at(0, 1)[1]), (4, 10));
        let close = Transforms { eval_crop: 0.5, ..plain(2, Crop::Center) };
        assert_eq!(close.centred(&picture).at(0, 0), picture.at(3, 1));
    }

    #[test]
    fn random_crops_are_places_of_the_padded_picture() {
        let picture = ramp(6, 6);
        let transforms = plain(6, Crop::Random { padding: 2 });
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..300 {
            let cut = transforms.augmented(&picture, &mut Draws::new(9, 0, index));
            let (x, y) =
                (0..36).map(|i| (i % 6, i / 6)).find(|&(x, y)| cut.at(x, y)[2] == 99).unwrap();
            let [red, green, _] = cut.at(x, y);
            seen.insert((x as i64 - i64::from(red - 20) / 10, y as i64 - i64::from(green) / 10));
        }
        assert_eq!(seen.len(), 25, "every shift of up to two pixels: {seen:?}");
    }

    #[test]
    fn random_parts_lie_inside() {
        let mut draws = Draws::new(3, 0, 0);
        for (width, height) in [(40, 30), (1, 1), (20_000, 1), (3, 500)] {
            let picture = Picture { width, height, pixels: Vec::new() };
            for _ in 0..200 {
                let part = random_part(&picture, [0.08, 1.0], [0.75, 4.0 / 3.0], &mut draws);
                assert!(part.left >= 0.0 && part.top >= 0.0 && part.width > 0.0);
                assert!(part.left + part.width <= width as f64 + 1e-9, "{part:?}");
                assert!(part.top + part.height <= height as f64 + 1e-9, "{part:?}");
                assert!((0.74..1.34).contains(&(part.width / part.height)), "{part:?}");
            }
        }
    }

    #[test]
    fn values_are_normalised_by_channel_and_back() {
        let transforms = plain(4, Crop::Center);
        let picture = ramp(4, 4);
        let values = transforms.normalised(&picture);
        assert_eq!(values.len(), 48);
        assert!((values[1] - (30.0 / 255.0 - 0.5) / 0.25).abs() < 1e-6);
        assert!((values[16 + 4] - (10.0 / 255.0 - 0.5) / 0.25).abs() < 1e-6);
        assert_eq!(transforms.restored(&values), picture);
    }

    #[test]
    fn flips_are_as_frequent_as_asked() {
        let picture = ramp(4, 4);
        let transforms = Transforms { flip: 0.25, ..plain(4, Crop::Center) };
        let flipped = |index| transforms.augmented(&picture, &mut Draws::new(0, 0, index));
        let count = (0..1000).filter(|&i| flipped(i).at(0, 0) == picture.at(3, 0)).count();
        assert!((200..300).contains(&count), "{count}");
    }

    #[test]
    fn jitter_changes_colours_within_bounds() {
        let jitter = Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
        let transforms = Transforms { jitter, ..plain(4, Crop::Center) };
        let dark = Picture::filled(4, 4, [100; 3]);
        let values: Vec<u8> = (0..200)
            .map(|index| transforms.augmented(&dark, &mut Draws::new(0, 0, index)).at(0, 0)[0])
            .collect();
        let (low, high) = (values.iter().min().unwrap(), values.iter().max().unwrap());
        assert!((60..70).contains(low) && (130..=140).contains(high), "{low} {high}");
    }
}
