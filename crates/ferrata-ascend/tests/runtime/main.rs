//! The vendor's runtime, against a strict imitation of its libraries; and what is declared of them,
//! against the vendor's headers.
#![allow(unsafe_code)]

mod abi;
mod libraries;
mod memory;
mod work;

use ferrata_ascend::runtime::{Cann, Heap, Npu, Search, Stage, Stream};
use ferrata_ascend_fake::Fake;
use std::sync::Arc;

/// An open chip of the imitation.
struct Chip {
    npu: Arc<Npu>,
    stream: Arc<Stream>,
    heap: Arc<Heap>,
    stage: Stage,
}

fn open(fake: &Fake) -> Chip {
    let cann = Cann::open(&Search::folder(fake.folder())).unwrap();
    let npu = Npu::open(&cann, 0).unwrap();
    let stream = Stream::new(&npu).unwrap();
    Chip { heap: Heap::new(&npu), stage: Stage::new(&stream).unwrap(), stream, npu }
}

/// Runs a test on a chip; afterwards nothing is left, and nothing was done that a chip would let pass.
fn on_chip(fake: &Fake, test: impl FnOnce(&Chip)) {
    let chip = open(fake);
    test(&chip);
    drop(chip);
    assert_eq!(fake.calls("aclFinalize"), 1);
    assert_eq!(fake.findings(), Vec::<String>::new());
}
