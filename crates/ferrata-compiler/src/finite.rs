//! The watch for the first kernel that makes a NaN, or an infinity of finite numbers.

use crate::kernel::{Instruction, Kernel};
use ferrata_ir::{Error, Result, Scalar};

/// What is among some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    /// A NaN.
    pub nan: bool,
    /// An infinity.
    pub infinity: bool,
}

impl Specials {
    /// Checks what a kernel has written, given what it had read.
    ///
    /// # Errors
    /// Says what the kernel has made of what.
    pub fn check(self, kernel: &Kernel, made: Specials) -> Result<()> {
        let infinite = |i: &Instruction| match i {
            Instruction::Constant { value: Scalar::Float(x), .. } => x.is_infinite(),
            _ => false,
        };
        // A constant may be infinite, as masks are.
        let of_infinities = self.infinity || kernel.body().iter().any(infinite);
        match (made.nan, made.infinity) {
            _ if self.nan => Ok(()),
            (true, _) if self.infinity => Err(Error::new("makes NaN of infinities")),
            (true, _) => Err(Error::new("makes NaN of finite numbers")),
            (false, true) if !of_infinities => {
                Err(Error::new("makes infinities of finite numbers"))
            }
            _ => Ok(()),
        }
    }
}
