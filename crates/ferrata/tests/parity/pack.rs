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
        let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity/data");
        let root = std::env::var_os("FERRATA_PARITY").map_or_else(own, PathBuf::from);
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
