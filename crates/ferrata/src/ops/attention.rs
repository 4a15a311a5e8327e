//! Attention, rotary positions, embedding and dropout.

use crate::random::Key;
use crate::tensor::Tensor;
use ferrata_ir::composite::{self, Attention, Pairing};
use ferrata_ir::{DType, Error, Type};

impl Tensor {
    /// Scaled dot-product attention of queries `[B, Hq, Tq, D]` to `keys` `[B, Hkv, Tk, D]` and
    /// `values` `[B, Hkv, Tk, Dv]`: query head `h` uses key/value head `h / (Hq / Hkv)`.
    ///
    /// ```
    /// use ferrata::{Attention, DType, Tensor};
    /// let q = Tensor::ones([1, 4, 3, 2], DType::F32);
    /// let k = Tensor::ones([1, 2, 3, 2], DType::F32);
    /// let v = Tensor::iota([1, 2, 3, 1], 2, DType::F32);
    /// let y = q.attention(&k, &v, &Attention { causal: true, ..Attention::default() });
    /// assert_eq!(y.at((0, 3)).to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, settings: &Attention) -> Tensor {
        self.attention_with(keys, values, None, None, settings)
    }

    /// [`Tensor::attention`] with a mask (bool: false hides; float: added to the scores) that
    /// broadcasts to `[B, Hq, Tq, Tk]`, and valid lengths i64 `[B]` of the keys.
    #[track_caller]
    pub fn attention_with(
        &self,
        keys: &Tensor,
        values: &Tensor,
        mask: Option<&Tensor>,
        lengths: Option<&Tensor>,
        settings: &Attention,
    ) -> Tensor {
        let inputs = [Some(self), Some(keys), Some(values), mask, lengths];
        let inputs: Vec<&Tensor> = inputs.into_iter().flatten().collect();
        Tensor::built1("attention", &inputs, |b, x| {
            let lengths = lengths.and_then(|_| x.last().copied());
            let mask = mask.map(|_| x[3]);
            composite::attention(b, x[0], x[1], x[2], mask, lengths, settings)
        })
    }

    /// Rotates pairs of elements of the last dimension of `x [.., T, D]` by the angles whose
    /// cosine and sine, `[.., T, D / 2]`, are given.
    #[track_caller]
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, pairing: Pairing) -> Tensor {
        Tensor::built1("rope", &[self, cos, sin], |b, x| {
            composite::rope(b, x[0], x[1], x[2], pairing)
        })
    }

    /// Cosine and sine, `[.., frequencies]`, of `position * frequency` for i64 positions.
    #[track_caller]
    pub fn rope_table(&self, frequencies: &[f64], dtype: DType) -> (Tensor, Tensor) {
        let mut results = Tensor::built("rope_table", &[self], 2, |b, x| {
            let (cos, sin) = composite::rope_table(b, x[0], frequencies, dtype);
            vec![cos, sin]
        });
        let sin = results.swap_remove(1);
        (results.swap_remove(0), sin)
    }

    /// Rows of this table `[N, D..]` at `ids [..]`: `[.., D..]`. Ids outside give zeros; the row
    /// `padding` gets no gradient.
    #[track_caller]
    pub fn embedding(&self, ids: &Tensor, padding: Option<i64>) -> Tensor {
        Tensor::built1("embedding", &[self, ids], |b, x| {
            composite::embedding(b, x[0], x[1], padding)
        })
    }

    /// Each element becomes 0 with probability `rate`, else it is divided by `1 - rate`.
    #[track_caller]
    pub fn dropout(&self, rate: f64, key: &Key) -> Tensor {
        Tensor::built1("dropout", &[self, &key.tensor()], |b, x| {
            composite::dropout(b, x[0], x[1], rate)
        })
    }

    /// Class ids become rows of 0 and 1, `[.., classes]`; ids outside give zeros.
    #[track_caller]
    pub fn one_hot(&self, classes: usize, dtype: DType) -> Tensor {
        Tensor::op("one_hot", &[self], || {
            if self.dtype().is_float() || self.dtype() == DType::Bool {
                let dtype = self.dtype();
                return Err(Error::new(format!("ids are integers, not {dtype}"))
                    .help("cast them, for example with .cast(DType::I64)"));
            }
            let mut shape = self.shape().to_vec();
            shape.push(classes);
            let ty = Type::new(self.dtype(), shape);
            let class = Tensor::iota(&ty.shape, -1, ty.dtype);
            Ok(self.unsqueeze(-1).eq(class).cast(dtype))
        })
    }
}
