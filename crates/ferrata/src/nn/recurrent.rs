//! Recurrent nets: cells, and layers of them along time.

use super::{Context, Dropout, Init};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::transform::{ScanOptions, scan_with};
use crate::tree::{Tree, Visit, Visitor};
use ferrata_ir::{DType, Error, Result};

/// What a cell of a recurrent net computes in one step.
pub trait Cell: Module + Clone {
    /// Values `[batch, hidden]` that a step hands to the next one; the first is its output.
    const STATES: usize;

    /// A cell for inputs of one width and states of another.
    fn new(inputs: usize, hidden: usize, bias: bool, key: &Key) -> Self;

    /// Width of an input.
    fn inputs(&self) -> usize;

    /// Width of the state.
    fn hidden(&self) -> usize;

    /// The part of the gates that comes from inputs `[.., inputs]` alone, for any number of steps.
    fn project(&self, x: &Tensor, cx: &Context) -> Tensor;

    /// The cell with what a step reads in the dtype of `cx`.
    fn prepared(&self, cx: &Context) -> Self;

    /// The next state from the input's part of the gates and the state, of a prepared cell.
    fn step(&self, gates: &Tensor, state: &[Tensor]) -> Vec<Tensor>;
}

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $gates:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// `[gates · hidden, inputs]`.
            pub weight_ih: Tensor,
            /// `[gates · hidden, hidden]`.
            pub weight_hh: Tensor,
            /// `[gates · hidden]`.
            pub bias_ih: Option<Tensor>,
            /// `[gates · hidden]`.
            pub bias_hh: Option<Tensor>,
        }

        impl $name {
            /// A cell with parameters uniform between ±1/√hidden, as PyTorch's are.
            #[track_caller]
            pub fn new(inputs: usize, hidden: usize, bias: bool, key: &Key) -> Self {
                let init = Init::Uniform(1.0 / (hidden.max(1) as f64).sqrt());
                let rows = $gates * hidden;
                let make = |shape: &[usize], i| init.make(shape, DType::F32, &key.fold(i));
                $name {
                    weight_ih: make(&[rows, inputs], 0),
                    weight_hh: make(&[rows, hidden], 1),
                    bias_ih: bias.then(|| make(&[rows], 2)),
                    bias_hh: bias.then(|| make(&[rows], 3)),
                }
            }

            /// The cell with its parameters in the dtype of `cx`.
            fn cast(&self, cx: &Context) -> Self {
                let cast = |t: &Tensor| cx.cast(t);
                $name {
                    weight_ih: cast(&self.weight_ih),
                    weight_hh: cast(&self.weight_hh),
                    bias_ih: self.bias_ih.as_ref().map(cast),
                    bias_hh: self.bias_hh.as_ref().map(cast),
                }
            }

            /// Gate `i` of `gates [batch, gates · hidden]`.
            fn gate(gates: &Tensor, i: usize) -> Tensor {
                let hidden = gates.size(-1) / $gates;
                gates.narrow(-1, i * hidden, hidden)
            }
        }
    };
}

cell! {
    /// A long short-term memory cell (Hochreiter & Schmidhuber 1997), with gates in the order input,
    /// forget, cell, output.
    ///
    /// ```
    /// use ferrata::nn::{Context, LstmCell};
    /// use ferrata::{DType, Key, Tensor};
    /// let cell = LstmCell::new(3, 5, true, &Key::new(0));
    /// let x = Tensor::ones([2, 3], DType::F32);
    /// let (h, c) = cell.forward(&x, None, &mut Context::eval());
    /// let (h, c) = cell.forward(&x, Some((&h, &c)), &mut Context::eval());
    /// assert_eq!((h.shape(), c.shape()), ([2, 5].as_slice(), [2, 5].as_slice()));
    /// ```
    LstmCell, 4
}

cell! {
    /// A gated recurrent unit (Cho et al. 2014), with gates in the order reset, update, new, the
    /// reset gate acting on the product with the state, as in PyTorch.
    ///
    /// ```
    /// use ferrata::nn::{Context, GruCell};
    /// use ferrata::{DType, Key, Tensor};
    /// let cell = GruCell::new(3, 5, true, &Key::new(0));
    /// let h = cell.forward(&Tensor::ones([2, 3], DType::F32), None, &mut Context::eval());
    /// assert_eq!(h.shape(), [2, 5]);
    /// ```
    GruCell, 3
}

impl Cell for LstmCell {
    const STATES: usize = 2;

    fn new(inputs: usize, hidden: usize, bias: bool, key: &Key) -> Self {
        LstmCell::new(inputs, hidden, bias, key)
    }

    fn inputs(&self) -> usize {
        self.weight_ih.size(-1)
    }

    fn hidden(&self) -> usize {
        self.weight_hh.size(-1)
    }

    fn project(&self, x: &Tensor, cx: &Context) -> Tensor {
        let cell = self.cast(cx);
        // Both biases are added to the same sum.
        let bias = match (&cell.bias_ih, &cell.bias_hh) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        cx.cast(x).linear(&cell.weight_ih, bias.as_ref())
    }

    fn prepared(&self, cx: &Context) -> Self {
        self.cast(cx)
    }

    fn step(&self, gates: &Tensor, state: &[Tensor]) -> Vec<Tensor> {
        let [h, c] = state else { return state.to_vec() };
        let gates = gates + h.linear(&self.weight_hh, None);
        let gate = |i| LstmCell::gate(&gates, i);
        let c = gate(1).sigmoid() * c + gate(0).sigmoid() * gate(2).tanh();
        vec![gate(3).sigmoid() * c.tanh(), c]
    }
}

impl Cell for GruCell {
    const STATES: usize = 1;

    fn new(inputs: usize, hidden: usize, bias: bool, key: &Key) -> Self {
        GruCell::new(inputs, hidden, bias, key)
    }

    fn inputs(&self) -> usize {
        self.weight_ih.size(-1)
    }

    fn hidden(&self) -> usize {
        self.weight_hh.size(-1)
    }

    fn project(&self, x: &Tensor, cx: &Context) -> Tensor {
        let cell = self.cast(cx);
        cx.cast(x).linear(&cell.weight_ih, cell.bias_ih.as_ref())
    }

    fn prepared(&self, cx: &Context) -> Self {
        self.cast(cx)
    }

    fn step(&self, gates: &Tensor, state: &[Tensor]) -> Vec<Tensor> {
        let [h] = state else { return state.to_vec() };
        let own = h.linear(&self.weight_hh, self.bias_hh.as_ref());
        let (input, own) = (|i| GruCell::gate(gates, i), |i| GruCell::gate(&own, i));
        let reset = (input(0) + own(0)).sigmoid();
        let update = (input(1) + own(1)).sigmoid();
        let new = (input(2) + reset * own(2)).tanh();
        vec![&new + update * (h - &new)]
    }
}

/// How the layers of a recurrent net are put together.
///
/// ```
/// use ferrata::nn::Stack;
/// let how = Stack { layers: 2, bidirectional: true, ..Stack::default() };
/// assert!(how.bias && !how.batch_first && how.dropout == 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stack {
    /// How many layers: each reads the outputs of the one before.
    pub layers: usize,
    /// Whether each layer also runs from the last step to the first, with parameters of its own;
    /// both outputs stand side by side.
    pub bidirectional: bool,
    /// Whether the cells have biases.
    pub bias: bool,
    /// Whether inputs and outputs are `[batch, time, width]`, else `[time, batch, width]`.
    pub batch_first: bool,
    /// Probability of dropout between layers, in training.
    pub dropout: f64,
}

impl Default for Stack {
    /// One layer forward, with biases, time first, without dropout.
    fn default() -> Self {
        Stack { layers: 1, bidirectional: false, bias: true, batch_first: false, dropout: 0.0 }
    }
}

/// Layers of recurrent cells along time. Names of parameters are PyTorch's: `weight_ih_l0`,
/// `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `weight_ih_l0_reverse`, ….
///
/// The products of all inputs with their weights are one matrix product before the loop over time.
#[derive(Clone, Debug)]
pub struct Recurrent<C> {
    /// For each layer its cell, or two: forward and backward.
    pub cells: Vec<Vec<C>>,
    /// How they are put together.
    pub how: Stack,
}

/// A long short-term memory.
///
/// ```
/// use ferrata::nn::{Context, Lstm, Stack};
/// use ferrata::{DType, Key, Module, Tensor};
/// let how = Stack { layers: 2, batch_first: true, ..Stack::default() };
/// let lstm = Lstm::new(3, 8, how, &Key::new(0));
/// let x = Tensor::ones([5, 10, 3], DType::F32);
/// let (y, (h, c)) = lstm.forward(&x, None, &mut Context::eval());
/// assert_eq!(y.shape(), [5, 10, 8]);
/// assert_eq!((h.shape(), c.shape()), ([2, 5, 8].as_slice(), [2, 5, 8].as_slice()));
/// assert_eq!(lstm.named_parameters()[4].0, "weight_ih_l1");
/// ```
pub type Lstm = Recurrent<LstmCell>;

/// A net of gated recurrent units.
///
/// ```
/// use ferrata::nn::{Context, Gru, Stack};
/// use ferrata::{DType, Key, Tensor};
/// let how = Stack { bidirectional: true, ..Stack::default() };
/// let gru = Gru::new(3, 8, how, &Key::new(0));
/// let (y, h) = gru.forward(&Tensor::ones([10, 5, 3], DType::F32), None, &mut Context::eval());
/// assert_eq!((y.shape(), h.shape()), ([10, 5, 16].as_slice(), [2, 5, 8].as_slice()));
/// ```
pub type Gru = Recurrent<GruCell>;

impl LstmCell {
    /// The next `(h, c)` `[batch, hidden]` from `x [batch, inputs]` and the state, zeros if none.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        cx: &mut Context,
    ) -> (Tensor, Tensor) {
        pair(one_step(self, x, state.map(|(h, c)| vec![h, c]), cx))
    }
}

impl GruCell {
    /// The next state `[batch, hidden]` from `x [batch, inputs]` and the state, zeros if none.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, state: Option<&Tensor>, cx: &mut Context) -> Tensor {
        one_step(self, x, state.map(|h| vec![h]), cx).swap_remove(0)
    }
}

impl Lstm {
    /// Outputs of the last layer, `[time, batch, directions · hidden]`, and the last `(h, c)` of
    /// every cell `[layers · directions, batch, hidden]`, for `x [time, batch, inputs]` and the
    /// first state, zeros if none.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        cx: &mut Context,
    ) -> (Tensor, (Tensor, Tensor)) {
        let (y, state) = self.run(x, state.map(|(h, c)| vec![h, c]), cx);
        (y, pair(state))
    }
}

impl Gru {
    /// Outputs of the last layer, `[time, batch, directions · hidden]`, and the last state of every
    /// cell `[layers · directions, batch, hidden]`, for `x [time, batch, inputs]` and the first
    /// state, zeros if none.
    #[track_caller]
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<&Tensor>,
        cx: &mut Context,
    ) -> (Tensor, Tensor) {
        let (y, mut state) = self.run(x, state.map(|h| vec![h]), cx);
        (y, state.swap_remove(0))
    }
}

fn pair(mut state: Vec<Tensor>) -> (Tensor, Tensor) {
    let second = state.swap_remove(1);
    (state.swap_remove(0), second)
}

#[track_caller]
fn one_step<C: Cell>(
    cell: &C,
    x: &Tensor,
    state: Option<Vec<&Tensor>>,
    cx: &mut Context,
) -> Vec<Tensor> {
    Tensor::op_many("recurrent_cell", &[x], C::STATES, || {
        expect_shape("the input", x, &[None, Some(cell.inputs())])?;
        let shape = [x.shape()[0], cell.hidden()];
        let state = first_state::<C>(state, &shape, x.dtype(), cx)?;
        Ok(cell.prepared(cx).step(&cell.project(x, cx), &state))
    })
}

/// The given state in the dtype of `cx`, or zeros.
fn first_state<C: Cell>(
    state: Option<Vec<&Tensor>>,
    shape: &[usize],
    dtype: DType,
    cx: &Context,
) -> Result<Vec<Tensor>> {
    let Some(state) = state else {
        let zeros = cx.cast(&Tensor::zeros(shape, dtype));
        return Ok(vec![zeros; C::STATES]);
    };
    let want: Vec<Option<usize>> = shape.iter().map(|&n| Some(n)).collect();
    state
        .into_iter()
        .map(|t| {
            t.error().map_or(Ok(()), Err)?;
            expect_shape("the state", t, &want)?;
            Ok(cx.cast(t))
        })
        .collect()
}

fn expect_shape(what: &str, x: &Tensor, want: &[Option<usize>]) -> Result<()> {
    let fits = |(&have, want): (&usize, &Option<usize>)| want.is_none_or(|n| n == have);
    if x.rank() == want.len() && x.shape().iter().zip(want).all(fits) {
        return Ok(());
    }
    let sizes = want.iter().map(|n| n.map_or("_".to_string(), |n| n.to_string()));
    let sizes = sizes.collect::<Vec<_>>().join(", ");
    Err(Error::new(format!("{what} is {}, but must have shape [{sizes}]", x.ty())))
}

impl<C: Cell> Recurrent<C> {
    /// Layers for inputs of this width, initialised as PyTorch does.
    #[track_caller]
    pub fn new(inputs: usize, hidden: usize, how: Stack, key: &Key) -> Self {
        let directions = 1 + usize::from(how.bidirectional);
        let cell = |layer: usize, direction: usize| {
            let width = if layer == 0 { inputs } else { directions * hidden };
            let key = key.fold((layer * directions + direction) as u32);
            C::new(width, hidden, how.bias, &key)
        };
        let layer = |l| (0..directions).map(|d| cell(l, d)).collect();
        Recurrent { cells: (0..how.layers).map(layer).collect(), how }
    }

    #[track_caller]
    fn run(
        &self,
        x: &Tensor,
        state: Option<Vec<&Tensor>>,
        cx: &mut Context,
    ) -> (Tensor, Vec<Tensor>) {
        let mut results = Tensor::op_many("recurrent", &[x], 1 + C::STATES, || {
            let Some(first) = self.cells.first().and_then(|layer| layer.first()) else {
                return Err(Error::new("has no layers"));
            };
            expect_shape("the input", x, &[None, None, Some(first.inputs())])?;
            let turn =
                |x: &Tensor| if self.how.batch_first { x.transpose(0, 1) } else { x.clone() };
            let mut x = cx.cast(&turn(x));
            let count = self.cells.iter().map(Vec::len).sum();
            let shape = [count, x.shape()[1], first.hidden()];
            let state = first_state::<C>(state, &shape, x.dtype(), cx)?;
            let mut last: Vec<Vec<Tensor>> = vec![Vec::new(); C::STATES];
            for (l, layer) in self.cells.iter().enumerate() {
                if l > 0 {
                    let dropout = Dropout::new(self.how.dropout);
                    x = cx.scope(&format!("l{l}"), |cx| dropout.forward(&x, cx));
                }
                let mut outputs = Vec::new();
                for (d, cell) in layer.iter().enumerate() {
                    let start = state.iter().map(|s| s.at(last[0].len())).collect();
                    let (end, output) = along_time(cell, &x, start, d == 1, cx);
                    last.iter_mut().zip(end).for_each(|(all, end)| all.push(end));
                    outputs.push(output);
                }
                x = Tensor::concat(&outputs.iter().collect::<Vec<_>>(), -1);
            }
            let stacked = last.iter().map(|all| Tensor::stack(&all.iter().collect::<Vec<_>>(), 0));
            Ok([turn(&x)].into_iter().chain(stacked).collect())
        });
        let state = results.split_off(1);
        (results.swap_remove(0), state)
    }
}

/// The last state and the outputs of one cell.
fn along_time<C: Cell>(
    cell: &C,
    x: &Tensor,
    start: Vec<Tensor>,
    reverse: bool,
    cx: &Context,
) -> (Vec<Tensor>, Tensor) {
    let (gates, cell) = (cell.project(x, cx), cell.prepared(cx));
    let options = ScanOptions { reverse, ..ScanOptions::default() };
    scan_with(start, &gates, options, |state: &Vec<Tensor>, gates: &Tensor| {
        let next = cell.step(gates, state);
        let output = next[0].clone();
        (next, output)
    })
}

impl<C: Cell> Tree for Recurrent<C> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module(|visitor| {
            visitor.setting(&self.how);
            for (l, layer) in self.cells.iter().enumerate() {
                for (d, cell) in layer.iter().enumerate() {
                    let suffix = if d == 0 { "" } else { "_reverse" };
                    let (mut parts, mut settings) = (Vec::new(), String::new());
                    cell.visit(&mut Visitor::new(&mut |visit| match visit {
                        Visit::Tensor { path, tensor, .. } => {
                            parts.push((format!("{path}_l{l}{suffix}"), tensor.clone()));
                        }
                        Visit::Setting(s) => settings += &format!("{s:?};"),
                    }));
                    visitor.setting(&settings);
                    parts.iter().for_each(|(name, part)| visitor.field(name, part));
                }
            }
        });
    }

    fn rebuild(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        let mut layer = |cells: &Vec<C>| cells.iter().map(|cell| cell.rebuild(f)).collect();
        Recurrent { cells: self.cells.iter().map(&mut layer).collect(), how: self.how }
    }
}

impl<C: Cell> Module for Recurrent<C> {}
