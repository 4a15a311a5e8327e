"""A small MMDiT with random weights and what PyTorch computes from it in float64.

    python mmdit.py ../data

writes mmdit-tiny/: config.json, model.safetensors and golden.safetensors. It prints how far float32
is off, from which the test's tolerances come.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

BATCH, SIDE, COLOURS, LENGTH = 2, 8, 3, 5
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


def waves(x, width):
    rates = torch.exp(torch.arange(width // 2, dtype=x.dtype) * (-math.log(10_000) / (width // 2)))
    angles = x[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


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


def results(start, x, t, ids, target, dtype):
    model = Mmdit().to(dtype)
    model.load_state_dict(start)
    velocity = model(x.to(dtype), t.to(dtype), ids)
    F.mse_loss(velocity, target.to(dtype)).backward()
    # Nobody sees the text after the last layer.
    grads = {
        f"grad/{name}": torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return {"velocity": velocity.detach(), **grads}


def main():
    folder = Path(sys.argv[1]) / "mmdit-tiny"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    model = Mmdit()
    with torch.no_grad():
        for parameter in model.parameters():
            # Nothing is 0 or 1, so that every part counts.
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    start = model.state_dict()
    x, target = torch.randn(2, BATCH, COLOURS, SIDE, SIDE)
    t = torch.tensor([0.3125, 0.875])
    ids = torch.randint(VOCABULARY, (BATCH, LENGTH))
    exact = results(start, x, t, ids, target, torch.float64)
    single = results(start, x, t, ids, target, torch.float32)
    for name, value in exact.items():
        print(name, (single[name] - value).abs().max().item(), value.abs().max().item())
    golden = {k: v.float() if k.startswith("grad/") else v for k, v in exact.items()}
    golden |= {"x": x, "t": t, "ids": ids, "target": target}
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(start, folder / "model.safetensors", {"format": "pt"})
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")


main()
