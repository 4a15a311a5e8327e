//! What is seen in a picture: from pixels alone.

use super::render::Cover;
use super::{Background, Colour, Object, Place, Shape, Size, Texture};
use crate::data::images::Picture;

/// What is seen in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What is behind all; `None` if it is none of the known backgrounds.
    pub background: Option<Background>,
    /// The objects, from left to right and top to bottom by their first pixel.
    pub objects: Vec<SeenObject>,
}

/// An object as it is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeenObject {
    /// The likeliest shape; `None` if it is like none.
    pub shape: Option<Shape>,
    /// The nearest colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// What covers it.
    pub texture: Texture,
    /// Its centre, from the left and from the top, in parts of the side.
    pub centre: [f64; 2],
}

/// A background may be so far from what it is called, 0 to 255.
const BACKGROUND: f64 = 40.0;
/// Pixels that differ from the background by more than this belong to objects; a distance of RGB.
const DIFFERENT: f64 = 45.0;
/// Objects smaller than this are noise, in parts of the area of the picture.
const SPECK: f64 = 0.006;
/// A shape may leave so much of what is seen unexplained.
const UNLIKE: f64 = 0.12;
/// Bands whose colours differ by less than this part are no texture.
const CONTRAST: f64 = 0.2;
/// A texture has to leave less unexplained than none, by this factor.
const BETTER: f64 = 0.7;
/// So many pixels around an object are to be explained too.
const RING: usize = 2;
/// So many of the likeliest shapes are tried with textures.
const OUTLINES: usize = 3;
/// Steps of fitting, in pixels and in parts of the scale.
const STEPS: [f64; 3] = [0.5, 0.2, 0.08];

/// Sees what is in a picture that is about square: the background from the edge, objects as
/// connected pixels that differ from it, and of each object the shape, texture and colour that
/// explain its pixels best.
pub fn look(picture: &Picture) -> Seen {
    let paper = edge_colour(picture);
    let scene = Canvas::new(picture, paper);
    let level = paper.iter().sum::<f64>() / 3.0;
    let distance = |background: &Background| (background.level() - level).abs();
    let spread = paper.iter().map(|value| (value - level).abs()).fold(0.0, f64::max);
    let nearest = Background::ALL.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let near = |background: &&Background| distance(background).max(spread) < BACKGROUND;
    let objects = scene.parts().iter().filter_map(|part| scene.object(part)).collect();
    Seen { background: nearest.filter(near).copied(), objects }
}

/// The median of each channel along the edges.
fn edge_colour(picture: &Picture) -> [f64; 3] {
    let (width, height) = (picture.width, picture.height);
    let places = (0..width).flat_map(|x| [(x, 0), (x, height - 1)]);
    let places: Vec<_> = places.chain((0..height).flat_map(|y| [(0, y), (width - 1, y)])).collect();
    [0, 1, 2].map(|channel| {
        let values = places.iter().map(|(x, y)| f64::from(picture.at(*x, *y)[channel]));
        median(values.collect())
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A picture seen against its background.
struct Canvas<'a> {
    picture: &'a Picture,
    paper: [f64; 3],
    /// The distance of every pixel from the background, row by row.
    distance: Vec<f64>,
    /// The square of the distance that is usual within the background.
    noise: f64,
}

/// A pixel.
type Spot = (usize, usize);

impl<'a> Canvas<'a> {
    fn new(picture: &'a Picture, paper: [f64; 3]) -> Canvas<'a> {
        let distance = picture.pixels.chunks_exact(3).map(|pixel| {
            let square = |c: usize| (f64::from(pixel[c]) - paper[c]).powi(2);
            (square(0) + square(1) + square(2)).sqrt()
        });
        let distance: Vec<f64> = distance.collect();
        let behind = distance.iter().filter(|distance| **distance <= DIFFERENT);
        let noise = median(behind.map(|distance| distance * distance).collect());
        Canvas { picture, paper, distance, noise }
    }

    /// A pixel and those at most `reach` rows and columns away.
    fn around(&self, (x, y): Spot, reach: usize) -> impl Iterator<Item = Spot> + use<> {
        let range = |at: usize, size: usize| at.saturating_sub(reach)..(at + reach + 1).min(size);
        let (columns, rows) = (range(x, self.picture.width), range(y, self.picture.height));
        rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
    }

    /// Pixels that differ from the background and are connected along edges, without specks.
    fn parts(&self) -> Vec<Vec<Spot>> {
        let (width, height) = (self.picture.width, self.picture.height);
        let mut free: Vec<bool> = self.distance.iter().map(|d| *d > DIFFERENT).collect();
        let mut parts = Vec::new();
        for start in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let mut part = Vec::new();
            let mut found = vec![start];
            while let Some((x, y)) = found.pop() {
                if std::mem::take(&mut free[y * width + x]) {
                    part.push((x, y));
                    found.extend(self.around((x, y), 1).filter(|(i, j)| *i == x || *j == y));
                }
            }
            if part.len() as f64 > SPECK * (width * height) as f64 {
                parts.push(part);
            }
        }
        parts
    }

    /// What a part shows.
    fn object(&self, part: &[Spot]) -> Option<SeenObject> {
        let side = ((self.picture.width * self.picture.height) as f64).sqrt();
        let target = Target::new(self, part, side);
        let area = part.len() as f64 / (side * side);
        let mean = |at: fn(&Spot) -> usize| {
            part.iter().map(|spot| at(spot) as f64 + 0.5).sum::<f64>() / part.len() as f64 / side
        };
        let centre = [mean(|spot| spot.0), mean(|spot| spot.1)];
        let plain = |shape: &Shape| {
            let scale = (area / shape.area()).sqrt();
            let model =
                Object { shape: *shape, texture: Texture::Plain, paint: [0.0; 3], centre, scale };
            target.improved(target.fit(model))
        };
        let mut plain: Vec<Fit> = Shape::ALL.iter().map(plain).collect();
        plain.sort_by(|a, b| a.rest.total_cmp(&b.rest));
        // The outline is found without the texture.
        let textured = plain.iter().take(OUTLINES).flat_map(|fit| {
            [Texture::Striped, Texture::Checkered]
                .map(|texture| target.improved(target.fit(Object { texture, ..fit.model })))
        });
        let textured = textured.filter(|fit| fit.contrast > CONTRAST);
        let textured = textured.min_by(|a, b| a.rest.total_cmp(&b.rest));
        let plain = *plain.first()?;
        let clear = |fit: &Fit| fit.rest - target.noise;
        let better = |fit: &Fit| clear(fit) < BETTER * clear(&plain);
        let best = textured.filter(better).unwrap_or(plain);
        Some(SeenObject {
            shape: (clear(&best) < UNLIKE).then_some(best.model.shape),
            colour: nearest_colour(best.model.paint),
            size: Size::of(best.model.scale),
            texture: best.model.texture,
            centre: best.model.centre,
        })
    }
}

/// The pixels of an object and around it, which a model is to explain.
struct Target {
    spots: Vec<Spot>,
    /// What each pixel has more than the background, by channel.
    more: Vec<[f64; 3]>,
    /// The sum of the squares of that.
    all: f64,
    /// The part of it that may be noise.
    noise: f64,
    paper: [f64; 3],
    side: f64,
}

/// A model with the colours that explain most.
#[derive(Clone, Copy)]
struct Fit {
    model: Object,
    /// What it leaves unexplained, as a part of the whole.
    rest: f64,
    /// How much darker its darker colour is, as a part of the lighter one.
    contrast: f64,
}

impl Target {
    fn new(canvas: &Canvas<'_>, part: &[Spot], side: f64) -> Target {
        let mut spots: Vec<Spot> =
            part.iter().flat_map(|spot| canvas.around(*spot, RING)).collect();
        spots.sort_unstable_by_key(|(x, y)| (*y, *x));
        spots.dedup();
        let paper = canvas.paper;
        let more = |(x, y): &Spot| {
            let colour = canvas.picture.at(*x, *y);
            [0, 1, 2].map(|c| f64::from(colour[c]) - paper[c])
        };
        let more: Vec<[f64; 3]> = spots.iter().map(more).collect();
        let all = more.iter().flatten().map(|value| value * value).sum::<f64>().max(1.0);
        let noise = canvas.noise * spots.len() as f64 / all;
        Target { spots, more, all, noise, paper, side }
    }

    /// The model with the colours that explain most.
    fn fit(&self, mut model: Object) -> Fit {
        // Sums of products of the lighter share, the darker share and the values.
        let [mut ll, mut ld, mut dd] = [0.0; 3];
        let [mut lv, mut dv] = [[0.0; 3]; 2];
        for ((x, y), more) in self.spots.iter().zip(&self.more) {
            let Cover { all, dark } = model.cover(*x, *y, self.side);
            let light = all - dark;
            ll += light * light;
            ld += light * dark;
            dd += dark * dark;
            for (c, value) in more.iter().enumerate() {
                lv[c] += light * value;
                dv[c] += dark * value;
            }
        }
        let determinant = ll * dd - ld * ld;
        let two = determinant > 1e-6 * ll * ll;
        let solve = |c: usize| match two {
            true => {
                [(dd * lv[c] - ld * dv[c]) / determinant, (ll * dv[c] - ld * lv[c]) / determinant]
            }
            false => [lv[c] / ll.max(1e-9), 0.0],
        };
        let colours = [0, 1, 2].map(solve);
        let explained: f64 =
            colours.iter().zip(lv.iter().zip(dv)).map(|([l, d], (lv, dv))| l * lv + d * dv).sum();
        model.paint = [0, 1, 2].map(|c| self.paper[c] + colours[c][0]);
        let light: f64 = model.paint.iter().sum();
        let dark: f64 = [0, 1, 2].map(|c| self.paper[c] + colours[c][1]).iter().sum();
        let contrast = if two { (light - dark) / light.max(1.0) } else { 0.0 };
        let rest = 1.0 - explained / self.all;
        Fit { model, rest, contrast }
    }

    /// The fit with the place and the scale nearby that leave least.
    fn improved(&self, mut best: Fit) -> Fit {
        for step in STEPS {
            for (axis, sign) in (0..3).flat_map(|axis| [(axis, -1.0), (axis, 1.0)]) {
                let mut model = best.model;
                match axis {
                    2 => model.scale *= 1.0 + 0.2 * sign * step,
                    axis => model.centre[axis] += sign * step / self.side,
                }
                let fit = self.fit(model);
                if fit.rest < best.rest {
                    best = fit;
                }
            }
        }
        best
    }
}

/// The colour that is nearest, in whatever light.
fn nearest_colour(paint: [f64; 3]) -> Colour {
    let distance = |colour: &Colour| {
        let own = colour.paint();
        let product: f64 = own.iter().zip(paint).map(|(a, b)| a * b).sum();
        let square: f64 = own.iter().map(|a| a * a).sum();
        let light = (product / square).clamp(0.6, 1.4);
        own.iter().zip(paint).map(|(a, b)| (light * a - b).powi(2)).sum::<f64>()
    };
    let nearest = Colour::ALL.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.copied().unwrap_or(Colour::Red)
}

impl SeenObject {
    /// The place that it is nearest to.
    pub fn place(&self) -> Place {
        Place::of(self.centre)
    }
}
