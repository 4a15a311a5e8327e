//! U-Net: residual blocks of convolutions at falling and rising resolutions, with attention to the
//! pixels and to a text where pictures are small enough for it, as in ADM (Dhariwal & Nichol 2021)
//! and Stable Diffusion (Rombach et al. 2022). Parts have the names that diffusers gives them.

use super::attention::attend_both_ways;
use super::clip::embedded;
use super::mmdit::{TIME_SCALE, waves};
use crate::module::Module;
use crate::nn::{
    Context, Conv2d, Dropout, Embedding, GroupNorm, Init, LayerNorm, Linear, Mlp,
    MultiHeadAttention, Repeat, split_heads,
};
use crate::random::Key;
use crate::tensor::Tensor;
use crate::tree;
use ferrata_formats::huggingface::{FlowConfig, UNetConfig};
use ferrata_ir::composite::{Conv, Interpolation};

/// A U-Net that tells velocities.
#[derive(Clone, Debug, Module)]
pub struct UNet {
    /// The caption.
    pub text_encoder: TextEncoder,
    /// The time.
    pub time_embedding: TimeEmbedding,
    /// From the pixels.
    pub conv_in: Conv2d,
    /// At falling resolutions.
    pub down_blocks: Vec<DownBlock>,
    /// At the lowest.
    pub mid_block: MidBlock,
    /// At rising resolutions.
    pub up_blocks: Vec<UpBlock>,
    /// Before the last convolution.
    pub conv_norm_out: GroupNorm,
    /// To the velocities of the pixels.
    pub conv_out: Conv2d,
}

/// Tokens of a caption as states that know each other.
#[derive(Clone, Debug, Module)]
pub struct TextEncoder {
    /// `[vocab_size, width]`.
    pub token_embedding: Embedding,
    /// `[text_length, width]`.
    pub position_embedding: Embedding,
    /// The blocks.
    pub layers: Repeat<TextLayer>,
    /// The final normalisation.
    pub final_layer_norm: LayerNorm,
}

/// Attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug, Module)]
pub struct TextLayer {
    /// Before attention.
    pub layer_norm1: LayerNorm,
    /// Of all tokens to all.
    pub self_attn: MultiHeadAttention,
    /// Before the MLP.
    pub layer_norm2: LayerNorm,
    /// Feed-forward.
    pub mlp: Mlp,
}

/// Sines and cosines of the time through two layers.
#[derive(Clone, Debug, Module)]
pub struct TimeEmbedding {
    /// From sines and cosines.
    pub linear_1: Linear,
    /// To the width that all residual blocks take.
    pub linear_2: Linear,
}

/// Residual blocks at one resolution, then half of it.
#[derive(Clone, Debug, Module)]
pub struct DownBlock {
    /// The residual blocks.
    pub resnets: Vec<ResnetBlock>,
    /// Attention after each of them, or none.
    pub attentions: Vec<TransformerBlock>,
    /// Halves height and width; `None` at the lowest resolution.
    #[module(name = "downsamplers.0.conv")]
    pub downsampler: Option<Conv2d>,
}

/// Attention between two residual blocks.
#[derive(Clone, Debug, Module)]
pub struct MidBlock {
    /// Before and after attention.
    pub resnets: [ResnetBlock; 2],
    /// Attention.
    #[module(name = "attentions.0")]
    pub attention: TransformerBlock,
}

/// Residual blocks that also see what the way down had at this resolution, then twice of it.
#[derive(Clone, Debug, Module)]
pub struct UpBlock {
    /// The residual blocks.
    pub resnets: Vec<ResnetBlock>,
    /// Attention after each of them, or none.
    pub attentions: Vec<TransformerBlock>,
    /// After height and width are doubled; `None` at the highest resolution.
    #[module(name = "upsamplers.0.conv")]
    pub upsampler: Option<Conv2d>,
}

/// Two convolutions, added to the residual stream; the time scales and shifts the second one's
/// input.
#[derive(Clone, Debug, Module)]
pub struct ResnetBlock {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// To the new channels.
    pub conv1: Conv2d,
    /// Scales and shifts of the new channels.
    pub time_emb_proj: Linear,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// Begins with zeros: the block is the identity at first.
    pub conv2: Conv2d,
    /// The residual stream in the new channels, where their number changes.
    pub conv_shortcut: Option<Conv2d>,
}

/// A transformer block with the pixels as tokens: attention to each other, attention to the text,
/// MLP.
#[derive(Clone, Debug, Module)]
pub struct TransformerBlock {
    /// Before everything.
    pub norm: GroupNorm,
    /// Before attention to the pixels.
    pub norm1: LayerNorm,
    /// To the pixels.
    pub attn1: Attention,
    /// Before attention to the text.
    pub norm2: LayerNorm,
    /// To the text.
    pub attn2: Attention,
    /// Before the MLP.
    pub norm3: LayerNorm,
    /// Feed-forward.
    pub ff: Mlp,
    /// Begins with zeros: the block is the identity at first.
    pub proj_out: Linear,
}

/// Attention of one sequence to another or to itself.
#[derive(Clone, Debug, Module)]
pub struct Attention {
    /// Queries.
    pub to_q: Linear,
    /// Keys.
    pub to_k: Linear,
    /// Values.
    pub to_v: Linear,
    /// From the heads.
    #[module(name = "to_out.0")]
    pub to_out: Linear,
    /// Number of heads.
    pub heads: usize,
}

/// What all blocks are told beside their input.
struct Condition {
    /// The time, after the activation: `[batch, width]`.
    time: Tensor,
    /// States of the caption's tokens `[batch, length, width]`.
    text: Tensor,
}

/// A convolution with a kernel of 3 × 3 that keeps height and width, or halves them.
fn conv3(inputs: usize, outputs: usize, stride: usize, key: &Key) -> Conv2d {
    Conv2d::new(inputs, outputs, [3, 3], Conv::new(2).stride(stride).padding(1), key)
}

fn zeroed<M: Module>(layer: M) -> M {
    tree::map(&layer, Tensor::zeros_like)
}

impl UNet {
    /// A model with random f32 weights: layers begin as PyTorch's do, those that write into the
    /// residual stream and the last one with zeros.
    pub(super) fn new(config: &FlowConfig, unet: &UNetConfig, key: &Key) -> UNet {
        let channels = &unet.block_out_channels;
        let first = channels.first().copied().unwrap_or(1);
        let last = channels.last().copied().unwrap_or(1);
        let mut parts = Parts { unet, key: key.fold(0), count: 0 };
        let size = |level: usize| config.image_size >> level;

        let mut down_blocks = Vec::new();
        // Channels of everything on the way down that the way up gets to see.
        let (mut seen, mut width) = (vec![first], first);
        for (level, &outputs) in channels.iter().enumerate() {
            let mut block = DownBlock { resnets: vec![], attentions: vec![], downsampler: None };
            for _ in 0..unet.layers_per_block {
                block.resnets.push(parts.resnet(width, outputs));
                block.attentions.extend(parts.attention(outputs, size(level)));
                width = outputs;
                seen.push(width);
            }
            if level + 1 < channels.len() {
                block.downsampler = Some(conv3(width, width, 2, &parts.key()));
                seen.push(width);
            }
            down_blocks.push(block);
        }
        let mid_block = MidBlock {
            resnets: [parts.resnet(last, last), parts.resnet(last, last)],
            attention: parts.transformer(last),
        };
        let mut up_blocks = Vec::new();
        for (level, &outputs) in channels.iter().enumerate().rev() {
            let mut block = UpBlock { resnets: vec![], attentions: vec![], upsampler: None };
            for _ in 0..=unet.layers_per_block {
                let beside = seen.pop().unwrap_or_default();
                block.resnets.push(parts.resnet(width + beside, outputs));
                block.attentions.extend(parts.attention(outputs, size(level)));
                width = outputs;
            }
            if level > 0 {
                block.upsampler = Some(conv3(width, width, 1, &parts.key()));
            }
            up_blocks.push(block);
        }
        UNet {
            text_encoder: TextEncoder::new(config, unet, &key.fold(1)),
            time_embedding: TimeEmbedding {
                linear_1: Linear::new(first, 4 * first, &key.fold(2)),
                linear_2: Linear::new(4 * first, 4 * first, &key.fold(3)),
            },
            conv_in: conv3(config.channels, first, 1, &key.fold(4)),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(unet.norm_num_groups, first),
            conv_out: zeroed(conv3(first, config.channels, 1, key)),
        }
    }

    /// The velocity of `x [batch, channels, height, width]` at times `t [batch]`, for captions
    /// `text`, i64 `[batch, text_length]`: the shape of `x`. Height and width must be divisible by
    /// 2 as often as there are resolutions below the first.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, t: &Tensor, text: &Tensor, cx: &mut Context) -> Tensor {
        let text = cx.scope("text_encoder", |cx| self.text_encoder.forward(text, cx));
        let time = cx.scope("time_embedding", |cx| self.time_embedding.forward(t, cx));
        let condition = Condition { time: time.silu(), text };

        let mut x = cx.scope("conv_in", |cx| self.conv_in.forward(x, cx));
        let mut seen = vec![x.clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            x = cx.scope(&name, |cx| block.forward(&x, &condition, &mut seen, cx));
        }
        x = cx.scope("mid_block", |cx| self.mid_block.forward(&x, &condition, cx));
        for (i, block) in self.up_blocks.iter().enumerate() {
            let name = format!("up_blocks.{i}");
            x = cx.scope(&name, |cx| block.forward(&x, &condition, &mut seen, cx));
        }
        let x = cx.scope("conv_norm_out", |cx| self.conv_norm_out.forward(&x, cx)).silu();
        cx.scope("conv_out", |cx| self.conv_out.forward(&x, cx))
    }
}

/// Makes the parts that resolutions have in common, each with a random key of its own.
struct Parts<'a> {
    unet: &'a UNetConfig,
    key: Key,
    count: u32,
}

impl Parts<'_> {
    fn key(&mut self) -> Key {
        self.count += 1;
        self.key.fold(self.count)
    }

    fn resnet(&mut self, inputs: usize, outputs: usize) -> ResnetBlock {
        let groups = self.unet.norm_num_groups;
        let time = 4 * self.unet.block_out_channels.first().copied().unwrap_or(1);
        ResnetBlock {
            norm1: GroupNorm::new(groups, inputs),
            conv1: conv3(inputs, outputs, 1, &self.key()),
            time_emb_proj: Linear::new(time, 2 * outputs, &self.key()),
            norm2: GroupNorm::new(groups, outputs),
            conv2: zeroed(conv3(outputs, outputs, 1, &self.key())),
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2d::new(inputs, outputs, [1, 1], Conv::new(2), &self.key())),
        }
    }

    /// Attention for pictures of this size, if there is any.
    fn attention(&mut self, channels: usize, size: usize) -> Option<TransformerBlock> {
        let wanted = self.unet.attention_resolutions.contains(&size);
        wanted.then(|| self.transformer(channels))
    }

    fn transformer(&mut self, channels: usize) -> TransformerBlock {
        let text = self.unet.cross_attention_dim;
        let heads = channels / self.unet.attention_head_dim.max(1);
        TransformerBlock {
            norm: GroupNorm::new(self.unet.norm_num_groups, channels),
            norm1: LayerNorm::new(channels),
            attn1: Attention::new(channels, channels, heads, &self.key()),
            norm2: LayerNorm::new(channels),
            attn2: Attention::new(channels, text, heads, &self.key()),
            norm3: LayerNorm::new(channels),
            ff: Mlp::new(channels, 4 * channels, &self.key()),
            proj_out: zeroed(Linear::new(channels, channels, &self.key())),
        }
    }
}

impl TextEncoder {
    fn new(config: &FlowConfig, unet: &UNetConfig, key: &Key) -> TextEncoder {
        let width = unet.cross_attention_dim;
        let table = |ids, i| Embedding::with_init(ids, width, Init::Normal(0.02), &key.fold(i));
        let layer = |i| {
            let (heads, key) = (width / unet.attention_head_dim.max(1), key.fold(2).fold(i));
            let attention = MultiHeadAttention::new(width, heads, &key.fold(0));
            TextLayer {
                layer_norm1: LayerNorm::new(width),
                self_attn: MultiHeadAttention { causal: false, ..attention },
                layer_norm2: LayerNorm::new(width),
                mlp: Mlp::new(width, 4 * width, &key.fold(1)),
            }
        };
        TextEncoder {
            token_embedding: table(config.vocab_size, 0),
            position_embedding: table(config.text_length, 1),
            layers: (0..unet.text_layers as u32).map(layer).collect(),
            final_layer_norm: LayerNorm::new(width),
        }
    }

    /// States `[batch, length, width]` of ids `[batch, length]`.
    #[track_caller]
    fn forward(&self, ids: &Tensor, cx: &mut Context) -> Tensor {
        let x = Tensor::op("text", &[ids], || {
            embedded(&self.token_embedding, &self.position_embedding, ids, cx)
        });
        let x = cx
            .scope("layers", |cx| self.layers.forward(x, cx, |layer, x, cx| layer.forward(&x, cx)));
        self.final_layer_norm.forward(&x, cx)
    }
}

impl TextLayer {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &mut Context) -> Tensor {
        let normal = self.layer_norm1.forward(x, cx);
        let x = x + cx.scope("self_attn", |cx| self.self_attn.forward(&normal, None, cx));
        let normal = self.layer_norm2.forward(&x, cx);
        &x + cx.scope("mlp", |cx| self.mlp.forward(&normal, cx))
    }
}

impl TimeEmbedding {
    /// `[batch, 4 channels]` of times `[batch]`.
    #[track_caller]
    fn forward(&self, t: &Tensor, cx: &mut Context) -> Tensor {
        let weight = &self.linear_1.weight;
        let features = waves(&(t * TIME_SCALE), weight.size(1)).cast(weight.dtype());
        let hidden = self.linear_1.forward(&features, cx).silu();
        self.linear_2.forward(&hidden, cx)
    }
}

impl DownBlock {
    /// Adds to `seen` what the way up needs.
    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        condition: &Condition,
        seen: &mut Vec<Tensor>,
        cx: &mut Context,
    ) -> Tensor {
        let mut x = x.clone();
        for (i, block) in self.resnets.iter().enumerate() {
            x = pass(block, self.attentions.get(i), &x, condition, i, cx);
            seen.push(x.clone());
        }
        if let Some(layer) = &self.downsampler {
            x = cx.scope("downsamplers", |cx| layer.forward(&x, cx));
            seen.push(x.clone());
        }
        x
    }
}

impl MidBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor, condition: &Condition, cx: &mut Context) -> Tensor {
        let [before, after] = &self.resnets;
        let x = pass(before, Some(&self.attention), x, condition, 0, cx);
        pass(after, None, &x, condition, 1, cx)
    }
}

impl UpBlock {
    /// Takes from the end of `seen` what the way down had at this resolution.
    #[track_caller]
    fn forward(
        &self,
        x: &Tensor,
        condition: &Condition,
        seen: &mut Vec<Tensor>,
        cx: &mut Context,
    ) -> Tensor {
        let mut x = x.clone();
        for (i, block) in self.resnets.iter().enumerate() {
            if let Some(beside) = seen.pop() {
                x = Tensor::concat(&[&x, &beside], 1);
            }
            x = pass(block, self.attentions.get(i), &x, condition, i, cx);
        }
        if let Some(layer) = &self.upsampler {
            let sizes = [2 * x.size(2), 2 * x.size(3)];
            let twice = x.interpolate(&sizes, Interpolation::Nearest);
            x = cx.scope("upsamplers", |cx| layer.forward(&twice, cx));
        }
        x
    }
}

/// The `i`-th residual block of a resolution and the attention after it.
#[track_caller]
fn pass(
    block: &ResnetBlock,
    attention: Option<&TransformerBlock>,
    x: &Tensor,
    condition: &Condition,
    i: usize,
    cx: &mut Context,
) -> Tensor {
    let x = cx.scope(&format!("resnets.{i}"), |cx| block.forward(x, condition, cx));
    match attention {
        Some(attention) => {
            cx.scope(&format!("attentions.{i}"), |cx| attention.forward(&x, condition, cx))
        }
        None => x,
    }
}

impl ResnetBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor, condition: &Condition, cx: &mut Context) -> Tensor {
        let hidden = self.norm1.forward(x, cx).silu();
        let hidden = cx.scope("conv1", |cx| self.conv1.forward(&hidden, cx));
        let time = cx.scope("time_emb_proj", |cx| self.time_emb_proj.forward(&condition.time, cx));
        let of_channels = time.unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
        let [scale, shift] = &of_channels[..] else { return time };
        let hidden = self.norm2.forward(&hidden, cx) * (scale + 1.0) + shift;
        let hidden = cx.scope("conv2", |cx| self.conv2.forward(&hidden.silu(), cx));
        match &self.conv_shortcut {
            Some(layer) => cx.scope("conv_shortcut", |cx| layer.forward(x, cx)) + hidden,
            None => x + hidden,
        }
    }
}

impl TransformerBlock {
    #[track_caller]
    fn forward(&self, x: &Tensor, condition: &Condition, cx: &mut Context) -> Tensor {
        let tokens = self.norm.forward(x, cx).flatten(2, 3).transpose(1, 2);
        let normal = self.norm1.forward(&tokens, cx);
        let tokens = tokens + cx.scope("attn1", |cx| self.attn1.forward(&normal, &normal, cx));
        let normal = self.norm2.forward(&tokens, cx);
        let text = &condition.text;
        let tokens = tokens + cx.scope("attn2", |cx| self.attn2.forward(&normal, text, cx));
        let normal = self.norm3.forward(&tokens, cx);
        let tokens = tokens + cx.scope("ff", |cx| self.ff.forward(&normal, cx));
        let tokens = cx.scope("proj_out", |cx| self.proj_out.forward(&tokens, cx));
        x + tokens.transpose(1, 2).reshape(x.shape())
    }
}

impl Attention {
    /// From states of `width` to those of `others`.
    fn new(width: usize, others: usize, heads: usize, key: &Key) -> Attention {
        let linear = |inputs, i| Linear::with_init(inputs, width, false, Init::FanIn, &key.fold(i));
        Attention {
            to_q: linear(width, 0),
            to_k: linear(others, 1),
            to_v: linear(others, 2),
            to_out: Linear::new(width, width, &key.fold(3)),
            heads,
        }
    }

    /// Of `x [batch, tokens, width]` to `others [batch, length, ..]`: the shape of `x`.
    #[track_caller]
    fn forward(&self, x: &Tensor, others: &Tensor, cx: &mut Context) -> Tensor {
        let mut heads = |name, layer: &Linear, x: &Tensor| {
            cx.scope(name, |cx| split_heads(&layer.forward(x, cx), self.heads))
        };
        let projected = [
            heads("to_q", &self.to_q, x),
            heads("to_k", &self.to_k, others),
            heads("to_v", &self.to_v, others),
        ];
        let y = attend_both_ways(&projected, &Dropout::new(0.0), cx);
        cx.scope("to_out", |cx| self.to_out.forward(&y, cx))
    }
}
