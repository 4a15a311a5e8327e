//! What is found, what is missing, what fails.

use crate::{on_chip, open};
use ferrata_ascend::runtime::abi::Package;
use ferrata_ascend::runtime::{
    Cann, DECLARATIONS, Declaration, Library, Matmul, Npu, Search, Stage, launches, operators,
};
use ferrata_ascend_fake::Fake;

#[test]
fn everything_is_found() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let cann = chip.npu.cann();
        assert!(cann.missing().is_empty() && cann.absent().is_empty());
        assert_eq!(cann.opened().count(), Library::ALL.len());
        assert_eq!(cann.chip().unwrap(), "Ascend910B3");
        assert_eq!(cann.chips().unwrap(), 2);
        assert_eq!(cann.version().unwrap(), [1, 0, 0]);
        assert_eq!(cann.release(Package::Cann).unwrap(), "fake");
        assert_eq!(cann.release(Package::Driver), None);
        assert_eq!(launches(cann).unwrap(), "aclrtLaunchKernelWithHostArgs");
        assert!(operators(cann).iter().all(|(_, found)| *found));
        let (free, total) = chip.npu.memory().unwrap();
        assert!(0 < free && free <= total);
    });
}

#[test]
fn functions_that_are_missing_are_named() {
    let (needed, others): (Vec<_>, Vec<_>) = DECLARATIONS.iter().partition(|d| d.lost.is_none());
    let names = |list: &[&'static Declaration]| list.iter().map(|d| d.name).collect::<Vec<_>>();
    // Others than the first: without one of them nothing opens, and the error names them alone.
    for needed in [names(&needed), vec!["aclrtFree"]] {
        let fake = Fake::without(&needed).unwrap();
        let error = Cann::open(&Search::folder(fake.folder())).err().unwrap().to_string();
        assert!(error.contains(&format!("libascendcl.so lacks {}", needed.join(", "))), "{error}");
        assert!(error.contains("install CANN"), "{error}");
    }
    let fake = Fake::without(&names(&others)).unwrap();
    let cann = Cann::open(&Search::folder(fake.folder())).unwrap();
    assert_eq!(names(cann.missing()), names(&others));
    let error = launches(&cann).unwrap_err().to_string();
    assert!(error.contains("no functions that launch own kernels"), "{error}");
}

#[test]
fn without_operators_products_say_what_is_missing() {
    let fake = Fake::without(&["libopapi", "aclnnMatmul", "aclnnBatchMatMul"]).unwrap();
    on_chip(&fake, |chip| {
        let cann = chip.npu.cann();
        assert_eq!(cann.absent().iter().map(|a| a.0).collect::<Vec<_>>(), [Library::OpApi]);
        let error = Matmul::find(cann, true).unwrap_err().to_string();
        assert!(error.contains("lacks aclnnBatchMatMul"), "{error}");
    });
}

#[test]
fn without_the_first_library_nothing_opens() {
    let fake = Fake::without(&["libascendcl"]).unwrap();
    let error = Cann::open(&Search::folder(fake.folder())).err().unwrap().to_string();
    assert!(error.contains("libascendcl") && error.contains("set_env.sh"), "{error}");
    assert!(error.contains(&fake.folder().display().to_string()), "{error}");
}

#[test]
fn whoever_started_the_runtime_ends_it() {
    let fake = Fake::new().unwrap();
    let search = Search::folder(fake.folder());
    let first = Cann::open(&search).unwrap();
    drop(Cann::open(&search).unwrap());
    assert_eq!(fake.calls("aclFinalize"), 0);
    drop(first);
    assert_eq!(fake.calls("aclFinalize"), 1);
}

#[test]
fn errors_have_code_meaning_and_the_runtimes_words() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        fake.fail("aclrtMalloc", 1, 507_899);
        let error = chip.heap.allocate(1 << 22, &chip.stream).unwrap_err().to_string();
        for part in ["aclrtMalloc", "507899", "inside the driver", "injected", "npu-smi"] {
            assert!(error.contains(part), "{error}");
        }
        // It was one call only.
        chip.heap.allocate(1 << 22, &chip.stream).unwrap();
        fake.fail("aclrtCreateEventWithFlag", 2, 207_007);
        let error = Stage::new(&chip.stream).err().unwrap().to_string();
        assert!(error.contains("too many events"), "{error}");
    });
}

#[test]
fn no_chip_of_that_number() {
    let fake = Fake::new().unwrap();
    let cann = Cann::open(&Search::folder(fake.folder())).unwrap();
    let error = Npu::open(&cann, 7).unwrap_err().to_string();
    assert!(error.contains("107001") && error.contains("no chip of this number"), "{error}");
}

#[test]
fn every_call_that_fails_is_told_and_leaves_nothing_behind() {
    let functions = [
        "aclrtGetCurrentContext",
        "aclrtCreateStream",
        "aclrtMallocHost",
        "aclrtCreateEventWithFlag",
        "aclrtMalloc",
        "aclrtMemcpyAsync",
        "aclrtRecordEvent",
        "aclrtMemsetAsync",
        "aclrtSynchronizeEvent",
        "aclrtSynchronizeStream",
    ];
    for function in functions {
        let fake = Fake::new().unwrap();
        fake.fail(function, 1, 507_000);
        let work = || -> ferrata_ir::Result<()> {
            let cann = Cann::open(&Search::folder(fake.folder()))?;
            let npu = Npu::open(&cann, 0)?;
            let stream = ferrata_ascend::runtime::Stream::new(&npu)?;
            let heap = ferrata_ascend::runtime::Heap::new(&npu);
            let stage = Stage::new(&stream)?;
            let block = heap.allocate(100, &stream)?;
            block.clear()?;
            stage.upload(&block, 0, &[1; 100])?;
            assert_eq!(stage.download(&block, 0, 100)?, [1; 100]);
            stream.wait()
        };
        let error = work().unwrap_err().to_string();
        assert!(error.contains(function) && error.contains("507000"), "{error}");
        assert_eq!(fake.findings(), Vec::<String>::new(), "{function}");
    }
    // An open chip is closed also where a later step fails.
    let fake = Fake::new().unwrap();
    drop(open(&fake));
    assert_eq!(fake.calls("aclrtSetDevice"), fake.calls("aclrtResetDevice"));
}
