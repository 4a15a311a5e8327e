"""Golden training runs of a small ResNet-18 and a small ViT, computed by PyTorch in float64.

    python images.py ../data

writes resnet-tiny/ and vit-tiny/: config.json and model.safetensors (the start), batches.safetensors
(for `ferrata train --replay`) and golden.safetensors. It prints how far the same run
in float32 is off, from which the tests' tolerances come.
"""

import array
import json
import struct
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS, BATCH, CLASSES, SIDE = 8, 8, 5, 12


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """The names of torchvision, with the first convolution that is usual for CIFAR."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for i in range(4):
            outputs, stride = width << i, 1 if i == 0 else 2
            blocks = nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1))
            setattr(self, f"layer{i + 1}", blocks)
            inputs = outputs
        self.fc = nn.Linear(inputs, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Part(nn.Module):
    """A bare module, to spell the names of transformers."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class VitLayer(nn.Module):
    def __init__(self, dim, hidden, heads, eps):
        super().__init__()
        self.heads = heads
        linear = lambda: nn.Linear(dim, dim)
        self.attention = Part(
            attention=Part(query=linear(), key=linear(), value=linear()), output=Part(dense=linear())
        )
        self.intermediate = Part(dense=nn.Linear(dim, hidden))
        self.output = Part(dense=nn.Linear(hidden, dim))
        self.layernorm_before = nn.LayerNorm(dim, eps)
        self.layernorm_after = nn.LayerNorm(dim, eps)

    def forward(self, x):
        y, projections = self.layernorm_before(x), self.attention.attention
        split = lambda p: p(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(projections.query), split(projections.key), split(projections.value)
        y = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        x = x + self.attention.output.dense(y.transpose(1, 2).flatten(2))
        y = F.gelu(self.intermediate.dense(self.layernorm_after(x)))
        return x + self.output.dense(y)


class Vit(nn.Module):
    def __init__(self, dim, hidden, heads, layers, patch, eps):
        super().__init__()
        patches = (SIDE // patch) ** 2
        embeddings = Part(patch_embeddings=Part(projection=nn.Conv2d(3, dim, patch, patch)))
        embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        stack = nn.ModuleList(VitLayer(dim, hidden, heads, eps) for _ in range(layers))
        norm = nn.LayerNorm(dim, eps)
        self.vit = Part(embeddings=embeddings, encoder=Part(layer=stack), layernorm=norm)
        self.classifier = nn.Linear(dim, CLASSES)
        for name, parameter in self.named_parameters():
            if "layernorm" not in name:
                # Larger than usual, and biases too, so that every part counts.
                nn.init.normal_(parameter, std=0.1)

    def forward(self, x):
        embeddings = self.vit.embeddings
        x = embeddings.patch_embeddings.projection(x).flatten(2).transpose(1, 2)
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + embeddings.position_embeddings
        for layer in self.vit.encoder.layer:
            x = layer(x)
        return self.classifier(self.vit.layernorm(x[:, 0]))


def train(model, optimizer, images, labels):
    """Losses, norms of the gradient, and the gradients of the first step."""
    losses, norms, first = [], [], None
    model.train()
    for x, t in zip(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters()}
        first = first or grads
        losses.append(loss.item())
        norms.append(sum((g.double() ** 2).sum() for g in grads.values()).sqrt().item())
        optimizer.step()
    return losses, norms, first


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items() if "num_batches" not in k}


def write(path, tensors):
    """A safetensors file."""
    kinds = {torch.float32: ("F32", "f"), torch.float64: ("F64", "d"), torch.int64: ("I64", "q")}
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        dtype, code = kinds[tensor.dtype]
        data = array.array(code, tensor.flatten().tolist()).tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def deviation(a, b):
    """Largest difference, the same by the largest entry, distance by length."""
    a, b = (torch.cat([t.double().flatten() for t in x.values()]) for x in (a, b))
    d = a - b
    top = d.abs().max().item()
    return f"{top:.1e} / {top / b.abs().max().item():.1e} / {(d.norm() / b.norm()).item():.1e}"


def record(folder, config, make, optimizer):
    torch.manual_seed(7)
    model = make().float()
    images = torch.randn(STEPS, BATCH, 3, SIDE, SIDE)
    labels = torch.randint(CLASSES, (STEPS, BATCH))
    # Something to learn: the mean colour depends on the class.
    images += (labels[:, :, None, None, None] - 2) * torch.tensor([0.5, -0.3, 0.2])[:, None, None]
    start = state(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write(folder / "model.safetensors", start)
    write(folder / "batches.safetensors", {"images": images, "labels": labels})
    results = {}
    for dtype in (torch.float64, torch.float32):
        model = make().to(dtype)
        model.load_state_dict(start, strict=False)
        model.eval()
        with torch.no_grad():
            before = model(images[0].to(dtype))
        losses, norms, grads = train(model, optimizer(model.parameters()), images.to(dtype), labels)
        model.eval()
        with torch.no_grad():
            after = model(images[0].to(dtype))
        results[dtype] = {
            "logits": {"": before},
            "grad": grads,
            "loss": {"": torch.tensor(losses).double()},
            "grad_norm": {"": torch.tensor(norms).double()},
            "final": state(model),
            "logits_final": {"": after},
        }
    exact = results[torch.float64]
    for what, value in exact.items():
        quiet = lambda x: {k: v for k, v in x.items() if "key.bias" not in k}
        print(folder.name, what, deviation(quiet(results[torch.float32][what]), quiet(value)))
    golden = {
        "trajectory/loss": exact["loss"][""],
        "trajectory/grad_norm": exact["grad_norm"][""],
        "logits": exact["logits"][""],
        "logits_final": exact["logits_final"][""],
    }
    golden |= {f"grad/{name}": grad.float() for name, grad in exact["grad"].items()}
    golden |= {f"final/{name}": value.float() for name, value in exact["final"].items()}
    write(folder / "golden.safetensors", golden)


def main():
    out = Path(sys.argv[1])
    labels = {"id2label": {str(i): name for i, name in enumerate(["ant", "bee", "cat", "dog", "elk"])}}
    record(
        out / "resnet-tiny",
        {"architecture": "resnet18", "width": 4, "stem": "cifar", **labels},
        lambda: ResNet18(4),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    )
    dim, hidden, heads, layers, patch, eps = 24, 48, 2, 2, 4, 1e-6
    record(
        out / "vit-tiny",
        {
            "model_type": "vit",
            "image_size": SIDE,
            "patch_size": patch,
            "hidden_size": dim,
            "intermediate_size": hidden,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "layer_norm_eps": eps,
            **labels,
        },
        lambda: Vit(dim, hidden, heads, layers, patch, eps),
        lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.05),
    )


main()
