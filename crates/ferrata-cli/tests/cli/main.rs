//! The program from outside, as a user meets it.

mod common;
mod devices;
mod images;
mod instruments;
mod killed;
mod painting;
mod recorded;
mod training;
mod wrong_input;
