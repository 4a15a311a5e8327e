//! Einstein summation.

use crate::tensor::Tensor;
use ferrata_ir::{Error, Result};
use std::collections::{BTreeMap, VecDeque};

impl Tensor {
    /// Einstein summation: `Tensor::einsum("bij,bjk->bik", &[&x, &y])`. Letters that are not in
    /// the result are summed over; without `->` the result has the letters that occur once, in
    /// alphabetical order. `...` stands for leading dimensions, which broadcast.
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

/// A parsed equation: a letter for each dimension. Dimensions under `...` go by digits, the last
/// one by `0`.
struct Equation {
    inputs: Vec<Vec<char>>,
    output: Vec<char>,
}

/// The labels of one term for a value with this many dimensions under its `...`.
fn labels(term: &str, dots: usize) -> Result<Vec<char>> {
    let leading = (0..dots as u32).rev().filter_map(|d| char::from_digit(d, 10));
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    let all = before.chars().chain(leading.filter(|_| term.contains("..."))).chain(after.chars());
    let all: Vec<char> = all.collect();
    match all.iter().find(|c| !c.is_ascii_alphanumeric()) {
        Some(c) => Err(Error::new(format!("`{c}` is no letter"))),
        None => Ok(all),
    }
}

impl Equation {
    fn parse(equation: &str, tensors: &[&Tensor]) -> Result<Equation> {
        let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (&equation[..], None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != tensors.len() {
            let (n, m) = (terms.len(), tensors.len());
            return Err(Error::new(format!("{n} terms for {m} operands")));
        }
        if equation.chars().any(|c| c.is_ascii_digit()) {
            return Err(Error::new("dimensions go by letters"));
        }
        let (mut inputs, mut most) = (Vec::new(), 0);
        for (i, (term, tensor)) in terms.iter().zip(tensors).enumerate() {
            let named = term.replace("...", "").len();
            let dots = tensor.rank().checked_sub(named);
            let dots = dots.filter(|&n| n == 0 || (term.contains("...") && n <= 10));
            let Some(dots) = dots else {
                let ty = tensor.ty();
                let cause = format!("`{term}` does not name the dimensions of operand {i}, {ty}");
                return Err(Error::new(cause));
            };
            most = most.max(dots);
            inputs.push(labels(term, dots)?);
        }
        let output = match right {
            Some(term) => labels(term, most)?,
            None => {
                let mut all: Vec<char> = inputs.iter().flatten().copied().collect();
                all.sort_unstable();
                let once = |c: &char| {
                    c.is_ascii_alphabetic()
                        && inputs.iter().flatten().filter(|d| *d == c).count() == 1
                };
                let letters = all.into_iter().filter(once);
                labels("...", most)?.into_iter().chain(letters).collect()
            }
        };
        Ok(Equation { inputs, output })
    }
}

fn einsum(equation: &str, tensors: &[&Tensor]) -> Result<Tensor> {
    contracted(equation, tensors).map_err(|e| e.help(format!("in the equation `{equation}`")))
}

fn contracted(equation: &str, tensors: &[&Tensor]) -> Result<Tensor> {
    let Equation { inputs, output } = Equation::parse(equation, tensors)?;
    let sizes = sizes(&inputs, tensors)?;
    if let Some(c) = output.iter().find(|c| !sizes.contains_key(c)) {
        return Err(Error::new(format!("the result names `{c}`, which no operand has")));
    }
    if (1..output.len()).any(|i| output[..i].contains(&output[i])) {
        return Err(Error::new("the result names a letter twice"));
    }
    let mut parts = VecDeque::new();
    for (labels, tensor) in inputs.into_iter().zip(tensors) {
        let part = Labelled { tensor: (*tensor).clone(), labels };
        parts.push_back(part.without_ones(&sizes).without_repeats());
    }
    let mut all = parts.pop_front().ok_or_else(|| Error::new("needs an operand"))?;
    while let Some(next) = parts.pop_front() {
        let wanted = |c: char| output.contains(&c) || parts.iter().any(|p| p.labels.contains(&c));
        all = all.times(next, wanted);
    }
    all = all.summed(|c| output.contains(&c));
    let order = output.iter().filter_map(|c| all.labels.iter().position(|l| l == c));
    Ok(all.tensor.permute(&order.map(|d| d as i64).collect::<Vec<_>>()))
}

/// The size that each letter stands for; under `...` sizes of 1 give way to others.
fn sizes(inputs: &[Vec<char>], tensors: &[&Tensor]) -> Result<BTreeMap<char, usize>> {
    let mut sizes = BTreeMap::new();
    for (labels, tensor) in inputs.iter().zip(tensors) {
        for (&c, &n) in labels.iter().zip(tensor.shape()) {
            let known = sizes.entry(c).or_insert(n);
            if *known == 1 && c.is_ascii_digit() {
                *known = n;
            }
            if *known != n && !(n == 1 && c.is_ascii_digit()) {
                let what = if c.is_ascii_digit() { "...".to_string() } else { c.to_string() };
                return Err(Error::new(format!("`{what}` stands for sizes {known} and {n}")));
            }
        }
    }
    Ok(sizes)
}

/// A tensor with a letter for each dimension.
struct Labelled {
    tensor: Tensor,
    labels: Vec<char>,
}

impl Labelled {
    /// Drops dimensions of size 1 that stand for a larger size.
    fn without_ones(mut self, sizes: &BTreeMap<char, usize>) -> Self {
        for d in (0..self.labels.len()).rev() {
            if self.tensor.shape()[d] == 1 && sizes.get(&self.labels[d]).is_some_and(|&n| n > 1) {
                self.tensor = self.tensor.squeeze(d);
                self.labels.remove(d);
            }
        }
        self
    }

    /// Takes the diagonal where a letter repeats.
    fn without_repeats(mut self) -> Self {
        while let Some((i, j)) = self.repeated() {
            let n = self.tensor.shape()[i];
            let mut shape = vec![1; self.labels.len()];
            (shape[i], shape[j]) = (n, n);
            let unit = Tensor::eye(n, ferrata_ir::DType::Bool).reshape(shape);
            self.tensor = unit.select(&self.tensor, 0).sum(j);
            self.labels.remove(j);
        }
        self
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
