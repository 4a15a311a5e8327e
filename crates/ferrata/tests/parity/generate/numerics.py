"""Golden cases of linear algebra, computed by PyTorch in float64 with their gradients.

    python numerics.py ../data/numerics

writes cases.json and one safetensors file for each group, in the form of data/ops. Signs of
vectors are those whose largest component is positive.
"""

import json
import struct
import sys
from pathlib import Path

import torch

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}


def write(path, tensors):
    header, body = {}, b""
    for name, tensor in tensors.items():
        data = tensor.contiguous().numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        shape = list(tensor.shape)
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


class Cases:
    def __init__(self):
        self.cases, self.files = [], {}

    def add(self, group, name, op, f, inputs, attrs={}, constants=(), tolerance=(2e-6, 2e-5)):
        """Records `f(*inputs)`; inputs are rounded to f32, and `constants` get no gradient."""
        tensors = self.files.setdefault(group, {})
        inputs = [x.float() if x.is_floating_point() else x for x in inputs]
        smooth = [
            i for i, x in enumerate(inputs) if x.is_floating_point() and i not in constants
        ]
        case = {"name": name, "group": group, "file": f"{group}.safetensors", "op": op}
        case |= {"attrs": attrs, "inputs": [], "outputs": [], "grads": []}
        case["tolerance_f32_scaled"] = dict(zip(("output", "grad"), tolerance))
        x = [i.double() if i.is_floating_point() else i for i in inputs]
        x = [i.requires_grad_() if n in smooth else i for n, i in enumerate(x)]
        results = f(*x)
        results = results if isinstance(results, tuple) else (results,)
        loss = 0
        for i, tensor in enumerate(inputs):
            tensors[f"{name}/input{i}"] = tensor
            case["inputs"].append({"key": f"{name}/input{i}"})
        for i, y in enumerate(results):
            output = {"key": f"{name}/output{i}"}
            tensors[output["key"]] = y.detach()
            if y.requires_grad:
                cotangent = torch.randn_like(y).float()
                output["cotangent"] = f"{name}/cotangent{i}"
                tensors[output["cotangent"]] = cotangent
                loss = loss + (y * cotangent.double()).sum()
            case["outputs"].append(output)
        if isinstance(loss, torch.Tensor):
            for i, grad in zip(smooth, torch.autograd.grad(loss, [x[i] for i in smooth])):
                tensors[f"{name}/grad{i}"] = grad
                case["grads"].append({"input": i, "key": f"{name}/grad{i}"})
        self.cases.append(case)

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for group, tensors in self.files.items():
            write(folder / f"{group}.safetensors", tensors)
        lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in self.cases)
        (folder / "cases.json").write_text('{"cases": [\n' + lines + "\n]}\n")


def matrices(*shape):
    """Random matrices with singular values apart from each other."""
    x = torch.randn(*shape)
    steps = torch.arange(1.0, 1 + min(shape[-2:]))
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    return u * steps @ vt


def symmetric(x):
    return (x + x.mT) / 2


def positive(*shape):
    x = torch.randn(*shape)
    return x @ x.mT + torch.eye(shape[-1])


def signs(x):
    """Of the largest component of each column."""
    place = x.detach().abs().argmax(-2, keepdim=True)
    return x.detach().gather(-2, place).sign()


def eigh(x):
    w, v = torch.linalg.eigh(symmetric(x))
    return w, v * signs(v)


def svd(x):
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    return u * signs(u), s, vt * signs(u).mT


def linalg(cases):
    la = torch.linalg

    def add(name, op, f, inputs, attrs={}, **rest):
        cases.add("linalg", name, op, f, inputs, attrs, **rest)

    add("cholesky", "cholesky", lambda x: la.cholesky(symmetric(x)), [positive(2, 5, 5)])
    for shape in [(2, 5, 3), (4, 4), (3, 5), (1, 1)]:
        name = "x".join(map(str, shape))
        add(f"qr_{name}", "qr", la.qr, [matrices(*shape)])
        add(f"svd_{name}", "svd", svd, [matrices(*shape)])
        add(f"pinv_{name}", "pinv", la.pinv, [matrices(*shape)])
        add(f"svdvals_{name}", "svdvals", la.svdvals, [matrices(*shape)])
    add("eigh", "eigh", eigh, [matrices(2, 4, 4)])
    add("eigvalsh", "eigvalsh", lambda x: la.eigvalsh(symmetric(x)), [matrices(5, 5)])
    low = matrices(5, 2) @ matrices(2, 4)
    add("pinv_rank_2", "pinv", lambda x: la.pinv(x, rtol=1e-4), [low], {"rtol": 1e-4})
    add("matrix_rank", "matrix_rank", lambda x: la.matrix_rank(x, rtol=1e-4), [low], {"rtol": 1e-4})
    add("solve", "solve", la.solve, [matrices(2, 4, 4), torch.randn(2, 4, 3)])
    add("solve_vector", "solve", la.solve, [matrices(4, 4), torch.randn(4)])
    add("solve_vectors", "solve", la.solve, [matrices(3, 4, 4), torch.randn(3, 4)])
    add("solve_broadcast", "solve", la.solve, [matrices(3, 1, 4, 4), torch.randn(2, 4, 2)])
    add("inv", "inv", la.inv, [matrices(3, 4, 4)])
    add("det", "det", la.det, [matrices(3, 4, 4)])
    add("slogdet", "slogdet", lambda x: tuple(la.slogdet(x)), [matrices(3, 4, 4)])
    least = lambda a, b: la.lstsq(a, b).solution
    add("lstsq_tall", "lstsq", least, [matrices(2, 5, 3), torch.randn(2, 5, 2)])
    add("lstsq_wide", "lstsq", lambda a, b: la.pinv(a) @ b, [matrices(3, 5), torch.randn(3, 2)])
    add(
        "cholesky_solve",
        "cholesky_solve",
        lambda b, l: torch.cholesky_solve(b, l.tril()),
        [torch.randn(2, 4, 3), la.cholesky(positive(2, 4, 4))],
    )
    for power in (0, 1, 5, -2):
        f = lambda x: la.matrix_power(x, power)
        add(f"matrix_power_{power}", "matrix_power", f, [matrices(2, 3, 3)], {"power": power})
    for name, order in (("frobenius", "fro"), ("nuclear", "nuc"), ("spectral", 2)):
        f = lambda x: la.matrix_norm(x, order)
        add(f"matrix_norm_{name}", "matrix_norm", f, [matrices(2, 4, 3)], {"norm": name})
    for lower, unit, transposed, right in [
        (True, False, False, False),
        (False, True, False, True),
        (True, False, True, False),
        (False, False, True, True),
        (True, True, True, True),
    ]:

        def solve(t, b):
            t = t.tril() if lower else t.triu()
            t, upper = (t.mT, lower) if transposed else (t, not lower)
            return la.solve_triangular(t, b, upper=upper, left=not right, unitriangular=unit)

        attrs = {"lower": lower, "unit": unit, "transposed": transposed, "right": right}
        name = "_".join(["solve_triangular"] + [k for k, v in attrs.items() if v])
        inputs = [matrices(2, 4, 4) + 2 * torch.eye(4), torch.randn(3, 4) if right else torch.randn(4, 3)]
        add(name, "solve_triangular", solve, inputs, attrs)


def main():
    torch.manual_seed(11)
    cases = Cases()
    linalg(cases)
    cases.write(Path(sys.argv[1]))


main()
