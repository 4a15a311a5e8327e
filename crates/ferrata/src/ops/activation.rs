//! Activations and careful functions of two values: composites, one line each.

use crate::tensor::{IntoOperand, Tensor, broadcast_shape};
use ferrata_ir::composite;

macro_rules! composites {
    (
        unary { $($(#[$u:meta])* $unary:ident($($argument:ident),*)),* $(,)? }
        binary { $($(#[$b:meta])* $binary:ident),* $(,)? }
    ) => {
        impl Tensor {
            $($(#[$u])*
            #[track_caller]
            pub fn $unary(&self, $($argument: f64),*) -> Tensor {
                Tensor::built1(stringify!($unary), &[self], |b, x| {
                    composite::$unary(b, x[0], $($argument),*)
                })
            })*

            $($(#[$b])*
            #[track_caller]
            pub fn $binary(&self, other: impl IntoOperand) -> Tensor {
                let other = other.into_operand(self);
                let name = stringify!($binary);
                Tensor::op(name, &[self, &other], || {
                    let shape = broadcast_shape(&[self.shape(), other.shape()])?;
                    let (x, y) = (self.broadcast_to(&shape), other.broadcast_to(&shape));
                    Ok(Tensor::built1(name, &[&x, &y], |b, x| composite::$binary(b, x[0], x[1])))
                })
            })*
        }
    };
}

composites! {
    unary {
        /// `max(x, 0)`; the gradient at 0 is 0.
        relu(),
        /// `min(max(x, 0), 6)`.
        relu6(),
        /// `x` where it is above 0, else `slope x`.
        leaky_relu(slope),
        /// `x` where it is above 0, else `alpha (e^x - 1)`.
        elu(alpha),
        /// The self-normalising multiple of [`Tensor::elu`].
        selu(),
        /// `x / (1 + |x|)`.
        softsign(),
        /// `min(max(x + 3, 0), 6) / 6`.
        hard_sigmoid(),
        /// `x` times [`Tensor::hard_sigmoid`].
        hard_swish(),
        /// `x` times [`Tensor::sigmoid`].
        silu(),
        /// `x / 2 (1 + erf(x / √2))`.
        gelu(),
        /// The approximation of [`Tensor::gelu`] with tanh.
        gelu_tanh(),
        /// `log(1 + e^(beta x)) / beta`, without overflow.
        softplus(beta),
        /// `log(sigmoid(x))`, without overflow.
        log_sigmoid(),
        /// `x tanh(softplus(x))`.
        mish(),
    }
    binary {
        /// `silu(x) other`.
        swiglu,
        /// `log(e^x + e^other)`, without overflow.
        logaddexp,
        /// `sqrt(x² + other²)`, without overflow.
        hypot,
        /// `x - floor(x / other) other`, with the sign of `other`.
        remainder,
        /// `floor(x / other)`; the gradient is 0.
        floor_div,
    }
}
