//! Another size for a part of a picture.

use super::Picture;

/// A part of a picture, in pixels; it need not lie on whole ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Distance of the left edge from that of the picture.
    pub left: f64,
    /// Distance of the upper edge from that of the picture.
    pub top: f64,
    /// Positive.
    pub width: f64,
    /// Positive.
    pub height: f64,
}

/// What one row or column of the result takes from which of the source.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// Triangle filter of the width of an output pixel, at least of an input pixel: bilinear, and
/// without aliasing where the picture shrinks.
fn taps(start: f64, length: f64, source: usize, target: usize) -> Vec<Taps> {
    let scale = length / target as f64;
    let support = scale.max(1.0);
    let one = |i: usize| {
        let centre = start + (i as f64 + 0.5) * scale;
        let last = source.saturating_sub(1);
        let first = ((centre - support).floor().max(0.0) as usize).min(last);
        let end = ((centre + support).ceil().max(1.0) as usize).clamp(first + 1, source);
        let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - centre) / support).abs()).max(0.0);
        let mut weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        match sum > 0.0 {
            true => weights.iter_mut().for_each(|w| *w /= sum),
            false => weights[0] = 1.0,
        }
        Taps { first, weights: weights.into_iter().map(|w| w as f32).collect() }
    };
    (0..target).map(one).collect()
}

impl Picture {
    /// The pixels of `region` as a picture of `width` x `height` pixels. Beyond the edges of the
    /// picture its nearest pixels count.
    pub fn resampled(&self, region: Region, width: usize, height: usize) -> Picture {
        let columns = taps(region.left, region.width, self.width, width);
        let rows = taps(region.top, region.height, self.height, height);
        let first = rows.iter().map(|taps| taps.first).min().unwrap_or_default();
        let end = rows.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or_default();
        // Only the rows that are needed, in the new width.
        let mut narrow = vec![0f32; (end - first) * 3 * width];
        let source = self.pixels.chunks_exact(3 * self.width).skip(first);
        for (row, out) in source.zip(narrow.chunks_exact_mut(3 * width)) {
            for (taps, out) in columns.iter().zip(out.chunks_exact_mut(3)) {
                let inputs = row[3 * taps.first..].chunks_exact(3);
                let mut sum = [0f32; 3];
                for (weight, pixel) in taps.weights.iter().zip(inputs) {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += weight * f32::from(*value);
                    }
                }
                out.copy_from_slice(&sum);
            }
        }
        let mut pixels = Vec::with_capacity(3 * width * height);
        let mut sums = vec![0f32; 3 * width];
        for taps in &rows {
            sums.fill(0.0);
            let inputs = narrow[3 * width * (taps.first - first)..].chunks_exact(3 * width);
            for (weight, row) in taps.weights.iter().zip(inputs) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            }
            pixels.extend(sums.iter().map(|sum| (sum + 0.5) as u8));
        }
        Picture { width, height, pixels }
    }

    /// The whole picture.
    pub fn region(&self) -> Region {
        Region { left: 0.0, top: 0.0, width: self.width as f64, height: self.height as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Picture {
        let mut picture = Picture::filled(width, height, [0; 3]);
        for y in 0..height {
            for x in 0..width {
                picture.set(x, y, [(x * 10) as u8, (y * 10) as u8, ((x + y) % 2 * 200) as u8]);
            }
        }
        picture
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let picture = ramp(9, 5);
        assert_eq!(picture.resampled(picture.region(), 9, 5), picture);
    }

    #[test]
    fn shrinking_averages() {
        // By a factor of two the filter is (1 3 3 1) / 8.
        let small = ramp(16, 16).resampled(ramp(16, 16).region(), 8, 8);
        assert_eq!(small.at(3, 4), [65, 85, 100], "a checkerboard becomes its mean");
        let one = ramp(16, 16).resampled(ramp(16, 16).region(), 1, 1);
        assert_eq!(one.at(0, 0), [75, 75, 100]);
    }

    #[test]
    fn regions_are_cut_out() {
        let picture = ramp(12, 12);
        let region = Region { left: 3.0, top: 5.0, width: 4.0, height: 2.0 };
        let part = picture.resampled(region, 4, 2);
        assert_eq!((part.at(0, 0), part.at(3, 1)), (picture.at(3, 5), picture.at(6, 6)));
        let wide = picture.resampled(Region { left: -4.0, width: 4.0, ..region }, 2, 2);
        assert_eq!(wide.at(0, 0)[0], 0, "beyond the edge the nearest pixel counts");
    }

    #[test]
    fn extreme_shapes_stay_in_bounds() {
        for (width, height) in [(1, 1), (20_000, 1), (1, 20_000)] {
            let picture = Picture::filled(width, height, [7, 8, 9]);
            let small = picture.resampled(picture.region(), 5, 3);
            assert_eq!(small, Picture::filled(5, 3, [7, 8, 9]));
        }
    }
}
