//! For tests, of this crate and of devices.
//!
//! | file | what |
//! |---|---|
//! | `interpret` | a slow interpreter of plans: the meaning of the kernel language |
//! | `random` | random programs on a device against the reference evaluator |

mod interpret;
mod random;

pub use interpret::interpret;
pub use random::{Form, Trial, check_random, difference};
