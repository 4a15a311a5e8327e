//! The chips that kernels are compiled for, and their sizes.

use ferrata_ir::{Error, Result};

/// A chip, by what its cores are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name as the vendor's compiler knows it: `Ascend910B3`.
    pub name: &'static str,
    /// Cores for matrix products.
    pub cube_cores: usize,
    /// Cores for everything else.
    pub vector_cores: usize,
    /// Bytes of the buffer that a vector core computes in.
    pub unified: usize,
    /// Bytes of the buffer that matrices are staged in.
    pub l1: usize,
    /// Bytes of each of the buffers that a product's operands lie in.
    pub l0: usize,
    /// Bytes of the buffer that products are summed in.
    pub l0c: usize,
    /// Whether it belongs to the generation that has compiler tools of its own (`-a5`).
    pub a5: bool,
}

const KIB: usize = 1024;

/// Cores of the 910B and 910C.
const fn c220(name: &'static str, cube_cores: usize) -> Target {
    Target {
        name,
        cube_cores,
        vector_cores: 2 * cube_cores,
        unified: 192 * KIB,
        l1: 512 * KIB,
        l0: 64 * KIB,
        l0c: 128 * KIB,
        a5: false,
    }
}

impl Target {
    /// Every chip that kernels are tested to compile for.
    pub const ALL: [Target; 4] = [
        c220("Ascend910B1", 24),
        c220("Ascend910B3", 20),
        c220("Ascend910_9391", 24),
        Target {
            name: "Ascend950PR_9589",
            cube_cores: 32,
            vector_cores: 64,
            unified: 256 * KIB,
            l1: 512 * KIB,
            l0: 64 * KIB,
            l0c: 256 * KIB,
            a5: true,
        },
    ];

    /// Chips that differ from those in nothing but their name and number of cores, as the vendor's
    /// compiler has them.
    const ALIKE: [Target; 9] = [
        c220("Ascend910B2", 24),
        c220("Ascend910B2C", 24),
        c220("Ascend910B4", 20),
        c220("Ascend910B4-1", 20),
        c220("Ascend910_9362", 20),
        c220("Ascend910_9372", 20),
        c220("Ascend910_9381", 24),
        c220("Ascend910_9382", 24),
        c220("Ascend910_9392", 24),
    ];

    /// The chip of this name, as the compiler and the runtime know it.
    ///
    /// # Errors
    /// Names the known ones.
    pub fn find(name: &str) -> Result<Target> {
        let mut known = Target::ALL.into_iter().chain(Target::ALIKE);
        known.clone().find(|t| t.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let first = known.next().map_or("", |t| t.name);
            let names = known.fold(first.to_owned(), |all, t| all + ", " + t.name);
            Error::new(format!("no target `{name}`")).help(format!("one of {names}"))
        })
    }
}
