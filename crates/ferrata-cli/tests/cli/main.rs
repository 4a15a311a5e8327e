//! The program from outside, as a user meets it.

mod common;
mod devices;
mod images;
mod instruments;
mod killed;
#[cfg(unix)]
mod launching;
mod painting;
mod planning;
mod recorded;
mod training;
mod wrong_input;
