//! Own kernels and the vendor's operators.

use crate::{Chip, on_chip};
use ferrata_ascend::emit::Core;
use ferrata_ascend::runtime::{Block, Kernel, Matmul, Matrix, launches};
use ferrata_ascend::sim::parameters;
use ferrata_ascend_fake::Fake;
use ferrata_ir::{DType, Literal, Scalar, Type};

/// A kernel that copies 140 numbers, as the vendor's compiler leaves it for its last step.
const COPY: &str = include_str!("../compiled/3b934dad3113a32d.mlir");

/// What a release has that lacks the newer functions.
const OLD: [&str; 5] = [
    "aclrtBinaryLoadFromData",
    "aclrtBinaryGetFunction",
    "aclrtBinaryUnLoad",
    "aclrtLaunchKernelWithHostArgs",
    "aclrtGetHardwareSyncAddr",
];

fn kernel(chip: &Chip, core: Core) -> ferrata_ir::Result<Kernel> {
    Kernel::load(&chip.npu, core, COPY.as_bytes(), parameters(COPY).unwrap())
}

fn f32s(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn block(chip: &Chip, data: &[u8]) -> Block {
    let block = chip.heap.allocate(data.len(), &chip.stream).unwrap();
    chip.stage.upload(&block, 0, data).unwrap();
    block
}

#[test]
fn kernels_are_launched_by_new_functions_and_by_old_ones() {
    for (missing, by) in [(&[][..], "aclrtLaunchKernelWithHostArgs"), (&OLD, "rtKernelLaunch")] {
        let fake = Fake::without(missing).unwrap();
        on_chip(&fake, |chip| {
            assert_eq!(launches(chip.npu.cann()).unwrap(), by);
            let kernel = kernel(chip, Core::Vector).unwrap();
            let from = block(chip, &f32s(140));
            let to = block(chip, &[0; 600]);
            let pointers = [from.address(0, 560).unwrap(), to.address(0, 560).unwrap()];
            // SAFETY: it reads and writes 560 bytes each.
            unsafe { kernel.launch(&pointers, 1, &chip.stream) }.unwrap();
            let copied = chip.stage.download(&to, 0, 600).unwrap();
            assert_eq!((&copied[..560], &copied[560..]), (&f32s(140)[..], &[0; 40][..]));
            assert_eq!(fake.calls(by), 1);
            // SAFETY: nothing is launched.
            let error = unsafe { kernel.launch(&pointers[..1], 1, &chip.stream) }.unwrap_err();
            assert!(error.to_string().contains("2 pointers, 1 given"), "{error}");
            chip.stream.wait().unwrap();
        });
    }
}

#[test]
fn a_binary_for_other_cores_is_refused() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let error = kernel(chip, Core::Cube).unwrap_err().to_string();
        assert!(error.contains("aclrtBinaryLoadFromData"), "{error}");
    });
}

#[test]
fn without_functions_for_kernels_loading_says_so() {
    let fake = Fake::without(&[&OLD[..], &["rtKernelLaunch"]].concat()).unwrap();
    on_chip(&fake, |chip| {
        let error = kernel(chip, Core::Vector).unwrap_err().to_string();
        assert!(error.contains("no functions that launch own kernels"), "{error}");
    });
}

#[test]
fn work_that_fails_is_told_when_somebody_waits() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let text = COPY.replace("hivm.hir.set_mask_norm", "hivm.hir.no_such_operation");
        let listed = parameters(&text).unwrap();
        let kernel = Kernel::load(&chip.npu, Core::Vector, text.as_bytes(), listed).unwrap();
        let [from, to] = [0, 1].map(|_| block(chip, &[0; 560]));
        let pointers = [&from, &to].map(|b| b.address(0, 560).unwrap());
        // SAFETY: it reads and writes 560 bytes each.
        unsafe { kernel.launch(&pointers, 1, &chip.stream) }.unwrap();
        let error = chip.stream.wait().unwrap_err().to_string();
        for part in ["aclrtSynchronizeStream", "507035", "vector cores", "no_such_operation"] {
            assert!(error.contains(part), "{error}");
        }
    });
}

#[test]
fn what_kernels_write_behind_their_memory_is_found() {
    let fake = Fake::new().unwrap();
    let chip = crate::open(&fake);
    let kernel = kernel(&chip, Core::Vector).unwrap();
    let from = block(&chip, &f32s(140));
    // A size that blocks have: behind it nothing is ours.
    let to = chip.heap.allocate(4 << 20, &chip.stream).unwrap();
    let pointers = [from.address(0, 560).unwrap(), to.address((4 << 20) - 500, 500).unwrap()];
    // SAFETY: it is not, and that is what the imitation has to find.
    unsafe { kernel.launch(&pointers, 1, &chip.stream) }.unwrap();
    chip.stream.wait().unwrap();
    drop((kernel, from, to, chip));
    let findings = fake.findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains("written before or behind the block"), "{findings:?}");
}

/// The product of a batch of matrices by the operator and by hand.
fn product(chip: &Chip, dtype: DType, batch: Option<usize>, turned: bool) {
    let [m, n, k] = [5, 7, 9];
    let b = batch.unwrap_or(1);
    let literal = |n: usize, seed: usize| {
        Literal::build(Type::new(dtype, [n]), |i| Scalar::Float(((i * 7 + seed) % 11) as f64 - 5.0))
    };
    let (x, y) = (literal(b * m * k, 1), literal(b * k * n, 4));
    let (left, right) = (block(chip, &x.to_bytes()), block(chip, &y.to_bytes()));
    let out = chip.heap.allocate(b * m * n * dtype.size(), &chip.stream).unwrap();
    let matmul = Matmul::find(chip.npu.cann(), batch.is_some()).unwrap();
    let own = |all: [usize; 3]| all[usize::from(batch.is_none())..].to_vec();
    let steps = if turned { [k * n, 1, k] } else { [k * n, n, 1] };
    let matrix = |block, sizes: &'static mut Vec<usize>, strides: &'static mut Vec<usize>| Matrix {
        block,
        offset: 0,
        dtype,
        sizes,
        strides,
    };
    let leak = |all: [usize; 3]| Box::leak(Box::new(own(all)));
    let matrices = [
        matrix(&left, leak([b, m, k]), leak([m * k, k, 1])),
        matrix(&right, leak([b, k, n]), leak(steps)),
        matrix(&out, leak([b, m, n]), leak([m * n, n, 1])),
    ];
    matmul.run([&matrices[0], &matrices[1], &matrices[2]], &chip.stream, &chip.heap).unwrap();
    let bytes = chip.stage.download(&out, 0, b * m * n * dtype.size()).unwrap();
    let got = Literal::from_bytes(Type::new(dtype, [b * m * n]), &bytes).unwrap();
    let number = |x: &Literal, i: usize| match x.get(i) {
        Scalar::Float(x) => x,
        other => panic!("{other:?}"),
    };
    for i in 0..b * m * n {
        let (batch, row, column) = (i / (m * n), i / n % m, i % n);
        let right = |l: usize| batch * steps[0] + l * steps[1] + column * steps[2];
        let want: f64 =
            (0..k).map(|l| number(&x, (batch * m + row) * k + l) * number(&y, right(l))).sum();
        // Whole numbers below 256: exact in all of these dtypes.
        assert_eq!(number(&got, i), want, "{dtype}, {i}");
    }
}

#[test]
fn products_by_the_vendors_operators() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for batch in [None, Some(3)] {
                product(chip, dtype, batch, false);
                product(chip, dtype, batch, true);
            }
        }
        let error = {
            let b = block(chip, &[0; 64]);
            let m =
                |sizes| Matrix { block: &b, offset: 0, dtype: DType::F32, sizes, strides: &[2, 1] };
            let matmul = Matmul::find(chip.npu.cann(), false).unwrap();
            let matrices = [&m(&[2, 2]), &m(&[3, 2]), &m(&[2, 2])];
            matmul.run(matrices, &chip.stream, &chip.heap).unwrap_err().to_string()
        };
        assert!(error.contains("161002") && error.contains("aclnnMatmul"), "{error}");
    });
}
