//! A mixture of experts: feed-forward blocks of which each token reaches a few.

use super::{Activation, Context, Init, Linear};
use crate::module::Module;
use crate::random::Key;
use crate::tensor::{Tensor, keep};
use crate::tree::Tree;
use ferrata_ir::DType;

/// Gated feed-forward blocks, of which a router chooses some for each token (Shazeer et al. 2017):
/// the sum of `down(activation(gate(x)) up(x))` over the chosen ones, weighted with their
/// probabilities, which are scaled to a sum of 1. The block of Mixtral.
///
/// Each weight is one tensor over all experts. In files it is one for each: the `*` in its name
/// stands for the expert.
///
/// Routes are decided over all tokens of a call, so that they do not depend on how these lie on a
/// mesh. Each expert has a buffer of fixed size, its slots, which a mesh cuts along the axes
/// `expert` and `slot`.
///
/// ```
/// use ferrata::nn::{Context, Experts};
/// use ferrata::{DType, Key, Tensor};
/// let experts = Experts::new(8, 16, 4, 2, &Key::new(0));
/// let x = Tensor::randn([3, 5, 8], DType::F32, &Key::new(1));
/// let (y, routing) = experts.forward(&x, &mut Context::eval());
/// assert_eq!(y.shape(), [3, 5, 8]);
/// assert!((routing.load.sum(..).item::<f32>()? - 2.0).abs() < 1e-6);
/// # Ok::<(), ferrata::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Experts {
    /// Scores of the experts, `[experts, width]`.
    #[module(name = "gate")]
    pub router: Linear,
    /// `[experts, hidden, width]`, through the activation.
    #[module(name = "experts.*.w1.weight")]
    pub gate: Tensor,
    /// `[experts, width, hidden]`.
    #[module(name = "experts.*.w2.weight")]
    pub down: Tensor,
    /// `[experts, hidden, width]`.
    #[module(name = "experts.*.w3.weight")]
    pub up: Tensor,
    /// Of the gate.
    pub activation: Activation,
    /// How many experts a token reaches.
    pub per_token: usize,
    /// In training an expert takes at most this many times its even share of the tokens, first
    /// choices before second ones, earlier tokens before later ones; the others pass it by. Without
    /// it, and outside of training, every token reaches its experts.
    pub capacity: Option<f64>,
}

/// How the tokens of a call spread over experts.
#[derive(Clone, Debug, Tree)]
pub struct Routing {
    /// The share of the tokens that choose each expert, `[experts]`.
    pub load: Tensor,
    /// The mean probability of each expert, `[experts]`.
    pub chance: Tensor,
}

impl Routing {
    /// What a loss adds, times a small number, to keep experts evenly loaded (Fedus et al. 2022,
    /// for all layers at once as in Mixtral): the number of experts times the sum of load times
    /// chance, both as means over layers. As many as each token reaches if all are loaded evenly.
    #[track_caller]
    pub fn imbalance(layers: &[Routing]) -> Tensor {
        let mean = |part: fn(&Routing) -> &Tensor| {
            Tensor::stack(&layers.iter().map(part).collect::<Vec<_>>(), 0).mean(0)
        };
        let (load, chance) = (mean(|routing| &routing.load), mean(|routing| &routing.chance));
        let experts = load.elements() as f64;
        (load * chance).sum(..) * experts
    }
}

/// What fills the slots of each expert, `[experts, capacity]`.
struct Slots {
    /// The place among the choices of all tokens, in order of priority; outside if empty.
    choice: Tensor,
    /// The token; outside if empty.
    token: Tensor,
}

impl Experts {
    /// `experts` blocks from `width` to `hidden` and back, `per_token` of them for each token, all
    /// of which reach theirs.
    #[track_caller]
    pub fn new(width: usize, hidden: usize, experts: usize, per_token: usize, key: &Key) -> Self {
        let matrix = |outputs: usize, inputs: usize, i| {
            let bound = Init::Uniform(1.0 / (inputs.max(1) as f64).sqrt());
            bound.make(&[experts, outputs, inputs], DType::F32, &key.fold(i))
        };
        Experts {
            router: Linear::with_init(width, experts, false, Init::FanIn, &key.fold(0)),
            gate: matrix(hidden, width, 1),
            down: matrix(width, hidden, 2),
            up: matrix(hidden, width, 3),
            activation: Activation::Silu,
            per_token,
            capacity: None,
        }
    }

    /// The same shape as `x [.., width]`, and how its tokens spread.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, cx: &mut Context) -> (Tensor, Routing) {
        let x = cx.cast(x);
        let scores = cx.scope("gate", |cx| self.router.forward(&x, cx));
        let chances = scores.cast(scores.dtype().accumulator()).softmax(-1);
        let (weights, chosen) = chances.topk(self.per_token, -1, true);
        let weights = (&weights / weights.sum(keep(-1))).cast(x.dtype());
        // First choices of all tokens, then second ones.
        let by_priority = |x: &Tensor| x.move_dim(-1, 0).reshape([-1]);
        let tokens = chosen.elements() / self.per_token.max(1);
        let (slots, count) = self.slots(&by_priority(&chosen), tokens, self.capacity(tokens, cx));
        let y = cx.scope("experts", |cx| self.through(&x, &by_priority(&weights), &slots, cx));
        let each: Vec<i64> = (0..chances.rank() as i64 - 1).collect();
        let chance = chances.mean(each);
        (y, Routing { load: count.cast(chance.dtype()) / tokens as f64, chance })
    }

    /// Slots of an expert.
    fn capacity(&self, tokens: usize, cx: &Context) -> usize {
        match self.capacity.filter(|_| cx.is_training()) {
            Some(factor) => {
                let even = (self.per_token * tokens) as f64 / self.router.weight.size(0) as f64;
                ((factor * even).ceil() as usize).max(1).min(tokens)
            }
            None => tokens,
        }
    }

    /// Fills the slots of each expert with the first that `chosen [per_token tokens]` it, and counts
    /// all that did, `[experts]`.
    #[track_caller]
    fn slots(&self, chosen: &Tensor, tokens: usize, capacity: usize) -> (Slots, Tensor) {
        let experts = Tensor::arange(self.router.weight.size(0));
        let (sorted, order) = chosen.sort(0, false);
        let [first, end] = [false, true].map(|right| sorted.searchsorted(&experts, right));
        let place = first.unsqueeze(1) + Tensor::arange(capacity).unsqueeze(0);
        let filled = place.lt(end.unsqueeze(1));
        let choice = order.take(&place, 0);
        let token = choice.remainder(tokens);
        let slots = Slots {
            choice: filled.select(choice, chosen.elements()),
            token: filled.select(token, tokens),
        };
        (slots, end - first)
    }

    /// The weighted sum of what experts make of the tokens `x [.., width]` in their slots.
    #[track_caller]
    fn through(&self, x: &Tensor, weights: &Tensor, slots: &Slots, cx: &Context) -> Tensor {
        let all = x.flatten(0, -2);
        let routed = all.take(&slots.token, 0).annotate("expert,slot,-");
        let product = |x: &Tensor, weight: &Tensor| x.matmul(&cx.cast(weight).t());
        let (gate, up) = (product(&routed, &self.gate), product(&routed, &self.up));
        let y = product(&self.activation.gate(&gate, &up), &self.down);
        let y = y * weights.take(&slots.choice, 0).unsqueeze(-1);
        all.zeros_like().index_put_add(&[&slots.token], &y).reshape(x.shape())
    }
}
