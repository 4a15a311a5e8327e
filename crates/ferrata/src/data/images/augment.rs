//! RandAugment (Cubuk et al. 2020): a few random operations of one strength.

use super::Picture;
use super::draws::Draws;

/// How much is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// Operations one after the other.
    pub operations: usize,
    /// From 0, nothing, to [`RandAugment::STRONGEST`].
    pub magnitude: f64,
}

/// The operations, all equally likely.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

use Operation::*;

const OPERATIONS: [Operation; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

impl RandAugment {
    /// The largest magnitude.
    pub const STRONGEST: f64 = 30.0;

    pub(super) fn apply(&self, picture: &mut Picture, draws: &mut Draws) {
        for _ in 0..self.operations {
            let operation = OPERATIONS[draws.below(OPERATIONS.len())];
            let sign = if draws.happens(0.5) { -1.0 } else { 1.0 };
            operation.apply(picture, self.magnitude / RandAugment::STRONGEST, sign);
        }
    }
}

impl Operation {
    /// `strength` is 0 to 1, `sign` a direction for those that have one.
    fn apply(self, picture: &mut Picture, strength: f64, sign: f64) {
        let (width, height) = (picture.width as f64, picture.height as f64);
        let shear = sign * 0.3 * strength;
        let factor = 1.0 + sign * 0.9 * strength;
        match self {
            Identity => {}
            ShearX => picture.turned([1.0, shear, 0.0, 1.0], [0.0, 0.0]),
            ShearY => picture.turned([1.0, 0.0, shear, 1.0], [0.0, 0.0]),
            TranslateX => {
                let shift = sign * strength * width * 150.0 / 331.0;
                picture.turned([1.0, 0.0, 0.0, 1.0], [shift, 0.0]);
            }
            TranslateY => {
                let shift = sign * strength * height * 150.0 / 331.0;
                picture.turned([1.0, 0.0, 0.0, 1.0], [0.0, shift]);
            }
            Rotate => {
                let (sin, cos) = (sign * 30f64.to_radians() * strength).sin_cos();
                picture.turned([cos, -sin, sin, cos], [0.0, 0.0]);
            }
            Brightness => picture.brightness(factor),
            Saturation => picture.saturation(factor),
            Contrast => picture.contrast(factor),
            Sharpness => picture.sharpness(factor),
            Posterize => picture.posterize(8 - (4.0 * strength).round() as u32),
            Solarize => picture.solarize(255.0 * (1.0 - strength) + 0.5),
            AutoContrast => picture.autocontrast(),
            Equalize => picture.equalize(),
        }
    }
}

impl Picture {
    /// The picture whose point `p`, seen from the centre, is at `matrix p + shift` of this one,
    /// between pixels by bilinear interpolation; black where that lies outside.
    fn turned(&mut self, [a, b, c, d]: [f64; 4], shift: [f64; 2]) {
        let source = self.clone();
        let (mid_x, mid_y) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
        for y in 0..self.height {
            for x in 0..self.width {
                let (u, v) = (x as f64 + 0.5 - mid_x, y as f64 + 0.5 - mid_y);
                let from_x = a * u + b * v + shift[0] + mid_x - 0.5;
                let from_y = c * u + d * v + shift[1] + mid_y - 0.5;
                self.set(x, y, source.between_pixels(from_x, from_y));
            }
        }
    }

    fn between_pixels(&self, x: f64, y: f64) -> [u8; 3] {
        let (left, top) = (x.floor(), y.floor());
        let (right_share, low_share) = (x - left, y - top);
        let mut sum = [0f64; 3];
        for (i, j) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let (x, y) = (left + i, top + j);
            let inside = x >= 0.0 && y >= 0.0 && x < self.width as f64 && y < self.height as f64;
            let across = if i > 0.0 { right_share } else { 1.0 - right_share };
            let down = if j > 0.0 { low_share } else { 1.0 - low_share };
            if inside {
                let colour = self.at(x as usize, y as usize);
                sum.iter_mut().zip(colour).for_each(|(s, v)| *s += across * down * f64::from(v));
            }
        }
        sum.map(|value| (value + 0.5) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let mut picture = Picture::filled(8, 8, [40, 90, 200]);
        picture.set(2, 3, [250, 10, 10]);
        picture
    }

    #[test]
    fn strength_zero_changes_nothing_but_the_range_of_colours() {
        for operation in OPERATIONS {
            let mut changed = picture();
            operation.apply(&mut changed, 0.0, -1.0);
            let ranges = [AutoContrast, Equalize].contains(&operation);
            assert!(ranges || changed == picture(), "{operation:?}");
        }
    }

    #[test]
    fn pictures_move() {
        let mut moved = picture();
        moved.turned([1.0, 0.0, 0.0, 1.0], [1.0, -2.0]);
        assert_eq!(moved.at(1, 5), [250, 10, 10]);
        assert_eq!(moved.at(7, 3), [0; 3], "beyond the edge it is black");
        let mut turned = picture();
        turned.turned([0.0, 1.0, -1.0, 0.0], [0.0, 0.0]);
        assert_eq!(turned.at(4, 2), [250, 10, 10], "a quarter of a circle");
    }

    #[test]
    fn every_operation_does_something_and_none_fails() {
        for operation in OPERATIONS {
            let mut changed = picture();
            operation.apply(&mut changed, 1.0, 1.0);
            assert!(operation == Identity || changed != picture(), "{operation:?}");
            let mut dot = Picture::filled(1, 1, [1, 2, 3]);
            operation.apply(&mut dot, 1.0, -1.0);
        }
        let augment = RandAugment { operations: 2, magnitude: 9.0 };
        let run = |index| {
            let mut changed = picture();
            augment.apply(&mut changed, &mut Draws::new(0, 0, index));
            changed
        };
        assert_eq!(run(5), run(5));
        assert!((0..10).any(|index| run(index) != run(5)));
    }
}
