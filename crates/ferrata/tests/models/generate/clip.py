"""A small CLIP with random weights and what transformers computes from it in float64.

    python clip.py ../data

writes clip-tiny/: config.json and model.safetensors as transformers saves them, and
golden.safetensors. It prints how far float32 is off, from which the test's tolerances come.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

BATCH, LENGTH, SIDE = 3, 8, 12
BEGIN, END, ADDED, VOCABULARY = 48, 49, 50, 51


def config():
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": LENGTH,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": SIDE,
        "patch_size": 4,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)


def results(start, ids, images, dtype):
    model = CLIPModel(config()).to(dtype).eval()
    model.load_state_dict(start)
    out = model(input_ids=ids, pixel_values=images.to(dtype), return_loss=True)
    out.loss.backward()
    found = {
        "text": out.text_embeds,
        "image": out.image_embeds,
        "logits": out.logits_per_image,
        "loss": out.loss,
    }
    found |= {f"grad/{name}": p.grad for name, p in model.named_parameters()}
    # What configurations from before 2023 mean: the token with the largest id ends the text.
    model.text_model.eos_token_id = 2
    found["text_largest"] = model(input_ids=ids, pixel_values=images.to(dtype)).text_embeds
    return {name: value.detach() for name, value in found.items()}


def main():
    folder = Path(sys.argv[1]) / "clip-tiny"
    torch.manual_seed(7)
    model = CLIPModel(config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger than usual, and biases too, so that every part counts.
            if name != "logit_scale":
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    start = model.state_dict()
    ids = torch.randint(1, BEGIN, (BATCH, LENGTH))
    ids[:, 0] = BEGIN
    # Texts end at different places; behind the end of the second one there is another end.
    ids[0, 3], ids[1, 5], ids[1, 6], ids[2, 7] = END, END, END, END
    ids[0, 4:], ids[1, 7:] = 0, 0
    ids[0, 2] = ADDED
    images = torch.randn(BATCH, 3, SIDE, SIDE)
    exact = results(start, ids, images, torch.float64)
    single = results(start, ids, images, torch.float32)
    for name, value in exact.items():
        print(name, (single[name] - value).abs().max().item(), value.abs().max().item())
    golden = {k: v.float() if k.startswith("grad/") else v for k, v in exact.items()}
    golden |= {"ids": ids, "images": images}
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")


main()
