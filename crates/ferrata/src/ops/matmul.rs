//! Products.

use crate::tensor::{IntoOperand, Tensor, broadcast_shape};
use ferrata_ir::primitive::Dot;
use ferrata_ir::{Error, Result};

impl Tensor {
    /// Matrix product of the last two dimensions; leading dimensions broadcast, and a vector is
    /// a row on the left and a column on the right.
    ///
    /// ```
    /// use ferrata::{DType, Tensor};
    /// let x = Tensor::ones([5, 2, 3], DType::F32);
    /// let y = Tensor::ones([3, 4], DType::F32);
    /// assert_eq!(x.matmul(&y).shape(), [5, 2, 4]);
    /// let e = y.matmul(&x).to_vec::<f32>().unwrap_err().to_string();
    /// assert!(e.starts_with("matmul(f32[3,4], f32[5,2,3]): "), "{e}");
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        Tensor::op("matmul", &[self, other], || self.product(other))
    }

    fn product(&self, other: &Tensor) -> Result<Tensor> {
        if self.rank() == 0 || other.rank() == 0 {
            return Err(Error::new("a scalar has no dimension to sum over")
                .help("multiply by a scalar with *"));
        }
        let (k, dim) = (self.rank() - 1, other.rank().saturating_sub(2));
        if self.shape()[k] != other.shape()[dim] {
            return Err(Error::new(format!(
                "the left operand has {} columns, but the right one has {} rows",
                self.shape()[k],
                other.shape()[dim]
            ))
            .help("transpose one of them with t(), or check which one comes first"));
        }
        // Without batch dimensions on the right, all leading ones on the left are rows.
        if other.rank() <= 2 {
            return Ok(self.dot(other, (&[], &[]), (&[k], &[dim])));
        }
        let left = if self.rank() == 1 { self.unsqueeze(0) } else { self.clone() };
        let (l, r) = (left.rank() - 2, other.rank() - 2);
        let batch = broadcast_shape(&[&left.shape()[..l], &other.shape()[..r]])?;
        let full = |x: &Tensor| {
            let tail = &x.shape()[x.rank() - 2..];
            x.broadcast_to(&[&batch[..], tail].concat())
        };
        let n = batch.len();
        let dims: Vec<usize> = (0..n).collect();
        let out = full(&left).dot(&full(other), (&dims, &dims), (&[n + 1], &[n]));
        Ok(if self.rank() == 1 { out.squeeze(-2) } else { out })
    }

    /// The general product; see [`Dot`].
    #[track_caller]
    pub(crate) fn dot(
        &self,
        other: &Tensor,
        batch: (&[usize], &[usize]),
        contract: (&[usize], &[usize]),
    ) -> Tensor {
        let op = Dot {
            left_batch: batch.0.to_vec(),
            right_batch: batch.1.to_vec(),
            left_contract: contract.0.to_vec(),
            right_contract: contract.1.to_vec(),
        };
        Tensor::record1(op, &[self, other])
    }

    /// `x Wᵀ + b`, with `weight` of shape `[outputs, inputs]` and `bias` of `[outputs]`.
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let mut inputs = vec![self, weight];
        inputs.extend(bias);
        Tensor::op("linear", &inputs, || {
            if weight.rank() != 2 || self.shape().last() != weight.shape().last() {
                return Err(Error::new(format!(
                    "the input's last dimension must be the weight's, [outputs, inputs] = {:?}",
                    weight.shape()
                )));
            }
            let y = self.dot(weight, (&[], &[]), (&[self.rank() - 1], &[1]));
            Ok(bias.map_or_else(|| y.clone(), |b| &y + b))
        })
    }

    /// `beta c + alpha (self other)`; `c` broadcasts.
    #[track_caller]
    pub fn addmm(&self, other: &Tensor, c: &Tensor, beta: f64, alpha: f64) -> Tensor {
        Tensor::op("addmm", &[c, self, other], || Ok(c * beta + self.product(other)? * alpha))
    }

    /// `x + a b`, elementwise.
    #[track_caller]
    pub fn addcmul(&self, a: &Tensor, b: impl IntoOperand) -> Tensor {
        self + a * b
    }

    /// `a_i b_j` of two vectors.
    #[track_caller]
    pub fn outer(&self, other: &Tensor) -> Tensor {
        Tensor::op("outer", &[self, other], || {
            if self.rank() != 1 || other.rank() != 1 {
                return Err(Error::new("needs two vectors"));
            }
            Ok(self.unsqueeze(1) * other.unsqueeze(0))
        })
    }

    /// Einstein summation: `Tensor::einsum("bij,bjk->bik", &[&x, &y])`. Letters that are not in
    /// the result are summed over; without `->` the result has the letters that occur once, in
    /// alphabetical order.
    ///
    /// ```
    /// use ferrata::Tensor;
    /// let x = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert_eq!(Tensor::einsum("ii", &[&x]).item::<f32>()?, 5.0);
    /// assert_eq!(Tensor::einsum("ij,ij->i", &[&x, &x]).to_vec::<f32>()?, [5.0, 25.0]);
    /// # Ok::<(), ferrata::Error>(())
    /// ```
    #[track_caller]
    pub fn einsum(equation: &str, tensors: &[&Tensor]) -> Tensor {
        Tensor::op("einsum", tensors, || einsum(equation, tensors))
    }
}

/// A tensor with a letter for each dimension.
struct Labelled {
    tensor: Tensor,
    labels: Vec<char>,
}

fn einsum(equation: &str, tensors: &[&Tensor]) -> Result<Tensor> {
    let bad = |what: String| Error::new(what).help(format!("in the equation `{equation}`"));
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (&equation[..], None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != tensors.len() {
        return Err(bad(format!("{} terms for {} operands", terms.len(), tensors.len())));
    }
    let output: Vec<char> = match output {
        Some(output) => output.chars().collect(),
        None => {
            let mut all: Vec<char> = inputs.chars().filter(|c| *c != ',').collect();
            all.sort_unstable();
            let once = |c: &char| inputs.matches(*c).count() == 1;
            all.into_iter().filter(once).collect()
        }
    };
    let mut parts = Vec::new();
    for (i, (term, tensor)) in terms.iter().zip(tensors).enumerate() {
        let labels: Vec<char> = term.chars().collect();
        if labels.len() != tensor.rank() || labels.iter().any(|c| !c.is_ascii_alphabetic()) {
            let ty = tensor.ty();
            return Err(bad(format!("`{term}` does not name the dimensions of operand {i}, {ty}")));
        }
        parts.push(Labelled { tensor: (*tensor).clone(), labels }.without_repeats()?);
    }
    check_sizes(&parts)?;
    if let Some(c) = output.iter().find(|c| !parts.iter().any(|p| p.labels.contains(c))) {
        return Err(bad(format!("the result names `{c}`, which no operand has")));
    }
    let mut parts = std::collections::VecDeque::from(parts);
    let mut all = parts.pop_front().ok_or_else(|| bad("needs an operand".into()))?;
    while let Some(next) = parts.pop_front() {
        let wanted = |c: char| output.contains(&c) || parts.iter().any(|p| p.labels.contains(&c));
        all = all.times(next, wanted);
    }
    all = all.summed(|c| output.contains(&c));
    let order = output.iter().map(|c| all.labels.iter().position(|l| l == c));
    let order = order.collect::<Option<Vec<_>>>();
    let order = order.ok_or_else(|| bad("the result names a letter twice".into()))?;
    if order.len() != all.labels.len() {
        return Err(bad("the result names a letter twice".into()));
    }
    Ok(all.tensor.permute(&order.iter().map(|&d| d as i64).collect::<Vec<_>>()))
}

fn check_sizes(parts: &[Labelled]) -> Result<()> {
    let mut sizes = std::collections::BTreeMap::new();
    for part in parts {
        for (&c, &n) in part.labels.iter().zip(part.tensor.shape()) {
            let known = *sizes.entry(c).or_insert(n);
            if known != n {
                return Err(Error::new(format!("`{c}` stands for sizes {known} and {n}")));
            }
        }
    }
    Ok(())
}

impl Labelled {
    /// Takes the diagonal where a letter repeats.
    fn without_repeats(mut self) -> Result<Self> {
        while let Some((i, j)) = self.repeated() {
            let (n, m) = (self.tensor.shape()[i], self.tensor.shape()[j]);
            if n != m {
                return Err(Error::new(format!(
                    "`{}` stands for sizes {n} and {m}",
                    self.labels[i]
                )));
            }
            let mut shape = vec![1; self.labels.len()];
            (shape[i], shape[j]) = (n, n);
            let unit = Tensor::eye(n, ferrata_ir::DType::Bool).reshape(shape);
            self.tensor = unit.select(&self.tensor, 0.0).sum(j);
            self.labels.remove(j);
        }
        Ok(self)
    }

    fn repeated(&self) -> Option<(usize, usize)> {
        let find = |j: usize| self.labels[..j].iter().position(|&c| c == self.labels[j]);
        (0..self.labels.len()).find_map(|j| find(j).map(|i| (i, j)))
    }

    /// Sums over the letters that are not wanted.
    fn summed(mut self, wanted: impl Fn(char) -> bool) -> Self {
        let over: Vec<usize> =
            (0..self.labels.len()).filter(|&d| !wanted(self.labels[d])).collect();
        if !over.is_empty() {
            self.tensor = self.tensor.sum(over);
        }
        self.labels.retain(|&c| wanted(c));
        self
    }

    /// The product; letters that both have are summed over unless wanted later.
    fn times(self, other: Labelled, wanted: impl Fn(char) -> bool) -> Labelled {
        let left = self.summed_unless(&other, &wanted);
        let right = other.summed_unless(&left, &wanted);
        let mut pairs = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        let mut labels: Vec<char> = Vec::new();
        for (l, &c) in left.labels.iter().enumerate() {
            if let Some(r) = right.labels.iter().position(|&d| d == c) {
                let pair = &mut pairs[usize::from(!wanted(c))];
                pair.0.push(l);
                pair.1.push(r);
                labels.extend(wanted(c).then_some(c));
            }
        }
        labels.extend(left.labels.iter().filter(|c| !right.labels.contains(c)));
        labels.extend(right.labels.iter().filter(|c| !left.labels.contains(c)));
        let [batch, contract] = &pairs;
        let tensor =
            left.tensor.dot(&right.tensor, (&batch.0, &batch.1), (&contract.0, &contract.1));
        Labelled { tensor, labels }
    }

    /// Sums over letters that neither `other` nor anyone later has.
    fn summed_unless(&self, other: &Labelled, wanted: &impl Fn(char) -> bool) -> Labelled {
        let same = Labelled { tensor: self.tensor.clone(), labels: self.labels.clone() };
        same.summed(|c| wanted(c) || other.labels.contains(&c))
    }
}
