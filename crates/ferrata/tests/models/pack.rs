//! Recorded values and how to compare with them.

use ferrata::models::{ImageModel, Model};
use ferrata::{DType, Tensor, Type};
use ferrata_formats::safetensors::TensorFile;
use std::path::PathBuf;

/// A model directory with recorded values.
pub struct Pack {
    pub folder: PathBuf,
    golden: TensorFile,
}

impl Pack {
    pub fn open(name: &str) -> Pack {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models/data").join(name);
        let golden = TensorFile::open(folder.join("golden.safetensors")).unwrap();
        Pack { folder, golden }
    }

    pub fn model(&self) -> Model {
        Model::load(&self.folder).unwrap()
    }

    pub fn image_model(&self) -> ImageModel {
        ImageModel::load(&self.folder).unwrap()
    }

    /// Images or labels of every step.
    pub fn image_batches(&self, name: &str) -> Tensor {
        let file = TensorFile::open(self.folder.join("batches.safetensors")).unwrap();
        let view = file.get(name).unwrap();
        Tensor::from_bytes(Type::new(view.dtype, view.shape), view.bytes)
    }

    /// A recorded tensor.
    pub fn recorded(&self, name: &str) -> Tensor {
        let view = self.golden.get(name).unwrap();
        Tensor::from_bytes(Type::new(view.dtype, view.shape), view.bytes)
    }

    /// A recorded tensor, as f64.
    pub fn get(&self, name: &str) -> Vec<f64> {
        self.golden.get(name).unwrap().to_f64().unwrap()
    }

    /// Recorded ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.golden.get(name).unwrap().to_i64().unwrap();
        ids.into_iter().map(|id| id as u32).collect()
    }

    /// Inputs or targets of one step, i64 `[batch, time]`.
    pub fn batch(&self, name: &str, step: usize) -> Tensor {
        self.recorded(name).at(step).cast(DType::I64)
    }

    /// Names of recorded tensors under a prefix, without it.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.golden.names().filter_map(|n| n.strip_prefix(prefix)).map(str::to_owned).collect()
    }
}

/// How far `a` is from `b`: largest difference, the same by the largest entry of `b`, and the
/// distance by the length of `b`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deviation([f64; 3]);

impl Deviation {
    pub fn of(a: &[f64], b: &[f64]) -> Deviation {
        assert_eq!(a.len(), b.len());
        let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0, |m: f64, x| m.max(x.abs()));
        let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        assert!(difference.iter().all(|d| d.is_finite()), "not finite");
        let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let top = largest(&mut difference.iter().copied());
        let size = largest(&mut b.iter().copied()).max(f64::MIN_POSITIVE);
        let far = length(&difference) / length(b).max(f64::MIN_POSITIVE);
        Deviation([top, top / size, far])
    }

    pub fn worst(self, other: Deviation) -> Deviation {
        Deviation(std::array::from_fn(|i| self.0[i].max(other.0[i])))
    }

    /// Fails unless each of the three is within its limit.
    #[track_caller]
    pub fn within(self, what: &str, limits: [f64; 3]) {
        eprintln!("{what}: {:.1e} / {:.1e} / {:.1e}", self.0[0], self.0[1], self.0[2]);
        let good = self.0.iter().zip(limits).all(|(value, limit)| *value <= limit);
        assert!(good, "{what} deviates by {:?}, allowed is {limits:?}", self.0);
    }
}

/// All elements of a float tensor as f64.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.cast(DType::F64).to_vec::<f64>().unwrap()
}
