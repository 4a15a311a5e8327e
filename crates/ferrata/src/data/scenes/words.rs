//! The words of scenes and what they stand for.

/// Makes an enumeration of words: all of them, and their names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$item_doc])* $item),*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$item),*];

            /// As it stands in captions.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$item => $word),*
                }
            }
        }
    };
}

words! {
    /// The shapes of objects.
    Shape {
        /// Round.
        Circle = "circle",
        /// With sides that lie flat.
        Square = "square",
        /// Equilateral, pointing up.
        Triangle = "triangle",
        /// With five points, one of them up.
        Star = "star",
        /// Two bars.
        Cross = "cross",
        /// A square that stands on a corner.
        Diamond = "diamond",
    }
}

words! {
    /// The colours of objects.
    Colour {
        /// Red.
        Red = "red",
        /// Orange.
        Orange = "orange",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Cyan.
        Cyan = "cyan",
        /// Blue.
        Blue = "blue",
        /// Purple.
        Purple = "purple",
    }
}

words! {
    /// The sizes of objects.
    Size {
        /// About a quarter of the side of the picture.
        Small = "small",
        /// About two fifths of the side of the picture.
        Large = "large",
    }
}

words! {
    /// What covers objects.
    Texture {
        /// One colour; captions do not mention it.
        Plain = "plain",
        /// Lying bands of the colour and a darker one.
        Striped = "striped",
        /// A chessboard of the colour and a darker one.
        Checkered = "checkered",
    }
}

words! {
    /// The colours behind the objects.
    Background {
        /// Nearly black.
        Black = "black",
        /// Grey.
        Grey = "grey",
        /// Nearly white.
        White = "white",
    }
}

words! {
    /// How a group lies to another.
    Relation {
        /// All of it is higher.
        Above = "above",
        /// All of it is lower.
        Below = "below",
        /// All of it is further left.
        LeftOf = "left of",
        /// All of it is further right.
        RightOf = "right of",
    }
}

words! {
    /// Where a single object lies.
    Place {
        /// Near the middle.
        Centre = "in the centre",
        /// In the upper left quarter.
        TopLeft = "at the top left",
        /// In the upper right quarter.
        TopRight = "at the top right",
        /// In the lower left quarter.
        BottomLeft = "at the bottom left",
        /// In the lower right quarter.
        BottomRight = "at the bottom right",
    }
}

/// Numbers as they stand in captions; one is an article.
pub(super) const NUMBERS: [&str; 4] = ["a", "two", "three", "four"];

impl Colour {
    /// Red, green and blue, 0 to 255.
    pub(super) fn paint(self) -> [f64; 3] {
        match self {
            Colour::Red => [215.0, 35.0, 40.0],
            Colour::Orange => [240.0, 135.0, 25.0],
            Colour::Yellow => [235.0, 220.0, 45.0],
            Colour::Green => [40.0, 165.0, 60.0],
            Colour::Cyan => [50.0, 200.0, 215.0],
            Colour::Blue => [50.0, 75.0, 220.0],
            Colour::Purple => [155.0, 55.0, 195.0],
        }
    }
}

impl Background {
    /// The same value of red, green and blue, 0 to 255.
    pub(super) fn level(self) -> f64 {
        match self {
            Background::Black => 10.0,
            Background::Grey => 128.0,
            Background::White => 245.0,
        }
    }
}

impl Size {
    /// The least and the greatest scale of objects, in parts of the side.
    pub(super) fn scales(self) -> [f64; 2] {
        match self {
            Size::Small => [0.1, 0.115],
            Size::Large => [0.155, 0.175],
        }
    }

    /// The size of an object of this scale.
    pub(super) fn of(scale: f64) -> Size {
        let between = (Size::Small.scales()[1] + Size::Large.scales()[0]) / 2.0;
        if scale < between { Size::Small } else { Size::Large }
    }
}

impl Relation {
    /// How the other group lies to the one.
    pub(super) fn inverse(self) -> Relation {
        match self {
            Relation::Above => Relation::Below,
            Relation::Below => Relation::Above,
            Relation::LeftOf => Relation::RightOf,
            Relation::RightOf => Relation::LeftOf,
        }
    }

    /// How much a centre is further in the direction of the relation than another, in parts of the
    /// side.
    pub(super) fn lead(self, of: [f64; 2], over: [f64; 2]) -> f64 {
        match self {
            Relation::Above => over[1] - of[1],
            Relation::Below => of[1] - over[1],
            Relation::LeftOf => over[0] - of[0],
            Relation::RightOf => of[0] - over[0],
        }
    }
}

impl Place {
    /// Its middle, from the left and from the top.
    pub(super) fn middle(self) -> [f64; 2] {
        match self {
            Place::Centre => [0.5, 0.5],
            Place::TopLeft => [0.27, 0.27],
            Place::TopRight => [0.73, 0.27],
            Place::BottomLeft => [0.27, 0.73],
            Place::BottomRight => [0.73, 0.73],
        }
    }

    /// The place that a centre is nearest to.
    pub(super) fn of(centre: [f64; 2]) -> Place {
        let distance = |place: &Place| {
            let [x, y] = place.middle();
            (x - centre[0]).powi(2) + (y - centre[1]).powi(2)
        };
        let nearest = Place::ALL.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.copied().unwrap_or(Place::Centre)
    }
}

impl Shape {
    /// The word for several.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Shape::Circle => "circles",
            Shape::Square => "squares",
            Shape::Triangle => "triangles",
            Shape::Star => "stars",
            Shape::Cross => "crosses",
            Shape::Diamond => "diamonds",
        }
    }

    /// Whether the point belongs to the shape of scale 1 around the origin; down is positive.
    pub(super) fn contains(self, x: f64, y: f64) -> bool {
        match self {
            Shape::Circle => x * x + y * y <= 1.0,
            Shape::Square => x.abs().max(y.abs()) <= SQUARE,
            Shape::Triangle => {
                let slope = 3f64.sqrt();
                y <= POINTED / 2.0 && y >= slope * x.abs() - POINTED
            }
            Shape::Star => {
                // Turned to the point at the top, within a tenth of the circle of it.
                let (sin, cos) = (std::f64::consts::TAU / 10.0).sin_cos();
                let (mut across, mut along) = (x.abs(), -y);
                for _ in 0..2 {
                    if across * cos > along * sin {
                        let middle = 2.0 * (across * sin + along * cos);
                        (across, along) = ((middle * sin - across).abs(), middle * cos - along);
                    }
                }
                // The edge goes from the point to the notch.
                let notch = [NOTCH * cos, NOTCH * sin];
                (along - POINTED) * notch[1] <= across * (notch[0] - POINTED)
            }
            Shape::Cross => {
                let (long, short) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
                long <= BAR && short <= BAR_WIDTH
            }
            Shape::Diamond => x.abs() + y.abs() <= POINTED,
        }
    }

    /// The area at scale 1.
    pub(super) fn area(self) -> f64 {
        match self {
            Shape::Circle => std::f64::consts::PI,
            Shape::Square => 4.0 * SQUARE * SQUARE,
            Shape::Triangle => 3.0 * 3f64.sqrt() / 4.0 * POINTED * POINTED,
            Shape::Star => 5.0 * POINTED * NOTCH * (std::f64::consts::TAU / 10.0).sin(),
            Shape::Cross => 4.0 * BAR_WIDTH * (2.0 * BAR - BAR_WIDTH),
            Shape::Diamond => 2.0 * POINTED * POINTED,
        }
    }

    /// The radius of the circle around the origin that lies within the shape of scale 1.
    pub(super) fn core(self) -> f64 {
        match self {
            Shape::Circle => 1.0,
            Shape::Square => SQUARE,
            Shape::Triangle => POINTED / 2.0,
            Shape::Star => NOTCH * 0.9,
            Shape::Cross => BAR_WIDTH,
            Shape::Diamond => POINTED / 2f64.sqrt(),
        }
    }

    /// The radius of the circle around the origin that holds the shape of scale 1.
    pub(super) fn reach(self) -> f64 {
        match self {
            Shape::Circle => 1.0,
            Shape::Square => SQUARE * 2f64.sqrt(),
            Shape::Triangle | Shape::Star | Shape::Diamond => POINTED,
            Shape::Cross => BAR.hypot(BAR_WIDTH),
        }
    }
}

/// Half the side of a square.
const SQUARE: f64 = 0.9;
/// From the centre to the points of triangles, stars and diamonds.
const POINTED: f64 = 1.25;
/// From the centre of a star to its notches.
const NOTCH: f64 = 0.55;
/// Half the length of the bars of a cross.
const BAR: f64 = 1.1;
/// Half their width.
const BAR_WIDTH: f64 = 0.4;
