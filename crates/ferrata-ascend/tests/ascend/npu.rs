//! The real chip's device, on a strict imitation of the vendor's runtime. Binaries are the text that the
//! vendor's last step would get.

use crate::committed::{arguments, programs, target};
use crate::support::{check_on, device, program, run, ty};
use crate::training::{GPT, kernels, same_on};
use ferrata_ascend::check::Report;
use ferrata_ascend::runtime::Search;
use ferrata_ascend::{AscendNpu, Compiler};
use ferrata_ascend_fake::Fake;
use ferrata_ir::{DType, Error, Function, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

/// What a release has that lacks the newer functions for kernels.
const OLD: [&str; 4] = [
    "aclrtBinaryLoadFromData",
    "aclrtLaunchKernelWithHostArgs",
    "aclrtGetHardwareSyncAddr",
    "aclsysGetCANNVersion",
];

/// A folder for temporary files that is removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = env::temp_dir().join(format!("ferrata-npu-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The compiler that knows the kernels beside these tests, with binaries.
fn kept(folder: &Folder) -> Compiler {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compiled");
    for file in fs::read_dir(compiled).unwrap() {
        let file = file.unwrap();
        let to = folder.0.join(file.file_name());
        fs::copy(file.path(), &to).unwrap();
        fs::copy(file.path(), to.with_extension("o")).unwrap();
    }
    Compiler::kept(&folder.0)
}

fn open(fake: &Fake, compiler: Result<Compiler>) -> AscendNpu {
    AscendNpu::open(&Search::folder(fake.folder()), 0, compiler).unwrap()
}

/// Programs that the host computes quickly: products, too, dense ones and others.
fn small() -> Vec<(&'static str, Arc<Function>)> {
    let names = ["normalisation", "gather", "scatter"];
    let mut all: Vec<_> = programs().into_iter().filter(|(name, _)| names.contains(name)).collect();
    let f32s = |shape: &[usize]| ty(DType::F32, shape);
    all.push((
        "product with an epilogue",
        program(&[f32s(&[20, 30]), f32s(&[25, 30]), f32s(&[25])], |b, x| {
            let y = b.dot(x[0], x[1], (&[], &[]), (&[1], &[1]));
            let bias = b.broadcast_trailing(x[2], &[20, 25]);
            let y = b.add(y, bias);
            vec![b.logistic(y)]
        }),
    ));
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        all.push((
            "batch of products",
            program(&[ty(dtype, &[3, 8, 9]), ty(dtype, &[3, 9, 10])], |b, x| {
                vec![b.matmul(x[0], x[1])]
            }),
        ));
    }
    all
}

/// Runs programs, closes the chip, and returns what was left to others than our kernels.
fn lacks(
    fake: &Fake,
    compiler: Result<Compiler>,
    programs: &[(&'static str, Arc<Function>)],
) -> Vec<String> {
    let npu = open(fake, compiler);
    for (name, program) in programs {
        check_on(&npu, program, &arguments(program), 32.0, 20.0, name);
    }
    let lacks = npu.on_host();
    drop(npu);
    assert_eq!(fake.findings(), Vec::<String>::new());
    lacks
}

#[test]
fn kernels_that_are_kept() {
    for (missing, launch) in [(&[][..], "aclrtLaunchKernelWithHostArgs"), (&OLD, "rtKernelLaunch")]
    {
        let fake = Fake::without(missing).unwrap();
        let folder = Folder::new(launch);
        let some =
            programs().into_iter().filter(|(name, _)| missing.is_empty() || *name == "product");
        let lacks = lacks(&fake, Ok(kept(&folder)), &some.collect::<Vec<_>>());
        assert_eq!(lacks, Vec::<String>::new());
        assert!(fake.calls(launch) >= if missing.is_empty() { 12 } else { 4 }, "{launch}");
        assert_eq!(fake.calls("aclnnMatmul"), 0);
    }
}

#[test]
fn without_a_compiler_products_are_the_vendors_and_the_rest_is_the_hosts() {
    let fake = Fake::new().unwrap();
    let lacks = lacks(&fake, Err(Error::new("there is no compiler")), &small());
    let product = "a product by the vendor's operator: there is no compiler";
    assert_eq!(lacks, [product, "there is no compiler"]);
    // Each program runs twice.
    assert_eq!((fake.calls("aclnnMatmul"), fake.calls("aclnnBatchMatMul")), (2, 6));
    assert_eq!(fake.calls("aclrtLaunchKernelWithHostArgs"), 0);
}

#[test]
fn without_the_last_step_its_absence_is_the_reason() {
    let fake = Fake::without(&["aclnnMatmul", "aclnnBatchMatMul"]).unwrap();
    // The tools are not run for what they could not finish.
    let lacks = lacks(&fake, Ok(Compiler::new("/nowhere", None)), &small());
    let last = "bishengir-compile makes no binary: it lacks its last step, hivmc";
    let product = |operator| format!("{last}; the installed CANN lacks {operator}");
    assert_eq!(lacks, [last, &product("aclnnBatchMatMul"), &product("aclnnMatmul")]);
}

#[test]
fn buffers_that_others_hold_stay_as_they_are() {
    let fake = Fake::new().unwrap();
    let folder = Folder::new("donated");
    let npu = open(&fake, Ok(kept(&folder)));
    let (_, program) = programs().swap_remove(0);
    let inputs = arguments(&program);
    use ferrata_compiler::{Argument, Device};
    let upload = |i: usize| npu.upload(inputs[i].ty.clone(), &inputs[i].to_bytes()).unwrap();
    let buffers: Vec<_> = (0..inputs.len()).map(upload).collect();
    let executable = npu.compile(&program, &vec![true; inputs.len()]).unwrap();
    // Given away, but held here, too.
    let given = buffers.iter().map(|b| Argument::Donated(b.clone())).collect();
    let first = executable.run(given).unwrap();
    for (buffer, input) in buffers.iter().zip(&inputs) {
        assert!(npu.download(buffer).unwrap() == input.to_bytes());
    }
    // Given away for good: the results are the same, and lie in that memory.
    let used = npu.memory().unwrap();
    let second = executable.run(buffers.into_iter().map(Argument::Donated).collect()).unwrap();
    assert_eq!(npu.memory().unwrap(), used);
    for (first, second) in first.iter().zip(&second) {
        assert!(npu.download(first).unwrap() == npu.download(second).unwrap());
    }
}

#[test]
fn a_chip_that_fails_is_told_and_leaves_nothing_behind() {
    let (_, program) = programs().swap_remove(1);
    let inputs = arguments(&program);
    for function in [
        "aclrtMalloc",
        "aclrtMemcpyAsync",
        "aclrtBinaryLoadFromData",
        "aclrtLaunchKernelWithHostArgs",
        "aclrtSynchronizeStream",
        "aclrtSynchronizeEvent",
    ] {
        let fake = Fake::new().unwrap();
        let folder = Folder::new(function);
        let npu = open(&fake, Ok(kept(&folder)));
        fake.fail(function, 1, 507_899);
        let done = run(&npu, &program, &inputs, true);
        if function == "aclrtBinaryLoadFromData" {
            // The host computes what the chip does not take, and it is told.
            done.unwrap();
            assert!(npu.on_host()[0].contains("aclrtBinaryLoadFromData fails with 507899"));
        } else {
            let error = done.unwrap_err().to_string();
            assert!(error.contains(function) && error.contains("driver"), "{error}");
        }
        // The next run is as if nothing had been.
        run(&npu, &program, &inputs, true).unwrap();
        drop(npu);
        assert_eq!(fake.findings(), Vec::<String>::new(), "{function}");
    }
}

#[test]
fn buffers_of_another_device_are_refused() {
    use ferrata_compiler::Device;
    let fake = Fake::new().unwrap();
    let (npu, other) = (open(&fake, Err(Error::new("none"))), ferrata_compiler::ReferenceDevice);
    let ty = ferrata_ir::Type::new(DType::F32, [2]);
    let foreign = other.upload(ty, &[0; 8]).unwrap();
    let error = npu.download(&foreign).unwrap_err().to_string();
    assert!(error.contains("another device"), "{error}");
}

/// A tiny GPT trains through the compiler, a stand-in for its last step, and the runtime.
#[test]
fn gpt_in_f32() {
    if device().is_none() {
        return;
    }
    let folder = Folder::new("tools");
    let tools = Compiler::find().unwrap();
    let stand_in = folder.0.join("hivmc");
    fs::write(&stand_in, STAND_IN).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&stand_in, executable).unwrap();
    let tool = "bishengir-compile";
    std::os::unix::fs::symlink(tools.tools().unwrap().join(tool), folder.0.join(tool)).unwrap();
    let fake = Fake::new().unwrap();
    let npu = Arc::new(open(&fake, Ok(Compiler::new(&folder.0, None))));
    same_on(&ferrata::Device::from_backend(npu.clone()), GPT, DType::F32, 1e-4);
    // Our kernels run all but what the cores lack.
    let kernels = kernels(GPT, DType::F32);
    let lack = |kernel: &Arc<ferrata_compiler::Kernel>| {
        ferrata_ascend::emit::lower(kernel, &target(), 0).err().map(|e| e.message().to_owned())
    };
    let lacks: std::collections::BTreeSet<String> = kernels.iter().filter_map(lack).collect();
    assert_eq!(npu.on_host(), lacks.into_iter().collect::<Vec<_>>());
    assert_eq!((fake.calls("aclnnMatmul"), fake.calls("aclnnBatchMatMul")), (0, 0));
    assert_eq!(fake.findings(), Vec::<String>::new());
}

/// Copies what it is given.
const STAND_IN: &str = r#"#!/bin/sh
for argument in "$@"; do
    case $before in -o) out=$argument ;; esac
    case $argument in --version) echo "hivmc 1.0" && exit ;; *.mlir) in=$argument ;; esac
    before=$argument
done
cp "$in" "$out"
"#;

/// The line of a report that begins so.
fn line<'a>(report: &'a Report, what: &str) -> &'a str {
    let found = report.text.lines().find(|line| line.trim().starts_with(what));
    found.unwrap_or_else(|| panic!("no {what} in {}", report.text))
}

#[test]
fn a_report_tells_what_is_there_and_what_works() {
    let fake = Fake::without(&["rtKernelLaunch"]).unwrap();
    let folder = Folder::new("report");
    let report = Report::new(&Search::folder(fake.folder()), 0, Ok(kept(&folder)));
    assert_eq!(report.wrong, 0, "{}", report.text);
    assert!(report.right > 200, "{}", report.text);
    assert_eq!(
        line(&report, "rtKernelLaunch"),
        "    rtKernelLaunch of libruntime: own kernels need the newer functions of libascendcl"
    );
    assert!(line(&report, "runtime:").contains("CANN fake, driver unknown"));
    assert_eq!(line(&report, "operator aclnnMatmul:"), "  operator aclnnMatmul: found");
    for kernel in ["AdamW", "normalisation", "sum of rows", "product:", "gather:", "scatter:"] {
        let ours = report.text.lines().rfind(|l| l.trim().starts_with(kernel)).unwrap();
        assert!(ours.ends_with("right, by our kernels"), "{ours}");
    }
    // Small programs are not among those that are kept.
    assert!(line(&report, "exp(f32").contains("not by our kernels"), "{}", report.text);
    assert_eq!(fake.findings(), Vec::<String>::new());
}

#[test]
fn a_report_tells_what_is_wrong() {
    let fake = Fake::new().unwrap();
    let folder = Folder::new("wrong");
    let compiler = kept(&folder);
    // Binaries that add where they should multiply.
    for file in fs::read_dir(&folder.0).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|e| e == "o") {
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("@vmul_1d_float", "@vadd_1d_float")).unwrap();
        }
    }
    fake.fail("aclrtGetMemInfo", 1, 507_899);
    let report = Report::new(&Search::folder(fake.folder()), 0, Ok(compiler));
    let kernel = report.text.lines().rfind(|l| l.trim().starts_with("AdamW")).unwrap();
    assert!(kernel.contains("WRONG: element") && kernel.contains("by our kernels"), "{kernel}");
    assert!(line(&report, "memory").contains("WRONG: aclrtGetMemInfo fails with 507899"));
    assert!(report.wrong >= 2, "{}", report.text);
    let last = report.text.lines().last().unwrap();
    assert_eq!(last, format!("{} right, {} wrong", report.right, report.wrong));
}

#[test]
fn a_report_without_a_runtime_says_so() {
    let report = Report::new(&Search::folder("/nowhere"), 0, Err(Error::new("no compiler here")));
    assert_eq!((report.right, report.wrong), (0, 1));
    assert!(line(&report, "runtime:").contains("libascendcl cannot be opened"));
    assert_eq!(line(&report, "compiler:"), "compiler: no compiler here");
}
