//! Value types: an element type and a static shape.

use crate::DType;
use crate::error::{Error, Result};
use std::fmt;

/// The type of a value: dtype and static shape (row-major, outermost dimension first).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Type {
    /// A type of the given dtype and shape.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> Self {
        Type { dtype, shape: shape.into() }
    }

    /// A rank-0 type.
    pub fn scalar(dtype: DType) -> Self {
        Type { dtype, shape: Vec::new() }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements; the largest number if it is larger than that.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |n: usize, &size| n.saturating_mul(size))
    }

    /// Bytes of a dense value of this type.
    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.size())
    }

    /// Checks that a value of this type could be addressed.
    ///
    /// # Errors
    /// When no memory is large enough.
    pub(crate) fn expect_addressable(&self) -> Result<()> {
        if self.bytes() <= isize::MAX as usize {
            return Ok(());
        }
        Err(Error::new(format!("{self} is too large for any memory")))
    }

    /// The same shape with another dtype.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Type { dtype, shape: self.shape.clone() }
    }

    /// The same dtype with another shape.
    pub fn with_shape(&self, shape: impl Into<Vec<usize>>) -> Self {
        Type { dtype: self.dtype, shape: shape.into() }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, size) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

/// Row-major strides, in elements, of a dense value of this shape.
pub fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}
