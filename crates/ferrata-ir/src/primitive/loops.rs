//! Loop factors: the declaration from which type rules, costs and loop nests are derived.

use crate::Type;
use crate::error::{Error, Result};

/// One loop of a primitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Trip count.
    pub size: usize,
    /// Whether results do not have this factor: partial results are combined over it.
    pub reduced: bool,
}

/// How a dimension of an operand or result is indexed by the factors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// By one factor.
    Factor(usize),
    /// By several factors, outermost first, in row-major order.
    Merged(Vec<usize>),
    /// By `factor * stride + offset`.
    Affine {
        /// Which factor.
        factor: usize,
        /// Step; may be negative.
        stride: isize,
        /// First index.
        offset: isize,
    },
    /// By two factors that slide over it: index `(outer · stride + inner · dilation - low) /
    /// spread`; what is no index, or outside, reads 0.
    Window {
        /// The factor of positions.
        outer: usize,
        /// Step of the positions.
        stride: usize,
        /// The factor inside of the window.
        inner: usize,
        /// Step inside of the window.
        dilation: usize,
        /// Zeros before the dimension; negative if it is cropped.
        low: i64,
        /// Step between the dimension's own elements.
        spread: usize,
    },
    /// Always at index 0 of a dimension of size 1.
    One,
}

/// The loop nest of one node: its factors, and how each operand and result is indexed by them.
/// `(b m k), (b k n) -> (b m n)` is a matrix product.
#[derive(Clone, Debug, PartialEq)]
pub struct Loops {
    /// Factors, parallel ones in the order of the first result.
    pub factors: Vec<Factor>,
    /// For each operand, for each of its dimensions.
    pub operands: Vec<Vec<Dim>>,
    /// For each result, for each of its dimensions.
    pub results: Vec<Vec<Dim>>,
    /// Scalar operations per point of the iteration space.
    pub operations: f64,
}

impl Loops {
    /// The nest of an elementwise primitive over `shape`.
    pub fn elementwise(shape: &[usize], operands: usize) -> Self {
        let dims: Vec<Dim> = (0..shape.len()).map(Dim::Factor).collect();
        Loops {
            factors: shape.iter().map(|&size| Factor { size, reduced: false }).collect(),
            operands: vec![dims.clone(); operands],
            results: vec![dims],
            operations: 1.0,
        }
    }

    /// Number of points of the iteration space.
    pub fn points(&self) -> f64 {
        self.factors.iter().map(|f| f.size as f64).product()
    }

    /// Scalar operations of one application.
    pub fn flops(&self) -> f64 {
        self.points() * self.operations
    }

    /// Size of a dimension that is indexed by `dim`; `None` if the factors do not determine it.
    fn size(&self, dim: &Dim) -> Option<usize> {
        match dim {
            Dim::Factor(f) => Some(self.factors[*f].size),
            Dim::Merged(fs) => Some(fs.iter().map(|&f| self.factors[f].size).product()),
            Dim::Affine { .. } | Dim::Window { .. } => None,
            Dim::One => Some(1),
        }
    }

    /// Shape of result `i`.
    pub fn result_shape(&self, i: usize) -> Vec<usize> {
        self.results[i].iter().filter_map(|d| self.size(d)).collect()
    }

    /// Checks that the operand types have the sizes that the factors say.
    ///
    /// # Errors
    /// Names the first operand and dimension that disagrees.
    pub fn check(&self, inputs: &[&Type]) -> Result<()> {
        for (i, (dims, ty)) in self.operands.iter().zip(inputs).enumerate() {
            if dims.len() != ty.rank() {
                let want = dims.len();
                return Err(Error::new(format!(
                    "operand {i} is {ty}, but needs {want} dimensions"
                )));
            }
            for (d, dim) in dims.iter().enumerate() {
                let Some(want) = self.size(dim) else { continue };
                if ty.shape[d] != want {
                    return Err(Error::new(format!(
                        "dimension {d} of operand {i} is {}, but must be {want}",
                        ty.shape[d]
                    )));
                }
            }
        }
        Ok(())
    }
}
