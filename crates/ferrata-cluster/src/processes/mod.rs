//! Ranks that are processes, of one machine or many.

pub(crate) mod control;
pub(crate) mod environment;
pub(crate) mod join;
pub(crate) mod rank;
mod sockets;
pub(crate) mod stream;
pub(crate) mod transport;
