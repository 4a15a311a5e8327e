//! The part of a `config.json` that describes a U-Net. Names are those of diffusers where it has
//! them.

use serde_json::{Map, Value, json};

use super::config::indivisible;
use super::fields::Fields;
use crate::Result;

/// Sizes of a U-Net.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels at each resolution; each has half the height and width of the one before.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks at each resolution on the way down; there is one more on the way up.
    pub layers_per_block: usize,
    /// Heights in pixels at which residual blocks are followed by attention; the lowest resolution
    /// always has it in the middle.
    pub attention_resolutions: Vec<usize>,
    /// Channels of an attention head; divides the channels wherever there is attention.
    pub attention_head_dim: usize,
    /// Groups of channels that are normalised together; divides all numbers of channels.
    pub norm_num_groups: usize,
    /// Width of the states of a caption's tokens.
    pub cross_attention_dim: usize,
    /// Number of layers that a caption passes through.
    pub text_layers: usize,
}

impl UNetConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<UNetConfig> {
        Ok(UNetConfig {
            block_out_channels: fields.sizes("block_out_channels")?,
            layers_per_block: fields.optional_size("layers_per_block")?.unwrap_or(2),
            attention_resolutions: fields.sizes("attention_resolutions")?,
            attention_head_dim: fields.size(&["attention_head_dim"])?,
            norm_num_groups: fields.optional_size("norm_num_groups")?.unwrap_or(32),
            cross_attention_dim: fields.size(&["cross_attention_dim"])?,
            text_layers: fields.size(&["text_layers"])?,
        })
    }

    pub(super) fn to_map(&self) -> Map<String, Value> {
        let values = [
            ("block_out_channels", json!(self.block_out_channels)),
            ("layers_per_block", json!(self.layers_per_block)),
            ("attention_resolutions", json!(self.attention_resolutions)),
            ("attention_head_dim", json!(self.attention_head_dim)),
            ("norm_num_groups", json!(self.norm_num_groups)),
            ("cross_attention_dim", json!(self.cross_attention_dim)),
            ("text_layers", json!(self.text_layers)),
        ];
        values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Number of repeated blocks.
    pub(super) fn layers(&self) -> usize {
        self.text_layers.max(self.layers_per_block).max(self.block_out_channels.len())
    }

    /// What does not fit together, for pictures of this height and width.
    pub(super) fn problem(&self, image_size: usize) -> Option<String> {
        let (head, groups) = (self.attention_head_dim, self.norm_num_groups);
        let Some(halvings) = self.block_out_channels.len().checked_sub(1) else {
            return Some(
                "`block_out_channels` is empty; give one number for each resolution".into(),
            );
        };
        let smallest =
            1usize.checked_shl(halvings as u32).filter(|n| image_size.is_multiple_of(*n));
        if smallest.is_none() {
            return Some(format!(
                "`image_size` = {image_size} cannot be halved {halvings} times; give \
                 `block_out_channels` fewer numbers or choose another size"
            ));
        }
        let sizes: Vec<usize> = (0..=halvings).map(|i| image_size >> i).collect();
        if let Some(size) = self.attention_resolutions.iter().find(|size| !sizes.contains(size)) {
            return Some(format!(
                "`attention_resolutions` has {size}, but the heights are {sizes:?}; choose of these"
            ));
        }
        let at = |(channels, size): (&usize, &usize)| {
            let attends = self.attention_resolutions.contains(size) || Some(size) == sizes.last();
            indivisible("norm_num_groups", groups, "block_out_channels", *channels).or_else(|| {
                let problem =
                    || indivisible("attention_head_dim", head, "block_out_channels", *channels);
                attends.then(problem).flatten()
            })
        };
        indivisible("attention_head_dim", head, "cross_attention_dim", self.cross_attention_dim)
            .or_else(|| self.block_out_channels.iter().zip(&sizes).find_map(at))
    }
}
