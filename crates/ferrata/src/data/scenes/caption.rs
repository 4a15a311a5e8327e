//! From a scene to a caption, and from a caption to a description.

use super::words::NUMBERS;
use super::{Background, Colour, Description, Group, Place, Relation, Scene, Shape, Size, Texture};
use crate::data::{Error, Result};

/// Words that stand for others.
const SYNONYMS: [(&str, &str); 12] = [
    ("one", "a"),
    ("an", "a"),
    ("big", "large"),
    ("little", "small"),
    ("tiny", "small"),
    ("gray", "grey"),
    ("center", "centre"),
    ("middle", "centre"),
    ("checked", "checkered"),
    ("upper", "top"),
    ("lower", "bottom"),
    ("under", "below"),
];

impl Scene {
    /// One of the captions of the scene; equal numbers give equal captions.
    pub fn caption(&self, number: u64) -> String {
        self.description.caption(self.wording.wrapping_add(number))
    }
}

impl Description {
    /// One of the captions that say this.
    pub fn caption(&self, wording: u64) -> String {
        let mut choice = wording;
        let mut choose = |count: u64| {
            let chosen = choice % count;
            choice /= count;
            chosen
        };
        let big = choose(2) == 1;
        let groups: Vec<String> = self.groups.iter().map(|group| group.words(big)).collect();
        let mut text = match (&groups[..], self.relation) {
            ([one, other], Some(relation)) => {
                let (one, other, relation) = match choose(2) {
                    0 => (one, other, relation),
                    _ => (other, one, relation.inverse()),
                };
                let long = match relation {
                    Relation::LeftOf | Relation::RightOf if choose(2) == 1 => "to the ",
                    _ => "",
                };
                format!("{one} {long}{} {other}", relation.word())
            }
            _ => groups.join(" and "),
        };
        if let Some(place) = self.place {
            text = format!("{text} {}", place.word());
        }
        match (self.background.map(Background::word), choose(3)) {
            (None, _) => text,
            (Some(word), 0) => format!("{text} on a {word} background"),
            (Some(word), 1) => format!("{text} on {word}"),
            (Some(word), _) => format!("on a {word} background, {text}"),
        }
    }

    /// Reads a caption: groups such as `two small striped red circles`, a relation (`above`,
    /// `below`, `left of`, `right of`), a place (`at the top left`, `in the centre`), a background
    /// (`on a grey background`, `on grey`). What is not said about size and background is left
    /// open; an object without texture is plain.
    ///
    /// # Errors
    /// [`Error::Dataset`] that names the word that is not understood, or what is missing.
    pub fn parse(caption: &str) -> Result<Description> {
        let lower = caption.to_lowercase().replace([',', '.', ';'], " ");
        let synonym = |word| {
            SYNONYMS.iter().find(|(other, _)| *other == word).map_or(word, |(_, usual)| *usual)
        };
        let words: Vec<&str> = lower.split_whitespace().map(synonym).collect();
        let mut reader = Reader { words: &words, caption };
        let mut description =
            Description { groups: Vec::new(), relation: None, place: None, background: None };
        while !reader.words.is_empty() {
            if let Some(background) = reader.background() {
                description.background = Some(background);
            } else if let Some(place) = reader.any(Place::ALL, Place::word) {
                description.place = Some(place);
            } else if let Some(relation) = reader.relation() {
                description.relation = Some(relation);
            } else {
                description.groups.push(reader.group()?);
            }
        }
        let fits = match description.groups.len() {
            1 => description.relation.is_none(),
            2 => description.relation.is_some(),
            _ => false,
        };
        match fits {
            true => Ok(description),
            false => Err(reader.wrong("it needs one group of objects, or two with a relation")),
        }
    }
}

impl Group {
    fn words(&self, big: bool) -> String {
        let size = match self.size {
            Some(Size::Large) if big => "big",
            Some(size) => size.word(),
            None => "",
        };
        let texture = if self.texture == Texture::Plain { "" } else { self.texture.word() };
        let shape = if self.count == 1 { self.shape.word() } else { self.shape.plural() };
        let number = NUMBERS[self.count.clamp(1, NUMBERS.len()) - 1];
        let words = [number, size, texture, self.colour.word(), shape];
        let said: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        match said.get(1) {
            Some(next) if self.count == 1 && next.starts_with(['a', 'e', 'i', 'o', 'u']) => {
                format!("an {}", said[1..].join(" "))
            }
            _ => said.join(" "),
        }
    }
}

/// The words of a caption that have not been understood yet.
struct Reader<'a> {
    words: &'a [&'a str],
    caption: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, what: impl AsRef<str>) -> Error {
        let what = what.as_ref();
        Error::Dataset(format!(
            "the caption {:?} is not understood: {what}; write for example \"a small red circle \
             above two blue squares on a grey background\"",
            self.caption
        ))
    }

    /// Takes these words, if they come next.
    fn take(&mut self, phrase: &str) -> bool {
        let mut rest = self.words;
        for word in phrase.split(' ') {
            match rest.split_first() {
                Some((next, others)) if *next == word => rest = others,
                _ => return false,
            }
        }
        self.words = rest;
        true
    }

    fn any<T: Copy>(&mut self, all: &[T], word: impl Fn(T) -> &'static str) -> Option<T> {
        all.iter().copied().find(|item| self.take(word(*item)))
    }

    fn background(&mut self) -> Option<Background> {
        let all = Background::ALL.iter().copied();
        all.into_iter().find(|background| {
            let word = background.word();
            let mut said = |before: &str, after: &str| self.take(&format!("{before}{word}{after}"));
            said("on a ", " background") || said("against a ", " background") || said("on ", "")
        })
    }

    fn relation(&mut self) -> Option<Relation> {
        // `to the` before a side.
        if let ["to", "the", "left" | "right", ..] = self.words {
            self.words = &self.words[2..];
        }
        self.any(Relation::ALL, Relation::word)
    }

    fn group(&mut self) -> Result<Group> {
        let count = NUMBERS.iter().position(|number| self.take(number));
        let size = self.any(Size::ALL, Size::word);
        let texture = self.any(Texture::ALL, Texture::word).unwrap_or(Texture::Plain);
        let colour = self.any(Colour::ALL, Colour::word);
        let shape = Shape::ALL.iter().copied().find(|shape| {
            self.words.first().is_some_and(|next| [shape.word(), shape.plural()].contains(next))
        });
        let next = self.words.first().copied().unwrap_or("nothing");
        let (Some(count), Some(colour), Some(shape)) = (count, colour, shape) else {
            let what = match (count, colour) {
                (None, _) => format!("{next:?} begins no group of up to four objects"),
                (_, None) => format!("{next:?} is no colour"),
                _ => format!("{next:?} is no shape"),
            };
            return Err(self.wrong(what));
        };
        self.words = &self.words[1..];
        Ok(Group { count: count + 1, size, texture, colour, shape })
    }
}
