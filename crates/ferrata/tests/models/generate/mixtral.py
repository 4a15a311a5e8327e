"""A small Mixtral with random weights and what transformers computes from it in float64.

    python mixtral.py ../data

writes mixtral-tiny/: config.json and model.safetensors as transformers saves them, and
golden.safetensors. It prints how far float32 is off, from which the test's tolerances come.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral import modeling_mixtral

BATCH, LENGTH, VOCABULARY, NEW = 3, 24, 31, 12
BALANCE = 0.3


def config():
    return MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        initializer_range=0.3,
        num_local_experts=5,
        num_experts_per_tok=2,
        router_aux_loss_coef=BALANCE,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="eager",
        experts_implementation="eager",
    )


def stacked(name, value):
    """Names of published weights, those of experts with `*` for the expert."""
    head, _, part = name.partition(".mlp.")
    if not part:
        return {name: value}
    head += ".block_sparse_moe."
    if part == "experts.gate_up_proj":
        gate, up = value.chunk(2, dim=1)
        return {head + "experts.*.w1.weight": gate, head + "experts.*.w3.weight": up}
    if part == "experts.down_proj":
        return {head + "experts.*.w2.weight": value}
    return {head + part: value}


class Double:
    """torch, but for what transformers computes in float32 whatever the model's dtype."""

    def __getattr__(self, name):
        return torch.float64 if name in ("float", "float32") else getattr(torch, name)


@contextmanager
def double():
    single, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double
    modeling_mixtral.torch = Double()
    yield
    torch.Tensor.float, modeling_mixtral.torch = single, torch


def results(start, ids, targets, dtype):
    model = MixtralForCausalLM(config()).to(dtype).eval()
    model.load_state_dict(start)
    out = model(input_ids=ids, output_router_logits=True)
    plain = cross_entropy(out.logits.flatten(0, 1), targets.flatten())
    loss = plain + BALANCE * out.aux_loss
    loss.backward()
    found = {"logits": out.logits, "loss": loss, "cross_entropy": plain}
    for name, parameter in model.named_parameters():
        for published, slope in stacked(name, parameter.grad).items():
            found[f"grad/{published}"] = slope
    return {name: value.detach() for name, value in found.items()}


def main():
    folder = Path(sys.argv[1]) / "mixtral-tiny"
    torch.manual_seed(11)
    model = MixtralForCausalLM(config()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(folder)
    start = model.state_dict()
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1))
    ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    with double():
        exact = results(start, ids, targets, torch.float64)
    single = results(start, ids, targets, torch.float32)
    for name, value in exact.items():
        print(name, (single[name] - value).abs().max().item(), value.abs().max().item())
    golden = {k: v.float() if k.startswith("grad/") else v for k, v in exact.items()}
    prompt = ids[:1, :5]
    new = model.generate(prompt, max_new_tokens=NEW, do_sample=False)[0, 5:]
    golden |= {"input_ids": ids, "targets": targets}
    golden |= {"generation/0/prompt": prompt[0], "generation/0/new": new}
    save_file({k: v.clone().contiguous() for k, v in golden.items()}, folder / "golden.safetensors")


main()
