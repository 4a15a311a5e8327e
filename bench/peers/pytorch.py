"""PyTorch on the cases of `ferrata bench`, by the same names.

    python pytorch.py matmul-f32-64x64x64 [--seconds S]   prints {"seconds": median, "version": ...}
    python pytorch.py gpt-10m-train-f32                    trains, and says so after each step
"""

import argparse
import json
import math
import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "i8": torch.int8}
MANY = 1 << 25
GPTS = {
    "gpt-10m": dict(layers=6, dim=384, heads=6, context=256, vocabulary=65, batch=8),
    "gpt2-124m": dict(layers=12, dim=768, heads=12, context=256, vocabulary=50257, batch=2),
}


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        batch, time_, dim = x.shape
        parts = self.attention(self.norm1(x)).split(dim, dim=-1)
        q, k, v = (p.view(batch, time_, self.heads, -1).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers, dim, heads, context, vocabulary, batch):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, dim), nn.Embedding(context, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        logits = self.norm(self.blocks(x)) @ self.tokens.weight.T
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def training(gpt, dtype):
    """A function that takes a step: forward, backward, AdamW."""
    sizes = GPTS[gpt]
    torch.manual_seed(0)
    model = Gpt(**sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    shape = (sizes["batch"], sizes["context"])
    ids, targets = (torch.randint(0, sizes["vocabulary"], shape) for _ in range(2))

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(ids, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


NETS = {"resnet18": 32, "resnet50": 224, "mobilenet-v2": 224}


def net(name):
    """A network of convolutions and a maker of its images, channels last, which is its fastest."""
    import torchvision

    torch.manual_seed(0)
    if name == "resnet18":
        model = torchvision.models.resnet18(num_classes=10)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    else:
        model = getattr(torchvision.models, name.replace("-", "_"))()
    side = NETS[name]
    last = torch.channels_last
    images = lambda batch: torch.randn(batch, 3, side, side).to(memory_format=last)
    return model.to(memory_format=last), images


def net_training(name, batch, dtype):
    """A function that takes a step: forward, backward, SGD with momentum."""
    model, images = net(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-4, momentum=0.9)
    x, labels = images(batch), torch.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def net_inference(name, dtype):
    """A function that runs one image."""
    model, images = net(name)
    model, x = model.eval().to(dtype), images(1).to(dtype)

    def run():
        with torch.inference_mode():
            return model(x)

    return run


class Stream(nn.Module):
    """Patches or tokens in a layer of the painter."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.q_norm, self.k_norm = (nn.RMSNorm(dim // heads, eps=1e-6) for _ in range(2))

    @staticmethod
    def changed(x, shift, scale):
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift

    def parts(self, x, changes):
        x = self.changed(x, changes[0], changes[1])
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.q_norm(q), self.k_norm(k), v

    def after(self, x, y, changes):
        x = x + changes[2] * self.project(y)
        y = self.up(self.changed(x, changes[3], changes[4]))
        return x + changes[5] * self.down(F.gelu(y, approximate="tanh"))


class Painter(nn.Module):
    """The model of recipes/scenes.toml, layer by layer as Ferrata has it."""

    def __init__(self, dim=192, layers=8, heads=3, patch=4, side=32, tokens=400, length=19):
        super().__init__()
        self.patch, self.rows = patch, side // patch
        self.patches = nn.Linear(3 * patch * patch, dim)
        self.positions = nn.Parameter(torch.randn(1, self.rows**2, dim))
        self.tokens = nn.Embedding(tokens, dim)
        self.token_positions = nn.Parameter(torch.randn(1, length, dim))
        self.time = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.text = nn.Linear(dim, dim)
        self.changes, self.last = nn.Linear(dim, 12 * dim), nn.Linear(dim, 2 * dim)
        self.tables = nn.Parameter(torch.zeros(layers, 12, dim))
        self.last_table = nn.Parameter(torch.zeros(2, dim))
        streams = lambda: nn.ModuleList(Stream(dim, heads) for _ in range(layers))
        self.images, self.texts = streams(), streams()
        self.output = nn.Linear(dim, 3 * patch * patch)

    def forward(self, x, t, ids):
        image = self.patches(F.unfold(x, self.patch, stride=self.patch).mT) + self.positions
        tokens = self.tokens(ids)
        rates = torch.exp(torch.arange(128) * (-math.log(10_000) / 128))
        angles = 1000 * t[:, None] * rates
        condition = F.silu(self.time(torch.cat([angles.cos(), angles.sin()], 1)) + self.text(tokens.mean(1)))
        text = tokens + self.token_positions
        common = self.changes(condition).unflatten(-1, (12, -1))
        for a, b, table in zip(self.images, self.texts, self.tables):
            changes = (common + table).transpose(0, 1).unsqueeze(2)
            first, second = a.parts(image, changes[:6]), b.parts(text, changes[6:])
            q, k, v = (torch.cat(pair, 2) for pair in zip(first, second))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            image = a.after(image, y[:, : image.shape[1]], changes[:6])
            text = b.after(text, y[:, image.shape[1] :], changes[6:])
        shift, scale = (self.last(condition).unflatten(-1, (2, -1)) + self.last_table).unsqueeze(2).unbind(1)
        y = self.output(Stream.changed(image, shift, scale))
        return F.fold(y.mT, x.shape[2:], self.patch, stride=self.patch)


def painter_training(dtype, batch=64):
    """A function that takes a step of the text-to-image model: forward, backward, AdamW."""
    torch.manual_seed(0)
    model = Painter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    data, ids = torch.rand(batch, 3, 32, 32), torch.randint(0, 400, (batch, 19))

    def step():
        optimizer.zero_grad(set_to_none=True)
        noise, t = torch.randn_like(data), torch.randn(batch).sigmoid()
        x = torch.lerp(noise, data, t[:, None, None, None])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            velocity = model(x, t, ids)
        loss = F.mse_loss(velocity.float(), data - noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def product(dtype, sizes):
    m, n, k = map(int, sizes.split("x"))
    if dtype == torch.int8:
        x = torch.randint(-100, 100, (m, k), dtype=dtype)
        y = torch.randint(-100, 100, (k, n), dtype=dtype)
        return lambda: torch._int_mm(x, y)
    x, y = torch.rand(m, k).to(dtype), torch.rand(k, n).to(dtype)
    return lambda: x @ y


def gradient(forward, *operands):
    """Forward and backward; each operand gets a gradient."""
    for operand in operands:
        operand.requires_grad_()
    cotangent = torch.rand_like(forward(*operands))
    return lambda: torch.autograd.grad(forward(*operands), operands, cotangent)


def attention(dtype, backward):
    q, k, v = (torch.rand(1, 12, 2048, 64).to(dtype) for _ in range(3))
    forward = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return gradient(forward, q, k, v) if backward else lambda: forward(q, k, v)


def rows(name):
    x = torch.rand(1 << 15, 1 << 10)
    scale, shift = torch.rand(1 << 10), torch.rand(1 << 10)
    softmax = lambda x: x.softmax(-1)
    norm = lambda x, w, b: F.layer_norm(x, (1 << 10,), w, b)
    return {
        "softmax": lambda: lambda: softmax(x),
        "softmax-gradient": lambda: gradient(softmax, x),
        "layer-norm": lambda: lambda: norm(x, scale, shift),
        "layer-norm-gradient": lambda: gradient(norm, x, scale, shift),
    }[name]()


def elementwise(name):
    x = torch.rand(MANY)
    gelu = lambda x: F.gelu(x, approximate="tanh")
    return {
        "add": lambda: (lambda y: lambda: x + y)(torch.rand(MANY)),
        "exp": lambda: lambda: x.exp(),
        "gelu": lambda: lambda: gelu(x),
        "gelu-gradient": lambda: gradient(gelu, x),
        "dropout": lambda: lambda: F.dropout(x, 0.1, training=True),
        "sum": lambda: lambda: x.sum(),
    }[name]()


def cross_entropy(backward):
    logits, ids = torch.rand(2048, 50257), torch.randint(0, 50257, (2048,))
    forward = lambda x: F.cross_entropy(x, ids)
    if not backward:
        return lambda: forward(logits)
    logits.requires_grad_()
    return lambda: torch.autograd.grad(forward(logits), logits)


def adamw(parameters):
    parameter = torch.ones(parameters, requires_grad=True)
    parameter.grad = torch.ones(parameters)
    return torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.1, fused=True).step


def prepare(name):
    """A function that does the case once."""
    parts = name.split("-")
    if parts[0] == "matmul":
        return product(DTYPES[parts[1]], parts[2])
    if parts[0] == "attention":
        return attention(DTYPES[parts[-1]], "gradient" in parts)
    if "step" in parts:
        model, _, dtype = name.partition("-step-")
        if model in GPTS:
            return training(model, DTYPES[dtype])
        if model == "painter":
            return painter_training(DTYPES[dtype])
        return net_training(model, 32 if model == "resnet18" else 8, DTYPES[dtype])
    if "inference" in parts:
        model, _, dtype = name.partition("-inference-")
        return net_inference(model, DTYPES[dtype])
    if parts[0] == "adamw":
        return adamw(int(parts[1]))
    if name.startswith("cross-entropy"):
        return cross_entropy("gradient" in parts)
    return rows(name) if name.startswith(("softmax", "layer-norm")) else elementwise(name)


def measure(run, budget):
    """The median time of a run, short ones several at once, as `ferrata bench` takes it."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    group = max(1, int(1e-3 / once) + 1)
    times, begun = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begun < budget and len(times) < 200):
        start = time.perf_counter()
        for _ in range(group):
            run()
        times.append((time.perf_counter() - start) / group)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if "-train-" in arguments.case:
        gpt, _, dtype = arguments.case.partition("-train-")
        step = training(gpt, DTYPES[dtype])
        for number in range(1, 1000):
            step()
            print(f"step {number}/1000", flush=True)
        return
    seconds = measure(prepare(arguments.case), arguments.seconds)
    print(json.dumps({"seconds": seconds, "version": torch.__version__}))


if __name__ == "__main__":
    main()
