//! Tensors as bytes: row-major, little-endian elements with a dtype and a shape.

use ferrata_ir::DType;
use half::{bf16, f16};

/// A tensor that borrows its bytes, for example from a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// The element type.
    pub dtype: DType,
    /// The size of every dimension.
    pub shape: &'a [usize],
    /// Row-major little-endian elements; their address has no particular alignment.
    pub bytes: &'a [u8],
}

/// A tensor that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// The element type.
    pub dtype: DType,
    /// The size of every dimension.
    pub shape: Vec<usize>,
    /// Row-major little-endian elements.
    pub bytes: Vec<u8>,
}

/// The bytes that a tensor takes, if that number fits.
pub(crate) fn byte_size(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d))
}

impl RawTensor {
    /// A tensor of `f32`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> RawTensor {
        RawTensor::from_elements(DType::F32, shape, values.iter().map(|v| v.to_le_bytes()))
    }

    /// A tensor of `f64`.
    pub fn from_f64(shape: &[usize], values: &[f64]) -> RawTensor {
        RawTensor::from_elements(DType::F64, shape, values.iter().map(|v| v.to_le_bytes()))
    }

    /// A tensor of `i64`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> RawTensor {
        RawTensor::from_elements(DType::I64, shape, values.iter().map(|v| v.to_le_bytes()))
    }

    fn from_elements<const N: usize>(
        dtype: DType,
        shape: &[usize],
        elements: impl Iterator<Item = [u8; N]>,
    ) -> RawTensor {
        RawTensor { dtype, shape: shape.to_vec(), bytes: elements.flatten().collect() }
    }

    /// The same tensor, borrowed.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

impl TensorView<'_> {
    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> RawTensor {
        RawTensor { dtype: self.dtype, shape: self.shape.to_vec(), bytes: self.bytes.to_vec() }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements of a float tensor of any width as `f64` (exact), or `None` for other dtypes.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let bytes = self.bytes;
        Some(match self.dtype {
            DType::F64 => elements(bytes, f64::from_le_bytes),
            DType::F32 => elements(bytes, |b| f64::from(f32::from_le_bytes(b))),
            DType::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f64()),
            DType::BF16 => elements(bytes, |b| bf16::from_le_bytes(b).to_f64()),
            _ => return None,
        })
    }

    /// The elements of a float tensor as `f32` (`f64` is rounded), or `None` for other dtypes.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let bytes = self.bytes;
        Some(match self.dtype {
            DType::F64 => elements(bytes, |b| f64::from_le_bytes(b) as f32),
            DType::F32 => elements(bytes, f32::from_le_bytes),
            DType::F16 => elements(bytes, |b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => elements(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            _ => return None,
        })
    }

    /// The elements of an integer or bool tensor as `i64`, or `None` for floats.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let bytes = self.bytes;
        Some(match self.dtype {
            DType::I64 => elements(bytes, i64::from_le_bytes),
            DType::I32 => elements(bytes, |b| i64::from(i32::from_le_bytes(b))),
            DType::I16 => elements(bytes, |b| i64::from(i16::from_le_bytes(b))),
            DType::I8 => elements(bytes, |b| i64::from(i8::from_le_bytes(b))),
            DType::U8 | DType::Bool => elements(bytes, |[b]: [u8; 1]| i64::from(b)),
            DType::U32 => elements(bytes, |b| i64::from(u32::from_le_bytes(b))),
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => return None,
        })
    }
}

fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// An empty folder for one test, the same for every run of one working tree.
    pub(crate) fn scratch(name: &str) -> PathBuf {
        let tree = blake3::hash(env!("CARGO_MANIFEST_DIR").as_bytes()).to_hex();
        let folder = std::env::temp_dir().join(format!("ferrata-tests-{}", &tree[..8])).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn numbers_survive() {
        let t = RawTensor::from_f32(&[2, 2], &[1.0, -0.5, 3.25, f32::MIN_POSITIVE]);
        assert_eq!(t.view().to_f32().unwrap(), [1.0, -0.5, 3.25, f32::MIN_POSITIVE]);
        assert_eq!(t.view().to_f64().unwrap()[2], 3.25);
        assert!(t.view().to_i64().is_none());
        let t = RawTensor::from_i64(&[3], &[i64::MIN, 0, i64::MAX]);
        assert_eq!(t.view().to_i64().unwrap(), [i64::MIN, 0, i64::MAX]);
        assert_eq!(t.view().len(), 3);
        let t = RawTensor { dtype: DType::BF16, shape: vec![1], bytes: vec![0x80, 0x3f] };
        assert_eq!(t.view().to_f64().unwrap(), [1.0]);
        let t = RawTensor { dtype: DType::F16, shape: vec![1], bytes: vec![0x00, 0x3c] };
        assert_eq!(t.view().to_f32().unwrap(), [1.0]);
        let t = RawTensor { dtype: DType::I8, shape: vec![2], bytes: vec![0xff, 0x7f] };
        assert_eq!(t.view().to_i64().unwrap(), [-1, 127]);
    }
}
