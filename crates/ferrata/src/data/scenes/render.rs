//! The picture of a scene.

use super::{Object, Scene, Texture};
use crate::data::images::Picture;

/// Samples in each direction of a pixel.
const SAMPLES: usize = 4;
/// The width of stripes and of the fields of a chessboard, in parts of the side.
const BAND: f64 = 1.0 / 16.0;
/// How much of the colour the darker bands have.
const SHADE: f64 = 0.5;

impl Texture {
    /// Whether the darker colour is at a place, in parts of the side from the centre.
    fn is_dark(self, x: f64, y: f64) -> bool {
        // A band lies across the centre.
        let band = |at: f64| (at / BAND + 0.5).floor() as i64;
        match self {
            Texture::Plain => false,
            Texture::Striped => band(y) % 2 != 0,
            Texture::Checkered => (band(x) + band(y)) % 2 != 0,
        }
    }
}

/// How much of a pixel an object covers, and how much of it with its darker colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cover {
    pub(super) all: f64,
    pub(super) dark: f64,
}

impl Object {
    /// What of the pixel `x`, `y` of a picture of `side` pixels the object covers.
    pub(super) fn cover(&self, x: usize, y: usize, side: f64) -> Cover {
        let far = |at: usize, axis: usize| ((at as f64 + 0.5) / side - self.centre[axis]).powi(2);
        // Half the diagonal of a pixel.
        let half = std::f64::consts::FRAC_1_SQRT_2 / side;
        let distance = (far(x, 0) + far(y, 1)).sqrt();
        if distance > self.shape.reach() * self.scale + half {
            return Cover { all: 0.0, dark: 0.0 };
        }
        if self.texture == Texture::Plain && distance < self.shape.core() * self.scale - half {
            return Cover { all: 1.0, dark: 0.0 };
        }
        let (mut all, mut dark) = (0, 0);
        for (i, j) in (0..SAMPLES).flat_map(|j| (0..SAMPLES).map(move |i| (i, j))) {
            let place = |pixel: usize, sample: usize| {
                (pixel as f64 + (sample as f64 + 0.5) / SAMPLES as f64) / side
            };
            let (u, v) = (place(x, i) - self.centre[0], place(y, j) - self.centre[1]);
            if self.shape.contains(u / self.scale, v / self.scale) {
                all += 1;
                dark += usize::from(self.texture.is_dark(u, v));
            }
        }
        let share = |count: usize| count as f64 / (SAMPLES * SAMPLES) as f64;
        Cover { all: share(all), dark: share(dark) }
    }

    /// The pixels that the object may cover: first and end of columns and rows.
    pub(super) fn window(&self, side: usize) -> [[usize; 2]; 2] {
        let reach = self.shape.reach() * self.scale;
        self.centre.map(|at| {
            let pixel = |at: f64| (at * side as f64).floor().clamp(0.0, side as f64) as usize;
            [pixel(at - reach), (pixel(at + reach) + 1).min(side)]
        })
    }
}

impl Scene {
    /// The picture, `side` pixels wide and high.
    pub fn render(&self, side: usize) -> Picture {
        let paper = self.paper.map(|value| value.round() as u8);
        let mut picture = Picture::filled(side, side, paper);
        for object in &self.objects {
            let [[left, right], [top, bottom]] = object.window(side);
            for (x, y) in (top..bottom).flat_map(|y| (left..right).map(move |x| (x, y))) {
                let Cover { all, dark } = object.cover(x, y, side as f64);
                if all > 0.0 {
                    let light = all - (1.0 - SHADE) * dark;
                    let below = picture.at(x, y);
                    let colour = [0, 1, 2].map(|c| {
                        let value = light * object.paint[c] + (1.0 - all) * f64::from(below[c]);
                        value.round() as u8
                    });
                    picture.set(x, y, colour);
                }
            }
        }
        picture
    }
}
