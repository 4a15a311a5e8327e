//! Conversion from and to `ndarray`.

use super::{Element, Tensor};
use ferrata_ir::{Error, Result};
use ndarray::{Array, ArrayBase, ArrayD, Data, Dimension, IxDyn};

impl<S: Data<Elem: Element>, D: Dimension> From<&ArrayBase<S, D>> for Tensor {
    /// Copies an array of any memory layout.
    #[track_caller]
    fn from(array: &ArrayBase<S, D>) -> Self {
        match array.as_slice() {
            Some(elements) => Tensor::from_slice(elements, array.shape()),
            None => {
                let elements: Vec<S::Elem> = array.iter().copied().collect();
                Tensor::from_slice(&elements, array.shape())
            }
        }
    }
}

impl Tensor {
    /// The elements as an array, computed if necessary.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = ndarray::array![[1.0f32, 2.0], [3.0, 4.0]];
    /// let y = (Tensor::from(&x.t()) * 2.0).to_ndarray::<f32>()?;
    /// assert_eq!(y[[0, 1]], 6.0);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>> {
        let elements = self.to_vec()?;
        Array::from_shape_vec(IxDyn(self.shape()), elements).map_err(|e| Error::new(e.to_string()))
    }
}
