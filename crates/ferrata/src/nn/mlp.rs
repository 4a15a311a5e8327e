//! Feed-forward blocks.

use super::{Context, Linear};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree::{Tree, Visitor};

/// The function between two linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x / 2 (1 + erf(x / √2))`.
    #[default]
    Gelu,
    /// Its approximation with tanh.
    GeluTanh,
    /// A coarser one: `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
    /// `tanh(x)`.
    Tanh,
}

impl Activation {
    /// Applies it.
    #[track_caller]
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::QuickGelu => x * (x * 1.702).sigmoid(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
        }
    }

    /// `self(gate) up`, elementwise.
    #[track_caller]
    pub fn gate(self, gate: &Tensor, up: &Tensor) -> Tensor {
        match self {
            Activation::Silu => gate.swiglu(up),
            other => other.apply(gate) * up,
        }
    }
}

impl Tree for Activation {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.setting(self);
    }

    fn rebuild(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        *self
    }
}

/// Two linear layers with an activation between them.
#[derive(Clone, Debug, Module)]
pub struct Mlp {
    /// To the hidden width.
    pub up: Linear,
    /// Back.
    pub down: Linear,
    /// Between them.
    pub activation: Activation,
}

impl Mlp {
    /// From `width` to `hidden` and back, with biases and GELU.
    #[track_caller]
    pub fn new(width: usize, hidden: usize, key: &Key) -> Self {
        Mlp {
            up: Linear::new(width, hidden, &key.fold(0)),
            down: Linear::new(hidden, width, &key.fold(1)),
            activation: Activation::Gelu,
        }
    }

    /// The same shape as `x [.., width]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let hidden = cx.scope("up", |cx| self.up.forward(x, cx));
        let hidden = self.activation.apply(&hidden);
        cx.scope("down", |cx| self.down.forward(&hidden, cx))
    }
}

/// `down(silu(gate(x)) up(x))`, without biases: the block of Llama.
#[derive(Clone, Debug, Module)]
pub struct SwiGlu {
    /// To the hidden width, through the activation.
    #[module(name = "gate_proj")]
    pub gate: Linear,
    /// To the hidden width.
    #[module(name = "up_proj")]
    pub up: Linear,
    /// Back.
    #[module(name = "down_proj")]
    pub down: Linear,
}

impl SwiGlu {
    /// From `width` to `hidden` and back.
    #[track_caller]
    pub fn new(width: usize, hidden: usize, key: &Key) -> Self {
        let linear = |inputs, outputs, i| {
            Linear::with_init(inputs, outputs, false, super::Init::FanIn, &key.fold(i))
        };
        SwiGlu {
            gate: linear(width, hidden, 0),
            up: linear(width, hidden, 1),
            down: linear(hidden, width, 2),
        }
    }

    /// The same shape as `x [.., width]`.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let gate = cx.scope("gate", |cx| self.gate.forward(x, cx));
        let up = cx.scope("up", |cx| self.up.forward(x, cx));
        cx.scope("down", |cx| self.down.forward(&gate.swiglu(&up), cx))
    }
}
