"""A small MMDiT with random weights and what PyTorch computes from it in float64.

    python mmdit.py ../data

writes mmdit-tiny/: config.json, model.safetensors and golden.safetensors. It prints how far float32
is off, from which the test's tolerances come.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from velocity import record, waves

SIDE, COLOURS, LENGTH = 8, 3, 5
CONFIG = {
    "model_type": "mmdit",
    "image_size": SIDE,
    "num_channels": COLOURS,
    "vocab_size": 11,
    "max_position_embeddings": LENGTH,
    "patch_size": 2,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "dtype": "float32",
}
WIDTH, HEADS = CONFIG["hidden_size"], CONFIG["num_attention_heads"]
HIDDEN, LAYERS = CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
PATCH, VOCABULARY = CONFIG["patch_size"], CONFIG["vocab_size"]


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, COLOURS, PATCH, PATCH) * 0.3)
        self.bias = nn.Parameter(torch.randn(WIDTH) * 0.3)

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, stride=PATCH).flatten(2).mT


class Condition(nn.Module):
    def __init__(self):
        super().__init__()
        self.time_in, self.time_out = nn.Linear(256, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.text = nn.Linear(WIDTH, WIDTH)
        self.changes, self.output = nn.Linear(WIDTH, 12 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, t, text):
        time = self.time_out(F.silu(self.time_in(waves(1000 * t, 256))))
        both = F.silu(time + self.text(text))
        return self.changes(both).unflatten(1, (12, -1)), self.output(both).unflatten(1, (2, -1))


def changed(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.attended = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.query_norm, self.key_norm = (nn.RMSNorm(WIDTH // HEADS, eps=1e-6) for _ in range(2))
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def heads(self, x, changes):
        q, k, v = self.qkv(changed(x, changes[0], changes[1])).chunk(3, 2)
        split = lambda x: x.unflatten(2, (HEADS, -1)).transpose(1, 2)
        return self.query_norm(split(q)), self.key_norm(split(k)), split(v)

    def after(self, x, y, changes):
        x = x + changes[2][:, None] * self.attended(y)
        y = F.gelu(self.up(changed(x, changes[3], changes[4])), approximate="tanh")
        return x + changes[5][:, None] * self.down(y)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(12, WIDTH))
        self.image, self.text = Stream(), Stream()

    def forward(self, image, text, common):
        changes = (common + self.table).unbind(1)
        both = zip(self.image.heads(image, changes[:6]), self.text.heads(text, changes[6:]))
        y = F.scaled_dot_product_attention(*(torch.cat(pair, 2) for pair in both))
        seen, read = y.transpose(1, 2).flatten(2).split([image.shape[1], text.shape[1]], 1)
        return self.image.after(image, seen, changes[:6]), self.text.after(text, read, changes[6:])


class Mmdit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.tokens = Patches(), nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.zeros(1, (SIDE // PATCH) ** 2, WIDTH))
        self.token_positions = nn.Parameter(torch.zeros(1, LENGTH, WIDTH))
        self.condition = Condition()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.output_table = nn.Parameter(torch.zeros(2, WIDTH))
        self.output = nn.Linear(WIDTH, COLOURS * PATCH * PATCH)

    def forward(self, x, t, ids):
        tokens = self.tokens(ids)
        common, last = self.condition(t, tokens.mean(1))
        image, text = self.patches(x) + self.positions, tokens + self.token_positions
        for layer in self.layers:
            image, text = layer(image, text, common)
        y = self.output(changed(image, *(last + self.output_table).unbind(1)))
        return F.fold(y.mT, (SIDE, SIDE), PATCH, stride=PATCH)


record("mmdit-tiny", Mmdit, CONFIG)
