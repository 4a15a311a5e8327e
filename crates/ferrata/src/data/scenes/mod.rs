//! Scenes: pictures of coloured shapes with captions, made by us, and a checker that looks at
//! pixels only.
//!
//! A picture is made in the order [`Scenes`] → [`Scene`] (what and where) → caption and
//! [`Picture`]. The way back goes from a caption to a [`Description`] ([`Description::parse`]) and
//! from a picture to what is seen in it ([`look`]); [`Description::check`] says whether they agree.
//!
//! ```
//! use ferrata::data::scenes::{Description, Scenes, look};
//!
//! let scene = Scenes::new(7).training(3);
//! let picture = scene.render(32);
//! let caption = scene.caption(0); // "a small red circle above a large blue square on …"
//! assert_eq!(Description::parse(&caption)?.check(&look(&picture)), Ok(()));
//! assert!(Description::parse("five red circles").is_err(), "counts go up to four");
//! # Ok::<(), ferrata::data::Error>(())
//! ```
//!
//! Some pairs of colour and shape never occur in training ([`Scenes::held_out_pairs`]), so that a
//! model can be asked for known words in new combinations.
//!
//! | file | what |
//! |---|---|
//! | `words.rs` | shapes, colours, sizes, textures, places, relations |
//! | `caption.rs` | from a scene to a caption, and from a caption to a description |
//! | `sample.rs` | random scenes |
//! | `render.rs` | the picture of a scene |
//! | `look.rs` | what is seen in a picture |
//! | `check.rs` | whether that is what a description says |
//! | `set.rs` | scenes to learn from without files |
//! | `write.rs` | folders of scenes |

mod caption;
mod check;
mod look;
mod render;
mod sample;
mod set;
#[cfg(test)]
mod tests;
mod words;
mod write;

pub use check::Mismatch;
pub use look::{Seen, SeenObject, look};
pub use sample::Scenes;
pub use words::{Background, Colour, Place, Relation, Shape, Size, Texture};
pub use write::{Classes, Written, write_captioned, write_classes};

#[cfg(doc)]
use super::images::Picture;

/// Some objects that look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many, 1 to 4.
    pub count: usize,
    /// How large; `None` where a caption does not say.
    pub size: Option<Size>,
    /// What covers them.
    pub texture: Texture,
    /// Their colour.
    pub colour: Colour,
    /// Their shape.
    pub shape: Shape,
}

/// What a caption says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// One group, or two with a relation between them.
    pub groups: Vec<Group>,
    /// How the first group lies to the second.
    pub relation: Option<Relation>,
    /// Where a single object lies.
    pub place: Option<Place>,
    /// What is behind all, if that is said.
    pub background: Option<Background>,
}

/// One object of a scene. Lengths are parts of the side of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// What covers it.
    pub texture: Texture,
    /// Its colour as it is painted.
    pub paint: [f64; 3],
    /// Its centre, from the left and from the top.
    pub centre: [f64; 2],
    /// The length that the sizes of its shape are multiples of.
    pub scale: f64,
}

/// A description with everything that it leaves open.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What can be said about it.
    pub description: Description,
    /// What is painted.
    pub objects: Vec<Object>,
    /// The colour behind all as it is painted.
    pub paper: [f64; 3],
    /// Chooses among captions.
    wording: u64,
}
