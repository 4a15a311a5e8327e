//! Reading a pack and comparing with it.

use ferrata::{DType, Tensor};
use ferrata_formats::RawTensor;
use ferrata_formats::safetensors::TensorFile;
use std::collections::HashMap;
use std::path::PathBuf;

/// A folder of golden data.
pub struct Pack {
    folder: PathBuf,
    files: HashMap<String, TensorFile>,
}

impl Pack {
    /// The pack called `name`.
    pub fn open(name: &str) -> Pack {
        match std::env::var_os("FERRATA_PARITY") {
            Some(root) => Pack { folder: PathBuf::from(root).join(name), files: HashMap::new() },
            None => Pack::own(name),
        }
    }

    /// The pack called `name` of this repository.
    pub fn own(name: &str) -> Pack {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity/data");
        Pack { folder: root.join(name), files: HashMap::new() }
    }

    /// A JSON file.
    pub fn json(&self, file: &str) -> serde_json::Value {
        let path = self.folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        serde_json::from_str(&text).unwrap()
    }

    /// A tensor of a safetensors file, if it is there.
    pub fn find(&mut self, file: &str, key: &str) -> Option<RawTensor> {
        let folder = &self.folder;
        let open = || TensorFile::open(folder.join(file)).unwrap();
        let file = self.files.entry(file.to_string()).or_insert_with(open);
        file.find(key).map(|view| view.to_owned())
    }

    /// A tensor of a safetensors file.
    pub fn get(&mut self, file: &str, key: &str) -> RawTensor {
        self.find(file, key).unwrap_or_else(|| panic!("{file} has no {key}"))
    }
}

/// The dtypes to test.
pub fn dtypes() -> Vec<DType> {
    match std::env::var("FERRATA_PARITY_DTYPE").as_deref() {
        Ok("f32") => vec![DType::F32],
        Ok("f64") => vec![DType::F64],
        _ => vec![DType::F32, DType::F64],
    }
}

/// As a tensor; floats in `dtype`.
pub fn tensor(raw: &RawTensor, dtype: DType) -> Tensor {
    let ty = ferrata::Type::new(raw.dtype, raw.shape.clone());
    let t = Tensor::from_bytes(ty, &raw.bytes);
    if raw.dtype.is_float() { t.cast(dtype) } else { t }
}

/// Why `got` is not `want`, if it is not: for floats, finite entries may differ by `tolerance`
/// times the largest finite entry (or by `tolerance`, if that is 0); NaN and infinities stand at
/// the same places; other dtypes are equal.
pub fn difference(got: &Tensor, want: &RawTensor, tolerance: f64) -> Option<String> {
    if got.shape() != want.shape && got.error().is_none() {
        return Some(format!("shape {:?}, not {:?}", got.shape(), want.shape));
    }
    if !want.dtype.is_float() {
        let values = match got.cast(DType::I64).to_vec::<i64>() {
            Ok(values) => values,
            Err(e) => return Some(e.to_string()),
        };
        let is_same_kind = got.dtype() == want.dtype;
        let expected = integers(want);
        let same = is_same_kind && values == expected;
        return (!same).then(|| format!("{} {values:?}, not {expected:?}", got.dtype()));
    }
    let values = match got.cast(DType::F64).to_vec::<f64>() {
        Ok(values) => values,
        Err(e) => return Some(e.to_string()),
    };
    let expected = want.view().to_f64().unwrap();
    let scale = expected.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
    let limit = if scale == 0.0 { tolerance } else { tolerance * scale };
    let mut worst = 0f64;
    for (i, (g, w)) in values.iter().zip(&expected).enumerate() {
        if g.is_finite() && w.is_finite() {
            worst = worst.max((g - w).abs());
        } else if !(g == w || (g.is_nan() && w.is_nan())) {
            return Some(format!("element {i} is {g}, not {w}"));
        }
    }
    // The comparison is false for NaN too.
    let close = worst <= limit;
    (!close)
        .then(|| format!("off by {:.1e} of the largest, allowed {tolerance:.1e}", worst / scale))
}

fn integers(raw: &RawTensor) -> Vec<i64> {
    match raw.dtype {
        DType::Bool => raw.bytes.iter().map(|&b| b.into()).collect(),
        _ => raw.view().to_i64().unwrap(),
    }
}
