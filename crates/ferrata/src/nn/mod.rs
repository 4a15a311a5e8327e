//! Layers: modules with a `forward` that takes a [`Context`].

mod attention;
mod context;
mod init;
mod layers;
mod mlp;
mod repeat;

pub(crate) use attention::split_heads;
pub use attention::{CacheIndex, KvCache, MultiHeadAttention, Rope};
pub use context::{Context, Policy};
pub use init::Init;
pub use layers::{Dropout, Embedding, LayerNorm, Linear, RmsNorm};
pub use mlp::{Activation, Mlp, SwiGlu};
pub use repeat::Repeat;
