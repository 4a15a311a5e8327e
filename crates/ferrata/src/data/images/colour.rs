//! Changes of colour.

use super::Picture;

/// Luma of an RGB pixel, 0 to 255.
fn luma(pixel: &[u8]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

fn byte(value: f32) -> u8 {
    // The cast saturates.
    (value + 0.5) as u8
}

impl Picture {
    /// Between `from` (`factor` 0) and this picture (1), and beyond it.
    fn blended(&mut self, factor: f64, from: impl Fn(&[u8]) -> [f32; 3]) {
        let factor = factor as f32;
        for pixel in self.pixels.chunks_exact_mut(3) {
            let other = from(pixel);
            for (value, other) in pixel.iter_mut().zip(other) {
                *value = byte(other + factor * (f32::from(*value) - other));
            }
        }
    }

    /// Times `factor`.
    pub(super) fn brightness(&mut self, factor: f64) {
        self.blended(factor, |_| [0.0; 3]);
    }

    /// Distances from the mean luma times `factor`.
    pub(super) fn contrast(&mut self, factor: f64) {
        let sum: f64 = self.pixels.chunks_exact(3).map(|pixel| f64::from(luma(pixel))).sum();
        let mean = (sum / (self.width * self.height) as f64).round() as f32;
        self.blended(factor, |_| [mean; 3]);
    }

    /// Distances from grey times `factor`.
    pub(super) fn saturation(&mut self, factor: f64) {
        self.blended(factor, |pixel| [luma(pixel).round(); 3]);
    }

    /// Hues turned by `turn` of a whole circle.
    pub(super) fn hue(&mut self, turn: f64) {
        for pixel in self.pixels.chunks_exact_mut(3) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
            let (high, low) = (r.max(g).max(b), r.min(g).min(b));
            let spread = high - low;
            if spread == 0.0 {
                continue;
            }
            let sixth = if high == r {
                (g - b) / spread
            } else if high == g {
                2.0 + (b - r) / spread
            } else {
                4.0 + (r - g) / spread
            };
            let sixth = (sixth + 6.0 * turn as f32).rem_euclid(6.0);
            for (value, offset) in pixel.iter_mut().zip([5.0, 3.0, 1.0]) {
                let k = (offset + sixth).rem_euclid(6.0);
                *value = byte(high - spread * k.min(4.0 - k).clamp(0.0, 1.0));
            }
        }
    }

    /// Distances from a smoothed picture times `factor`; edges stay.
    pub(super) fn sharpness(&mut self, factor: f64) {
        let source = self.clone();
        let factor = factor as f32;
        for y in 1..self.height.saturating_sub(1) {
            for x in 1..self.width.saturating_sub(1) {
                let centre = source.at(x, y);
                let mut sum = centre.map(|value| 4.0 * f32::from(value));
                for (i, j) in (0..3).flat_map(|j| (0..3).map(move |i| (i, j))) {
                    let near = source.at(x + i - 1, y + j - 1);
                    sum.iter_mut().zip(near).for_each(|(sum, value)| *sum += f32::from(value));
                }
                let sharp = [0, 1, 2].map(|c| {
                    let smooth = sum[c] / 13.0;
                    byte(smooth + factor * (f32::from(centre[c]) - smooth))
                });
                self.set(x, y, sharp);
            }
        }
    }

    /// Only the upper `bits` bits of every value.
    pub(super) fn posterize(&mut self, bits: u32) {
        let mask = !(0xffu32 >> bits.min(8)) as u8;
        self.pixels.iter_mut().for_each(|value| *value &= mask);
    }

    /// Values of at least `threshold` inverted.
    pub(super) fn solarize(&mut self, threshold: f64) {
        for value in &mut self.pixels {
            *value = if f64::from(*value) >= threshold { 255 - *value } else { *value };
        }
    }

    /// Every channel stretched to the whole range.
    pub(super) fn autocontrast(&mut self) {
        for channel in 0..3 {
            let values = || self.pixels.iter().skip(channel).step_by(3).copied();
            let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
            if high > low {
                let scale = 255.0 / f32::from(high - low);
                for value in self.pixels.iter_mut().skip(channel).step_by(3) {
                    *value = byte(f32::from(*value - low) * scale);
                }
            }
        }
    }

    /// Every channel's values spread so that all are about equally frequent.
    pub(super) fn equalize(&mut self) {
        for channel in 0..3 {
            let mut counts = [0usize; 256];
            for value in self.pixels.iter().skip(channel).step_by(3) {
                counts[usize::from(*value)] += 1;
            }
            // The lowest value becomes 0, the highest 255.
            let lowest = counts.iter().find(|count| **count > 0).copied().unwrap_or(0);
            let spread = self.width * self.height - lowest;
            if spread == 0 {
                continue;
            }
            let mut table = [0u8; 256];
            let mut sum = 0;
            for (entry, count) in table.iter_mut().zip(counts) {
                sum += count;
                *entry = byte(255.0 * sum.saturating_sub(lowest) as f32 / spread as f32);
            }
            for value in self.pixels.iter_mut().skip(channel).step_by(3) {
                *value = table[usize::from(*value)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(colour: [u8; 3], change: impl Fn(&mut Picture)) -> [u8; 3] {
        let mut picture = Picture::filled(2, 2, colour);
        change(&mut picture);
        picture.at(1, 1)
    }

    #[test]
    fn colours_change_as_they_should() {
        assert_eq!(one([100, 50, 200], |p| p.brightness(1.5)), [150, 75, 255]);
        assert_eq!(one([100, 50, 200], |p| p.saturation(0.0)), [82; 3]);
        assert_eq!(one([100, 50, 200], |p| p.saturation(1.0)), [100, 50, 200]);
        assert_eq!(one([100, 50, 200], |p| p.contrast(0.0)), [82; 3]);
        assert_eq!(one([200, 100, 100], |p| p.hue(1.0 / 3.0)), [100, 200, 100]);
        assert_eq!(one([200, 100, 50], |p| p.hue(1.0)), [200, 100, 50]);
        assert_eq!(one([200, 100, 50], |p| p.hue(-0.5)), [50, 150, 200]);
        assert_eq!(one([255, 129, 127], |p| p.posterize(1)), [128, 128, 0]);
        assert_eq!(one([255, 129, 127], |p| p.posterize(8)), [255, 129, 127]);
        assert_eq!(one([255, 129, 127], |p| p.solarize(128.0)), [0, 126, 127]);
        assert_eq!(one([9, 9, 9], |p| p.sharpness(2.0)), [9; 3]);
    }

    #[test]
    fn ranges_are_spread() {
        let mut picture = Picture::filled(16, 16, [0; 3]);
        (0..256).for_each(|i| picture.set(i % 16, i / 16, [(50 + i / 4) as u8; 3]));
        let mut stretched = picture.clone();
        stretched.autocontrast();
        assert_eq!((stretched.at(0, 0), stretched.at(15, 15)), ([0; 3], [255; 3]));
        picture.equalize();
        assert!(picture.at(0, 0)[0] < 5 && picture.at(15, 15)[0] > 245);
    }
}
