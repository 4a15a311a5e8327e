"""What the generators of text-to-image networks have in common: waves of the time, and recording."""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

BATCH = 2


def waves(x, width):
    """Cosines and sines `[batch, width]` of numbers `[batch]`."""
    rates = torch.exp(torch.arange(width // 2, dtype=x.dtype) * (-math.log(10_000) / (width // 2)))
    angles = x[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def results(network, start, x, t, ids, target, dtype):
    model = network().to(dtype)
    model.load_state_dict(start)
    velocity = model(x.to(dtype), t.to(dtype), ids)
    F.mse_loss(velocity, target.to(dtype)).backward()
    # What nobody sees, such as a text after the last layer, has no gradient.
    grads = {
        f"grad/{name}": torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return {"velocity": velocity.detach(), **grads}


def record(name, network, config):
    """Writes the folder `name` below the folder of the command line."""
    folder = Path(sys.argv[1]) / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            # Nothing is 0 or 1, so that every part counts.
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    start = model.state_dict()
    side = config["image_size"]
    x, target = torch.randn(2, BATCH, config["num_channels"], side, side)
    t = torch.tensor([0.3125, 0.875])
    ids = torch.randint(config["vocab_size"], (BATCH, config["max_position_embeddings"]))
    exact = results(network, start, x, t, ids, target, torch.float64)
    single = results(network, start, x, t, ids, target, torch.float32)
    for name, value in exact.items():
        print(name, (single[name] - value).abs().max().item(), value.abs().max().item())
    golden = {k: v.float() if k.startswith("grad/") else v for k, v in exact.items()}
    golden |= {"x": x, "t": t, "ids": ids, "target": target}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(start, folder / "model.safetensors", {"format": "pt"})
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")
