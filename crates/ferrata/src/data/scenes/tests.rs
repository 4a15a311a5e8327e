//! The checker against the renderer, on many scenes.

use super::*;
use crate::data::images::{Draws, Picture};

/// Scenes of every kind.
fn some(count: u64) -> impl Iterator<Item = Scene> {
    let scenes = Scenes::new(11);
    (0..count).map(move |index| match index % 4 {
        0 => scenes.held_out(index),
        _ => scenes.training(index),
    })
}

/// The number of scenes: `FERRATA_SCENES`, or this.
fn count(usual: u64) -> u64 {
    std::env::var("FERRATA_SCENES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The description with one thing changed that the picture decides.
fn changed(scene: &Scene, index: u64) -> Option<Description> {
    let mut wrong = scene.description.clone();
    let mut draws = Draws::new(5, 0, index);
    let number = draws.below(wrong.groups.len());
    let group = &mut wrong.groups[number];
    let other =
        |draws: &mut Draws, count: usize, own: usize| (own + 1 + draws.below(count - 1)) % count;
    match index % 8 {
        0 => {
            let own = Colour::ALL.iter().position(|c| *c == group.colour)?;
            group.colour = Colour::ALL[other(&mut draws, Colour::ALL.len(), own)];
        }
        1 => {
            let own = Shape::ALL.iter().position(|s| *s == group.shape)?;
            group.shape = Shape::ALL[other(&mut draws, Shape::ALL.len(), own)];
        }
        2 => {
            let own = Texture::ALL.iter().position(|t| *t == group.texture)?;
            group.texture = Texture::ALL[other(&mut draws, Texture::ALL.len(), own)];
        }
        3 => {
            let own = Background::ALL.iter().position(|b| Some(*b) == wrong.background)?;
            wrong.background = Some(Background::ALL[other(&mut draws, Background::ALL.len(), own)]);
        }
        4 => group.count = 1 + other(&mut draws, 4, group.count - 1),
        5 => group.size = Some(if group.size? == Size::Small { Size::Large } else { Size::Small }),
        6 => wrong.relation = Some(wrong.relation?.inverse()),
        _ => {
            let own = Place::ALL.iter().position(|p| Some(*p) == wrong.place)?;
            wrong.place = Some(Place::ALL[other(&mut draws, Place::ALL.len(), own)]);
        }
    }
    Some(wrong)
}

/// The shares of true captions that are accepted and of wrong ones that are refused, on pictures
/// that `spoil` has changed.
fn shares(count: u64, side: usize, spoil: impl Fn(&mut Picture, u64)) -> (f64, f64) {
    let (mut accepted, mut refused, mut wrong) = (0u64, 0u64, 0u64);
    let mut problems = Vec::new();
    for (index, scene) in some(count).enumerate() {
        let index = index as u64;
        let mut picture = scene.render(side);
        spoil(&mut picture, index);
        let seen = look(&picture);
        let said = Description::parse(&scene.caption(index)).unwrap();
        match said.check(&seen) {
            Ok(()) => accepted += 1,
            Err(why) => problems.push(format!("{index}: {}: {why}", scene.caption(index))),
        }
        for kind in 0..8 {
            if let Some(other) = changed(&scene, 8 * index + kind) {
                let other = Description::parse(&other.caption(index)).unwrap();
                wrong += 1;
                refused += u64::from(other.check(&seen).is_err());
            }
        }
    }
    let (accepted, refused) = (accepted as f64 / count as f64, refused as f64 / wrong as f64);
    println!("side {side}: {accepted:.4} accepted, {refused:.4} of {wrong} refused");
    problems.iter().take(12).for_each(|problem| println!("{problem}"));
    (accepted, refused)
}

#[test]
fn the_checker_agrees_with_the_renderer() {
    for (side, usual) in [(32, 1000), (48, 200)] {
        let (accepted, refused) = shares(count(usual), side, |_, _| {});
        assert!(accepted >= 0.995, "{accepted} of the true captions are accepted at side {side}");
        assert!(refused >= 0.99, "{refused} of the wrong captions are refused at side {side}");
    }
}

#[test]
fn small_noise_does_not_matter() {
    let (accepted, refused) = shares(count(400), 32, |picture, index| {
        let mut draws = Draws::new(6, 0, index);
        for value in &mut picture.pixels {
            *value = (f64::from(*value) + draws.between(-24.0, 24.0)).round() as u8;
        }
    });
    assert!(accepted >= 0.99, "{accepted} of the true captions are accepted");
    assert!(refused >= 0.99, "{refused} of the wrong captions are refused");
}

#[test]
fn captions_are_read_as_they_are_written() {
    for (index, scene) in some(2000).enumerate() {
        let caption = scene.caption(index as u64);
        let mut read = Description::parse(&caption).unwrap();
        let said = &scene.description;
        // The same relation can be said from either side.
        if read.groups != said.groups {
            read.groups.reverse();
            read.relation = read.relation.map(Relation::inverse);
        }
        assert_eq!(read, *said, "{caption}");
    }
    let read = Description::parse("A green star to the left of two yellow triangles.").unwrap();
    assert_eq!((read.groups[1].count, read.relation), (2, Some(Relation::LeftOf)));
    assert_eq!((read.groups[0].size, read.background), (None, None));
    let read = Description::parse("an orange cross in the middle on gray").unwrap();
    assert_eq!((read.place, read.background), (Some(Place::Centre), Some(Background::Grey)));
}

#[test]
fn captions_that_are_not_understood_name_the_word() {
    for (caption, part) in [
        ("a red house", "\"house\" is no shape"),
        ("a mauve circle", "\"mauve\" is no colour"),
        ("nine red circles", "\"nine\" begins no group"),
        ("", "one group"),
        ("a red circle a blue square", "with a relation"),
        ("a red", "\"nothing\" is no shape"),
    ] {
        let error = Description::parse(caption).unwrap_err().to_string();
        assert!(error.contains(part), "{caption:?}: {error}");
    }
    ferrata_ir::testing::fuzz(b"two big red crosses on a grey background", 3000, |bytes| {
        Description::parse(&String::from_utf8_lossy(bytes)).map(drop)
    });
}

#[test]
fn held_out_pairs_never_occur_in_training() {
    let held_out = Scenes::held_out_pairs();
    let scenes = Scenes::new(3);
    let is_held_out = |group: &Group| held_out.contains(&(group.colour, group.shape));
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..4000 {
        let scene = scenes.training(index);
        let validation = scenes.validation(index);
        assert!(
            !scene.description.groups.iter().chain(&validation.description.groups).any(is_held_out)
        );
        seen.extend(scene.description.groups.iter().map(|group| (group.colour, group.shape)));
        let groups = scenes.held_out(index).description.groups;
        assert!(groups.iter().any(is_held_out) && groups.len() == 1 + index as usize % 2);
    }
    assert_eq!(seen.len(), 42 - held_out.len(), "all other pairs occur");
    assert_eq!(scenes.training(5), Scenes::new(3).training(5));
    assert_ne!(scenes.training(5), scenes.validation(5));
}

#[test]
fn areas_are_those_of_the_shapes() {
    for shape in Shape::ALL {
        let steps = 400;
        let at = |i: i32| f64::from(i) / f64::from(steps) * 1.5;
        let inside = (-steps..steps)
            .flat_map(|j| (-steps..steps).map(move |i| (i, j)))
            .filter(|(i, j)| shape.contains(at(*i), at(*j)));
        let (mut count, mut sum, mut reach) = (0, [0.0; 2], 0f64);
        for (i, j) in inside {
            count += 1;
            sum = [sum[0] + at(i), sum[1] + at(j)];
            reach = reach.max(at(i).hypot(at(j)));
        }
        let area = f64::from(count) * (1.5f64 / f64::from(steps)).powi(2);
        assert!((area / shape.area() - 1.0).abs() < 0.01, "{shape:?}: {area} {}", shape.area());
        assert!(
            reach <= shape.reach() + 1e-9 && reach > 0.98 * shape.reach(),
            "{shape:?}: {reach}"
        );
        let off = sum.map(|sum| (sum / f64::from(count)).abs());
        assert!(off[0] < 0.01 && off[1] < 0.01, "{shape:?} is centred: {off:?}");
    }
}

#[test]
fn what_is_no_scene_is_seen_as_none() {
    let seen = look(&Picture::filled(32, 32, [200, 30, 30]));
    assert_eq!((seen.background, seen.objects.len()), (None, 0));
    let mut dot = Picture::filled(1, 1, [3, 3, 3]);
    assert_eq!(look(&dot).background, Some(Background::Black));
    dot = Picture::filled(32, 20, [128; 3]);
    (3..30).for_each(|x| dot.set(x, 9, [220, 40, 40]));
    let line = look(&dot);
    assert_eq!((line.objects.len(), line.objects[0].shape), (1, None), "{line:?}");
}

#[test]
fn folders_of_scenes_are_image_data() {
    use crate::data::images::{ImageData, ImageSplit};
    let split = ImageSplit { validation: 0.0, seed: 0 };
    let folder = crate::data::testing::scratch("scenes_captioned");
    let written = write_captioned(&folder, Scenes::new(1), 20, 16).unwrap();
    assert_eq!(written, Written { training: 20, validation: 2, held_out: 2 });
    let data = ImageData::open(&folder, split).unwrap();
    assert_eq!((data.train.len(), data.validation.unwrap().len()), (20, 2));
    let captions: Vec<Vec<String>> = data.train.captions.to_vec();
    assert!(captions[0].contains(&Scenes::new(1).training(0).caption(0)));
    let listed = std::fs::read_to_string(folder.join("held_out.txt")).unwrap();
    assert_eq!(listed.lines().count(), 6);
    let folder = crate::data::testing::scratch("scenes_classes");
    let written = write_classes(&folder, Scenes::new(1), 84, 16, Classes::ColourAndShape).unwrap();
    assert_eq!((written.training, written.validation), (84, 42));
    let data = ImageData::open(&folder, split).unwrap();
    assert_eq!((data.train.classes.len(), data.train.len()), (42, 84));
    assert!(write_captioned(&folder, Scenes::new(1), 1, 8).is_err());
}
