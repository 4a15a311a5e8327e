//! A training step as the planner sees it: layers, and what each computes, moves and keeps.
//!
//! All sizes are those of one sequence on one device that holds everything; `Cut` says what divides
//! them. [`crate::describe`] derives this from a program.

use ferrata_ir::DType;

/// What divides a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Nothing.
    Whole,
    /// The tensor axis, along positions, if activations between products are cut so too.
    Sequence,
    /// The tensor axis.
    Tensor,
    /// The expert axis, and within it the tensor axis.
    Expert,
}

/// A loop of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// Of independent products.
    Batch,
    /// Rows of the result.
    M,
    /// Columns of the result.
    N,
    /// What is summed over.
    K,
}

/// A matrix product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Independent products.
    pub batch: f64,
    /// Rows of the result.
    pub m: f64,
    /// Columns of the result.
    pub n: f64,
    /// Length of the sums.
    pub k: f64,
    /// The loop that runs over positions, so grows with the number of sequences.
    pub positions: Loop,
    /// The loop that is cut over the tensor axis.
    pub cut: Option<Loop>,
    /// Whether the products belong to experts.
    pub experts: bool,
    /// Whether nothing but the optimiser waits for it: the gradient of a weight.
    pub gradient: bool,
}

/// What data does between devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Partial sums over the tensor axis are added: all-reduce, or reduce-scatter if positions are
    /// cut.
    Reduce,
    /// Positions that are cut over the tensor axis are gathered.
    Gather,
    /// Tokens go to the devices of their experts, or come back.
    Experts,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// A matrix product.
    Product(Product),
    /// Attention in one kernel.
    Attention {
        /// Scalar operations of pairs that see each other.
        flops: f64,
        /// The same, if all pairs saw each other.
        dense: f64,
        /// Bytes of operands and results.
        bytes: f64,
        /// Bytes of keys and values among them.
        keys: f64,
        /// Heads, over which the tensor axis cuts it.
        heads: usize,
        /// Size of a head.
        size: f64,
    },
    /// Elementwise work and reductions in one kernel: bytes that are read and written, of values
    /// cut over the tensor axis and of others.
    Move {
        /// Of values that are cut over the tensor axis.
        cut: f64,
        /// Of values that are cut along positions at most.
        whole: f64,
    },
    /// Communication.
    Exchange {
        /// What kind.
        kind: Exchange,
        /// Bytes of the whole value.
        bytes: f64,
        /// Whether products that do not wait for it can hide it.
        hideable: bool,
    },
}

/// One kernel or collective.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Scope of the program.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// Whether it runs again if what grows with the square of the sequence is not kept.
    pub again: bool,
}

/// A value that the backward pass needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Scope of the program.
    pub name: String,
    /// Bytes of one sequence.
    pub bytes: f64,
    /// What divides them.
    pub cut: Cut,
    /// Whether it grows with the square of the sequence.
    pub quadratic: bool,
}

/// Weights of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Path in the model.
    pub name: String,
    /// Elements.
    pub elements: f64,
    /// What divides them.
    pub cut: Cut,
}

/// A part of a model that runs on one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Forward pass, in order.
    pub forward: Vec<Operation>,
    /// Backward pass, in order.
    pub backward: Vec<Operation>,
    /// What is kept from one to the other.
    pub kept: Vec<Kept>,
    /// The weights of one such part.
    pub weights: Vec<Weights>,
}

/// Equal layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    /// How many.
    pub count: usize,
    /// One of them.
    pub part: Part,
}

/// A model and its training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Changes with everything that a plan depends on.
    pub fingerprint: String,
    /// Positions of a sequence.
    pub sequence: usize,
    /// Dtype of matrix products.
    pub dtype: DType,
    /// What comes before the layers.
    pub embedding: Part,
    /// The layers, in order.
    pub layers: Vec<Layers>,
    /// What comes behind them, with the loss.
    pub head: Part,
    /// Elements of weights that the embedding and the head share.
    pub shared: f64,
    /// Bytes of one sequence that go from layer to layer.
    pub stream: f64,
    /// Bytes of keys and values of one layer and sequence, which devices that share a sequence
    /// exchange.
    pub keys: f64,
    /// The largest number of devices that each layer can be cut into over the tensor axis.
    pub heads: usize,
    /// Experts of a layer; 1 if there are none.
    pub experts: usize,
}

impl Product {
    /// Scalar operations; a multiplication and an addition count as two.
    pub fn flops(&self) -> f64 {
        2.0 * self.batch * self.m * self.n * self.k
    }
}

impl Operation {
    /// Scalar operations of matrix products, those of pairs that do not see each other included,
    /// as they are counted in publications.
    pub fn flops(&self) -> f64 {
        match self.work {
            Work::Product(product) => product.flops(),
            Work::Attention { dense, .. } => dense,
            Work::Move { .. } | Work::Exchange { .. } => 0.0,
        }
    }
}

impl Part {
    /// Elements of all weights.
    pub fn parameters(&self) -> f64 {
        self.weights.iter().map(|weights| weights.elements).sum()
    }

    fn flops(&self) -> f64 {
        self.forward.iter().map(Operation::flops).sum()
    }
}

impl Model {
    /// Number of layers.
    pub fn depth(&self) -> usize {
        self.layers.iter().map(|layers| layers.count).sum()
    }

    /// The layers one by one.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.layers.iter().flat_map(|layers| std::iter::repeat_n(&layers.part, layers.count))
    }

    /// Elements of all weights.
    pub fn parameters(&self) -> f64 {
        let layers: f64 = self.layers.iter().map(|l| l.part.parameters() * l.count as f64).sum();
        layers + self.embedding.parameters() + self.head.parameters() - self.shared
    }

    /// Scalar operations of matrix products in the forward pass of one sequence and the backward
    /// pass, which has two for each of them; without what is computed again.
    pub fn flops(&self) -> f64 {
        let layers: f64 = self.layers.iter().map(|l| l.part.flops() * l.count as f64).sum();
        3.0 * (layers + self.embedding.flops() + self.head.flops())
    }

    /// The paths of weights that are cut over the tensor axis: those of layers with `*` for the
    /// layer's number.
    pub fn cut_weights(&self) -> Vec<String> {
        let layers = self.layers.iter().flat_map(|layers| &layers.part.weights);
        let ends = self.embedding.weights.iter().chain(&self.head.weights);
        let cut = layers.chain(ends).filter(|weights| weights.cut != Cut::Whole);
        let mut names: Vec<String> = cut.map(|weights| starred(&weights.name)).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The path of a weight with `*` for the number of its layer.
pub fn starred(name: &str) -> String {
    let words = name.split('.').map(|word| match word.parse::<usize>() {
        Ok(_) => "*",
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join(".")
}
