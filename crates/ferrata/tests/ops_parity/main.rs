//! Every operation against values and gradients that PyTorch computed in f64. `data/ops/cases.json`
//! says what each case is; the tensors are in the safetensors files beside it.

mod apply;

use ferrata::{DType, Error, Tensor, vjp};
use ferrata_formats::safetensors::TensorFile;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;

/// The inputs, settings and expected values of one case.
pub struct Case<'a> {
    json: &'a Value,
    file: &'a TensorFile,
}

impl Case<'_> {
    fn tensor(&self, key: &str, dtype: DType) -> Tensor {
        let view = self.file.get(key).unwrap();
        let t = Tensor::from_bytes(ferrata::Type::new(view.dtype, view.shape), view.bytes);
        if t.dtype().is_float() { t.cast(dtype) } else { t }
    }

    fn inputs(&self, dtype: DType) -> Vec<Tensor> {
        let keys = self.json["inputs"].as_array().unwrap();
        keys.iter().map(|k| self.tensor(k.as_str().unwrap(), dtype)).collect()
    }

    fn tolerance(&self, what: &str, dtype: DType) -> f64 {
        let op = self.json["op"].as_str().unwrap();
        match dtype {
            DType::F32 => self.json["tolerance"][what].as_f64().unwrap(),
            _ if matches!(op, "erfinv" | "lgamma") => 1e-10,
            // The expected gradient was computed with a 1/6 in f32.
            _ if op == "hard_sigmoid" => 1e-7,
            _ => 1e-12,
        }
    }

    /// Compares outputs and gradients; the first difference is the error.
    fn check(&self, dtype: DType) -> Result<(), String> {
        let inputs = self.inputs(dtype);
        let attrs = &self.json["attrs"];
        let op = self.json["op"].as_str().unwrap();
        let said = |e: Error| e.to_string();
        let outputs = apply::apply(op, attrs, &inputs);
        let expected = self.json["outputs"].as_array().unwrap();
        if outputs.len() != expected.len() {
            return Err(format!("{} outputs instead of {}", outputs.len(), expected.len()));
        }
        let tolerance = self.tolerance("output", dtype);
        for (i, (got, want)) in outputs.iter().zip(expected).enumerate() {
            let want = self.tensor(want["key"].as_str().unwrap(), DType::F64);
            got.eval().map_err(said)?;
            close(got, &want, tolerance).map_err(|e| format!("output {i}: {e}"))?;
        }
        let grads = self.json["grads"].as_array().unwrap();
        if grads.is_empty() {
            return Ok(());
        }
        let cotangents: Vec<Tensor> = outputs
            .iter()
            .zip(expected)
            .map(|(y, o)| match o["cotangent"].as_str() {
                Some(key) => self.tensor(key, dtype),
                None => y.zeros_like(),
            })
            .collect();
        // Only what has a gradient is differentiated: the shape of a result may depend on a mask.
        let of: Vec<usize> = grads.iter().map(|g| g["input"].as_u64().unwrap() as usize).collect();
        let f = |some: &Vec<Tensor>| {
            let mut x = inputs.clone();
            of.iter().zip(some).for_each(|(&i, t)| x[i] = t.clone());
            apply::apply(op, attrs, &x)
        };
        let some: Vec<Tensor> = of.iter().map(|&i| inputs[i].clone()).collect();
        let (_, gradients) = vjp(f, &some, &cotangents);
        let tolerance = self.tolerance("grad", dtype);
        for (grad, got) in grads.iter().zip(&gradients) {
            let want = self.tensor(grad["key"].as_str().unwrap(), DType::F64);
            got.eval().map_err(said)?;
            close(got, &want, tolerance).map_err(|e| format!("gradient {}: {e}", grad["input"]))?;
        }
        Ok(())
    }
}

fn close(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<(), String> {
    if got.shape() != want.shape() {
        return Err(format!("shape {:?} instead of {:?}", got.shape(), want.shape()));
    }
    if got.dtype().is_float() != want.dtype().is_float() {
        return Err(format!("dtype {} instead of {}", got.dtype(), want.dtype()));
    }
    let read = |t: &Tensor| t.cast(DType::F64).to_vec::<f64>().unwrap();
    let (got, want) = (read(got), read(want));
    let finite = want.iter().copied().filter(|x| x.is_finite());
    let scale = finite.map(f64::abs).fold(0.0, f64::max);
    let limit = if scale == 0.0 { tolerance } else { tolerance * scale };
    for (i, (&g, &w)) in got.iter().zip(&want).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= limit;
        if !same {
            return Err(format!("element {i} is {g} instead of {w} (limit {limit:e})"));
        }
    }
    Ok(())
}

/// Runs all cases of the groups and lists every failure.
fn run(groups: &[&str], dtype: DType) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/ops");
    let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let mut files = HashMap::new();
    let (mut count, mut failures) = (0, Vec::new());
    for json in cases.iter().filter(|c| groups.contains(&c["group"].as_str().unwrap())) {
        let name = json["file"].as_str().unwrap();
        let file =
            files.entry(name).or_insert_with(|| TensorFile::open(folder.join(name)).unwrap());
        count += 1;
        if let Err(e) = (Case { json, file }).check(dtype) {
            failures.push(format!("{}: {e}", json["name"].as_str().unwrap()));
        }
    }
    assert!(count > 0, "no cases in {groups:?}");
    assert!(failures.is_empty(), "{} of {count} fail:\n{}", failures.len(), failures.join("\n"));
}

macro_rules! groups {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn f32() {
                super::run(&[stringify!($name)], ferrata::DType::F32);
            }

            #[test]
            fn f64() {
                super::run(&[stringify!($name)], ferrata::DType::F64);
            }
        }
    )*};
}

groups! {
    elementwise broadcast reduction scan_sort softmax_norm matmul index loss attention resize_pad
    shape edge
}
