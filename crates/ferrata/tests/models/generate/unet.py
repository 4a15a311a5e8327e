"""A small U-Net with random weights and what PyTorch computes from it in float64.

    python unet.py ../data

writes unet-tiny/: config.json, model.safetensors and golden.safetensors. It prints how far float32
is off, from which the test's tolerances come.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from velocity import record, waves

SIDE, COLOURS, LENGTH = 8, 3, 5
CONFIG = {
    "model_type": "unet",
    "image_size": SIDE,
    "num_channels": COLOURS,
    "vocab_size": 11,
    "max_position_embeddings": LENGTH,
    "block_out_channels": [8, 12],
    "layers_per_block": 2,
    "attention_resolutions": [4],
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "cross_attention_dim": 8,
    "text_layers": 2,
    "dtype": "float32",
}
CHANNELS, TEXT = CONFIG["block_out_channels"], CONFIG["cross_attention_dim"]
GROUPS, HEAD, TIME = CONFIG["norm_num_groups"], CONFIG["attention_head_dim"], 4 * CHANNELS[0]


class Part(nn.Module):
    """A bare module, to spell names."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def attend(q, k, v):
    split = lambda x: x.unflatten(2, (-1, HEAD)).transpose(1, 2)
    y = F.scaled_dot_product_attention(split(q), split(k), split(v))
    return y.transpose(1, 2).flatten(2)


class TextLayer(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda: nn.Linear(TEXT, TEXT, bias=False)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(TEXT), nn.LayerNorm(TEXT)
        self.self_attn = Part(q_proj=linear(), k_proj=linear(), v_proj=linear(), o_proj=linear())
        self.mlp = Part(up=nn.Linear(TEXT, 4 * TEXT), down=nn.Linear(4 * TEXT, TEXT))

    def forward(self, x):
        a, y = self.self_attn, self.layer_norm1(x)
        x = x + a.o_proj(attend(a.q_proj(y), a.k_proj(y), a.v_proj(y)))
        return x + self.mlp.down(F.gelu(self.mlp.up(self.layer_norm2(x))))


class Attention(nn.Module):
    def __init__(self, width, others):
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(others, width, bias=False)
        self.to_v = nn.Linear(others, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x, others):
        return self.to_out[0](attend(self.to_q(x), self.to_k(others), self.to_v(others)))


class Transformer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1, self.attn2 = Attention(width, width), Attention(width, TEXT)
        self.ff = Part(up=nn.Linear(width, 4 * width), down=nn.Linear(4 * width, width))
        self.proj_out = nn.Linear(width, width)

    def forward(self, x, text):
        y = self.norm(x).flatten(2).transpose(1, 2)
        z = self.norm1(y)
        y = y + self.attn1(z, z)
        y = y + self.attn2(self.norm2(y), text)
        y = y + self.ff.down(F.gelu(self.ff.up(self.norm3(y))))
        return x + self.proj_out(y).transpose(1, 2).unflatten(2, x.shape[2:])


class Resnet(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, inputs), nn.GroupNorm(GROUPS, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(TIME, 2 * outputs)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, time):
        y = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time_emb_proj(F.silu(time))[:, :, None, None].chunk(2, 1)
        y = self.conv2(F.silu(self.norm2(y) * (1 + scale) + shift))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class UNet(nn.Module):
    """Two resolutions, of which the lower one has attention."""

    def __init__(self):
        super().__init__()
        wide, narrow = CHANNELS
        self.text_encoder = Part(
            token_embedding=nn.Embedding(CONFIG["vocab_size"], TEXT),
            position_embedding=nn.Embedding(LENGTH, TEXT),
            layers=nn.ModuleList([TextLayer(), TextLayer()]),
            final_layer_norm=nn.LayerNorm(TEXT),
        )
        self.time_embedding = Part(linear_1=nn.Linear(wide, TIME), linear_2=nn.Linear(TIME, TIME))
        conv = lambda inputs, outputs, stride=1: nn.Conv2d(inputs, outputs, 3, stride, 1)
        parts = lambda *x: nn.ModuleList(x)
        self.conv_in = conv(COLOURS, wide)
        self.down_blocks = parts(
            Part(
                resnets=parts(Resnet(wide, wide), Resnet(wide, wide)),
                downsamplers=parts(Part(conv=conv(wide, wide, 2))),
            ),
            Part(
                resnets=parts(Resnet(wide, narrow), Resnet(narrow, narrow)),
                attentions=parts(Transformer(narrow), Transformer(narrow)),
            ),
        )
        self.mid_block = Part(
            resnets=parts(Resnet(narrow, narrow), Resnet(narrow, narrow)),
            attentions=parts(Transformer(narrow)),
        )
        self.up_blocks = parts(
            Part(
                resnets=parts(
                    Resnet(narrow + narrow, narrow),
                    Resnet(narrow + narrow, narrow),
                    Resnet(narrow + wide, narrow),
                ),
                attentions=parts(*(Transformer(narrow) for _ in range(3))),
                upsamplers=parts(Part(conv=conv(narrow, narrow))),
            ),
            Part(
                resnets=parts(
                    Resnet(narrow + wide, wide), Resnet(wide + wide, wide), Resnet(wide + wide, wide)
                ),
            ),
        )
        self.conv_norm_out = nn.GroupNorm(GROUPS, wide)
        self.conv_out = conv(wide, COLOURS)

    def forward(self, x, t, ids):
        encoder = self.text_encoder
        text = encoder.token_embedding(ids) + encoder.position_embedding.weight
        for layer in encoder.layers:
            text = layer(text)
        text = encoder.final_layer_norm(text)
        time = self.time_embedding.linear_1(waves(1000 * t, CHANNELS[0]))
        time = self.time_embedding.linear_2(F.silu(time))

        high, low = self.down_blocks
        x = self.conv_in(x)
        seen = [x]
        for block in high.resnets:
            x = block(x, time)
            seen.append(x)
        x = high.downsamplers[0].conv(x)
        seen.append(x)
        for block, attention in zip(low.resnets, low.attentions):
            x = attention(block(x, time), text)
            seen.append(x)
        middle = self.mid_block
        x = middle.attentions[0](middle.resnets[0](x, time), text)
        x = middle.resnets[1](x, time)
        low, high = self.up_blocks
        for block, attention in zip(low.resnets, low.attentions):
            x = attention(block(torch.cat([x, seen.pop()], 1), time), text)
        x = low.upsamplers[0].conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        for block in high.resnets:
            x = block(torch.cat([x, seen.pop()], 1), time)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


record("unet-tiny", UNet, CONFIG)
