//! Layers: modules with a `forward` that takes a [`Context`].

mod attention;
mod context;
mod conv;
mod experts;
mod init;
mod layers;
mod mlp;
mod norm;
mod recurrent;
mod repeat;

pub(crate) use attention::split_heads;
pub use attention::{CacheIndex, KvCache, MultiHeadAttention, Rope};
pub use context::{Context, Policy};
pub use conv::{
    Conv1d, Conv2d, Conv3d, ConvLayer, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d,
    ConvTransposeLayer,
};
pub use experts::{Experts, Routing};
pub use init::Init;
pub use layers::{Dropout, Embedding, LayerNorm, Linear, RmsNorm};
pub use mlp::{Activation, Mlp, SwiGlu};
pub use norm::{BatchNorm, GroupNorm, InstanceNorm};
pub use recurrent::{Cell, Gru, GruCell, Lstm, LstmCell, Recurrent, Stack};
pub use repeat::Repeat;
