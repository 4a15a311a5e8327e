//! Every case of the pack of operators, values and gradients, in f32 and f64.

mod attributes;
mod elementwise;
mod images;
mod layers;
mod numerics;
mod shapes;

use crate::pack::{Pack, difference, dtypes, tensor};
use attributes::Attributes;
use ferrata::{DType, Tensor, vjp};
use serde_json::Value;

/// Limits for f64; two functions have no better reference.
fn f64_tolerance(op: &str) -> f64 {
    if matches!(op, "erfinv" | "lgamma") { 1e-10 } else { 1e-12 }
}

/// The results of an operator.
fn apply(op: &str, a: &Attributes, x: &[Tensor]) -> Vec<Tensor> {
    let found = elementwise::apply(op, a, x)
        .or_else(|| shapes::apply(op, a, x))
        .or_else(|| layers::apply(op, a, x))
        .or_else(|| images::apply(op, a, x))
        .or_else(|| numerics::apply(op, a, x));
    found.unwrap_or_else(|| panic!("no operator `{op}`"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], |v| v)
}

/// What is wrong with a case, one line each.
fn run(pack: &mut Pack, case: &Value, dtype: DType) -> Vec<String> {
    let (file, op) = (text(case, "file"), text(case, "op"));
    let attributes = Attributes(&case["attrs"]);
    let mut load = |entry: &Value, key: &str| pack.get(file, text(entry, key));
    let inputs: Vec<Tensor> =
        list(case, "inputs").iter().map(|i| tensor(&load(i, "key"), dtype)).collect();
    let limit = |what: &str| match dtype {
        // The reference multiplies by 1/6 in single precision there.
        DType::F64 if (op, what) == ("hard_sigmoid", "grad") => 1e-7,
        DType::F64 => f64_tolerance(op),
        _ => case["tolerance_f32_scaled"][what].as_f64().unwrap(),
    };
    let mut wrong = Vec::new();
    let mut compare = |what: String, got: &Tensor, want: &ferrata_formats::RawTensor, limit| {
        wrong.extend(difference(got, want, limit).map(|d| format!("{what} {d}")));
    };
    let results = apply(op, &attributes, &inputs);
    let outputs = list(case, "outputs");
    assert_eq!(results.len(), outputs.len(), "{op}");
    for (i, (got, output)) in results.iter().zip(outputs).enumerate() {
        compare(format!("output {i}"), got, &load(output, "key"), limit("output"));
    }
    let grads = list(case, "grads");
    if grads.is_empty() {
        return wrong;
    }
    // Integers, masks and inputs without a gradient are constants.
    let wrt: Vec<usize> = grads.iter().map(|g| g["input"].as_u64().unwrap() as usize).collect();
    let arguments: Vec<Tensor> = wrt.iter().map(|&i| inputs[i].clone()).collect();
    let cotangents: Vec<Tensor> = results
        .iter()
        .zip(outputs)
        .map(|(got, output)| match output["cotangent"].is_string() {
            true => tensor(&load(output, "cotangent"), dtype),
            false => got.zeros_like(),
        })
        .collect();
    let f = |arguments: &Vec<Tensor>| {
        let mut all = inputs.clone();
        for (&i, x) in wrt.iter().zip(arguments) {
            all[i] = x.clone();
        }
        apply(op, &attributes, &all)
    };
    let (again, slopes) = vjp(f, &arguments, &cotangents);
    for (i, (got, output)) in again.iter().zip(outputs).enumerate() {
        let what = format!("differentiated output {i}");
        compare(what, got, &load(output, "key"), limit("output"));
    }
    for (got, grad) in slopes.iter().zip(grads) {
        let what = format!("gradient {}", grad["input"]);
        compare(what, got, &load(grad, "key"), limit("grad"));
    }
    wrong
}

fn check(pack: &str, groups: &[&str]) {
    let mut pack = open(pack);
    let all = pack.json("cases.json");
    let mut failures = Vec::new();
    let mut count = 0;
    for case in list(&all, "cases") {
        if !groups.contains(&text(case, "group")) {
            continue;
        }
        for dtype in dtypes() {
            count += 1;
            for wrong in run(&mut pack, case, dtype) {
                failures.push(format!("{} in {dtype}: {wrong}", text(case, "name")));
            }
        }
    }
    assert!(count > 0, "no cases in {groups:?}");
    assert!(failures.is_empty(), "{}\n{} of {count}", failures.join("\n"), failures.len());
}

/// The pack that may be read from elsewhere, or one of ours.
fn open(pack: &str) -> Pack {
    if pack == "ops" { Pack::open(pack) } else { Pack::own(pack) }
}

/// Every group of a pack, with the test that runs it.
macro_rules! groups {
    ($pack:literal, $all:ident, $($test:ident: $($group:literal),+;)*) => {
        $(#[test]
        fn $test() {
            check($pack, &[$($group),+]);
        })*

        #[test]
        fn $all() {
            let tested = [$($($group),+),*];
            for case in list(&open($pack).json("cases.json"), "cases") {
                assert!(tested.contains(&text(case, "group")), "{}", text(case, "name"));
            }
        }
    };
}

groups! {
    "numerics", nothing_of_numerics_is_left_out,
    linear_algebra: "linalg";
    fourier_transforms: "fft";
    segments_and_searches: "segment";
    recurrent_nets: "recurrent";
}

groups! {
    "ops", nothing_is_left_out,
    elementwise: "elementwise", "broadcast";
    reduction: "reduction", "scan_sort";
    softmax_and_norms: "softmax_norm";
    matmul: "matmul";
    convolution: "conv";
    pooling: "pool";
    index: "index";
    loss: "loss";
    attention: "attention";
    shape: "resize_pad", "shape";
    edge: "edge";
}
