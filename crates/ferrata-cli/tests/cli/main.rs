//! The program from outside, as a user meets it.

mod common;
mod devices;
mod instruments;
mod killed;
mod training;
mod wrong_input;
