//! Composites: own derivatives against finite differences and against differentiation of the body,
//! second derivatives, batching, and meanings computed by hand.

mod attention;
mod check;
mod families;
mod fourier;
mod images;
mod linalg;
mod losses;
mod segments;
