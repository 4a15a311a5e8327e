//! Random scenes.

use super::{
    Background, Colour, Description, Group, Object, Place, Relation, Scene, Shape, Size, Texture,
};
use crate::data::images::Draws;

/// An endless sequence of scenes for each use.
#[derive(Clone, Copy, Debug)]
pub struct Scenes {
    seed: u64,
}

/// Uses of one seed, apart from each other.
const TRAINING: u64 = 1;
const VALIDATION: u64 = 2;
const HELD_OUT: u64 = 3;
const SINGLE: u64 = 4;

/// What an object keeps from the edge of the picture.
const MARGIN: f64 = 0.03;
/// What objects keep from each other.
const GAP: f64 = 0.08;
/// What groups in a relation keep from each other, between centres.
const LEAD: f64 = 0.18;
/// How far a centre may be from the middle of its place.
const NEAR: f64 = 0.06;
/// So many arrangements of a description are tried.
const ATTEMPTS: usize = 200;

/// Which pairs of colour and shape a scene may have.
#[derive(Clone, Copy, PartialEq)]
enum Pairs {
    Seen,
    /// At least one held-out pair.
    HeldOut,
}

impl Scenes {
    /// The scenes of this seed.
    pub fn new(seed: u64) -> Scenes {
        Scenes { seed }
    }

    /// The pairs that never occur in training: one of each shape, in different colours, so that
    /// every word is seen in other pairs.
    pub fn held_out_pairs() -> Vec<(Colour, Shape)> {
        let pair =
            |(i, shape): (usize, &Shape)| (Colour::ALL[(3 * i + 1) % Colour::ALL.len()], *shape);
        Shape::ALL.iter().enumerate().map(pair).collect()
    }

    /// Scene `index` for training.
    pub fn training(&self, index: u64) -> Scene {
        self.scene(TRAINING, index, Pairs::Seen)
    }

    /// Scene `index` of the same kind that is not for training.
    pub fn validation(&self, index: u64) -> Scene {
        self.scene(VALIDATION, index, Pairs::Seen)
    }

    /// Scene `index` with a held-out pair; those with odd numbers have two groups.
    pub fn held_out(&self, index: u64) -> Scene {
        self.scene(HELD_OUT, index, Pairs::HeldOut)
    }

    /// Scene `index` with one plain object of this colour and shape, for classification; every
    /// pair is allowed.
    pub fn single(&self, index: u64, colour: Colour, shape: Shape) -> Scene {
        let mut draws = Draws::new(self.seed, SINGLE, index);
        let size = pick(&mut draws, Size::ALL);
        let group = Group { count: 1, size: Some(size), texture: Texture::Plain, colour, shape };
        let description = Description {
            groups: vec![group],
            relation: None,
            place: None,
            background: Some(pick(&mut draws, Background::ALL)),
        };
        self.arranged(description, &mut draws)
    }

    fn scene(&self, part: u64, index: u64, pairs: Pairs) -> Scene {
        let mut draws = Draws::new(self.seed, part, index);
        let two = match pairs {
            Pairs::Seen => draws.happens(0.5),
            Pairs::HeldOut => index % 2 == 1,
        };
        let description = describe(&mut draws, two, pairs);
        self.arranged(description, &mut draws)
    }

    /// Finds places for the objects; a description for which there are none is shrunk to one
    /// object of each group, which always fit.
    fn arranged(&self, mut description: Description, draws: &mut Draws) -> Scene {
        let objects = loop {
            if let Some(objects) = arrange(&description, draws) {
                break objects;
            }
            description.groups.iter_mut().for_each(|group| group.count = 1);
        };
        let background = description.background.unwrap_or(Background::Grey);
        let level = background.level() + draws.between(-6.0, 6.0);
        Scene { description, objects, paper: [level; 3], wording: draws.bits() >> 32 }
    }
}

fn pick<T: Copy>(draws: &mut Draws, all: &[T]) -> T {
    all[draws.below(all.len())]
}

fn describe(draws: &mut Draws, two: bool, pairs: Pairs) -> Description {
    let held_out = Scenes::held_out_pairs();
    let first = group(draws, two, |pair| (pairs == Pairs::HeldOut) == held_out.contains(&pair));
    let mut groups = vec![first];
    if two {
        let own = (first.colour, first.shape);
        let mut second = group(draws, two, |pair| pair != own && !held_out.contains(&pair));
        // Three objects at most, so that they fit.
        if first.count == 2 {
            second.count = 1;
        }
        groups.push(second);
        if draws.happens(0.5) {
            groups.swap(0, 1);
        }
    }
    let single = groups.len() == 1 && groups[0].count == 1;
    Description {
        relation: two.then(|| pick(draws, Relation::ALL)),
        place: (single && draws.happens(0.5)).then(|| pick(draws, Place::ALL)),
        background: Some(pick(draws, Background::ALL)),
        groups,
    }
}

fn group(draws: &mut Draws, two: bool, allowed: impl Fn((Colour, Shape)) -> bool) -> Group {
    let pair = loop {
        let pair = (pick(draws, Colour::ALL), pick(draws, Shape::ALL));
        if allowed(pair) {
            break pair;
        }
    };
    let count = match two {
        true => 1 + usize::from(draws.happens(0.3)),
        false => [1, 1, 1, 2, 2, 3, 4][draws.below(7)],
    };
    // More than two large ones do not fit.
    let size = if count > 2 { Size::Small } else { pick(draws, Size::ALL) };
    let texture = match draws.below(5) {
        0 => Texture::Striped,
        1 => Texture::Checkered,
        _ => Texture::Plain,
    };
    Group { count, size: Some(size), texture, colour: pair.0, shape: pair.1 }
}

fn arrange(description: &Description, draws: &mut Draws) -> Option<Vec<Object>> {
    for _ in 0..ATTEMPTS {
        let mut objects: Vec<(usize, Object)> = Vec::new();
        for (number, group) in description.groups.iter().enumerate() {
            let light = draws.between(0.94, 1.06);
            let [least, greatest] = group.size.unwrap_or(Size::Small).scales();
            for _ in 0..group.count {
                let scale = draws.between(least, greatest);
                let reach = MARGIN + group.shape.reach() * scale;
                let centre = match description.place {
                    Some(place) => place
                        .middle()
                        .map(|at| draws.between(at - NEAR, at + NEAR).clamp(reach, 1.0 - reach)),
                    None => [0; 2].map(|_| draws.between(reach, 1.0 - reach)),
                };
                let paint = group.colour.paint().map(|value| (light * value).min(255.0));
                let object =
                    Object { shape: group.shape, texture: group.texture, paint, centre, scale };
                objects.push((number, object));
            }
        }
        if apart(&objects) && related(description.relation, &objects) {
            return Some(objects.into_iter().map(|(_, object)| object).collect());
        }
    }
    None
}

fn apart(objects: &[(usize, Object)]) -> bool {
    let far = |a: &Object, b: &Object| {
        let distance = (a.centre[0] - b.centre[0]).hypot(a.centre[1] - b.centre[1]);
        distance >= a.shape.reach() * a.scale + b.shape.reach() * b.scale + GAP
    };
    objects.iter().enumerate().all(|(i, (_, a))| objects[..i].iter().all(|(_, b)| far(a, b)))
}

fn related(relation: Option<Relation>, objects: &[(usize, Object)]) -> bool {
    let Some(relation) = relation else { return true };
    let of = |group: usize| objects.iter().filter(move |(number, _)| *number == group);
    of(0).all(|(_, a)| of(1).all(|(_, b)| relation.lead(a.centre, b.centre) >= LEAD))
}
