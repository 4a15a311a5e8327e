//! A strict imitation of the libraries that come with the Ascend NPU, which only tests open.
//!
//! It has the vendor's C functions, as far as this project calls them, and does what they do on the
//! host: products on the processor, kernels on the simulator of the cores. What a chip would let pass
//! and answer with wrong numbers some day is an error here:
//!
//! - addresses of the chip are no addresses of the host: touching one ends the process;
//! - memory is full of rubbish at first, and lies between guards that are looked at again and again;
//! - nothing in a stream runs before somebody waits for it, so that a missing wait is seen;
//! - asynchronous copies need memory of the host that the chip reaches;
//! - what streams still need must not be freed, prepared calls run once, scratch memory must have
//!   the size that was asked for;
//! - what is left when the runtime ends, and what is freed twice, is told.
//!
//! [`Fake`] installs a copy with state of its own, lets calls fail, takes functions away as older
//! releases lack them, and tells what was found.
//!
//! | file | what |
//! |---|---|
//! | `install` | copies for tests |
//! | `state` | memory, handles, streams |
//! | `devices` | functions for devices, streams, memory, copies |
//! | `kernels` | functions for own kernels, new and old |
//! | `operators` | tensors, products |
//! | `control` | functions for tests |
#![allow(unsafe_code)]

mod control;
mod devices;
mod install;
mod kernels;
mod operators;
mod state;

pub use install::Fake;
