//! Whether what is seen is what is said.

use std::fmt;

use super::words::NUMBERS;
use super::{Description, Group, Seen, SeenObject, Texture};

/// The first thing in which a picture and a description differ, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// Groups in a relation must be so far apart, between centres, in parts of the side.
const LEAD: f64 = 0.05;

impl Description {
    /// Whether the picture shows what is said and nothing else.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, seen: &Seen) -> Result<(), Mismatch> {
        let wrong = |what: String| Err(Mismatch(what));
        if let Some(background) = self.background
            && seen.background != Some(background)
        {
            let found = seen.background.map_or("another colour", |found| found.word());
            return wrong(format!("the background is {found}, not {}", background.word()));
        }
        let wanted: usize = self.groups.iter().map(|group| group.count).sum();
        if seen.objects.len() != wanted {
            return wrong(format!("there are {} objects, not {wanted}", seen.objects.len()));
        }
        let mut found: Vec<Vec<&SeenObject>> = Vec::new();
        for group in &self.groups {
            let fitting: Vec<_> = seen.objects.iter().filter(|o| group.fits(o)).collect();
            if fitting.len() != group.count {
                let all: Vec<String> = seen.objects.iter().map(SeenObject::to_string).collect();
                let (count, wanted) = (fitting.len(), group.describe());
                return wrong(format!("{count} of {wanted} are seen: {}", all.join(", ")));
            }
            found.push(fitting);
        }
        if let (Some(relation), [one, other]) = (self.relation, &found[..]) {
            let lies = |a: &SeenObject, b: &SeenObject| relation.lead(a.centre, b.centre) > LEAD;
            if !one.iter().all(|a| other.iter().all(|b| lies(a, b))) {
                let groups = self.groups.iter().map(Group::describe).collect::<Vec<_>>();
                let word = relation.word();
                return wrong(format!("{} do not lie {word} {}", groups[0], groups[1]));
            }
        }
        if let (Some(place), [object]) = (self.place, &seen.objects[..])
            && object.place() != place
        {
            return wrong(format!("it lies {}, not {}", object.place().word(), place.word()));
        }
        Ok(())
    }
}

impl Group {
    fn fits(&self, object: &SeenObject) -> bool {
        object.shape == Some(self.shape)
            && object.colour == self.colour
            && object.texture == self.texture
            && self.size.is_none_or(|size| size == object.size)
    }

    fn describe(&self) -> String {
        let number = if self.count == 1 { "one" } else { NUMBERS[self.count.clamp(1, 4) - 1] };
        let size = self.size.map_or(String::new(), |size| format!("{} ", size.word()));
        let texture = self.texture.word();
        format!("{number} {size}{texture} {} {}", self.colour.word(), self.shape.word())
    }
}

impl fmt::Display for SeenObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.shape.map_or("thing of no known shape", |shape| shape.word());
        let texture = match self.texture {
            Texture::Plain => String::new(),
            texture => format!("{} ", texture.word()),
        };
        write!(f, "a {} {texture}{} {shape}", self.size.word(), self.colour.word())
    }
}
