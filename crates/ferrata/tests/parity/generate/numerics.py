"""Golden cases of linear algebra, Fourier transforms, segments and recurrent nets, computed by
PyTorch in float64 with their gradients.

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


def fourier(cases):
    def pairs(f):
        """A function of complex numbers, of their parts."""
        return lambda x: torch.view_as_real(f(torch.view_as_complex(x.contiguous())))

    ft = torch.fft
    # Every radix, a large prime, cut and filled, along other dimensions.
    for n, size, dim, norm in [
        (7, None, -1, "backward"),
        (12, None, -1, "ortho"),
        (10, 6, 0, "forward"),
        (11, 17, 1, "backward"),
        (19, None, -1, "forward"),
    ]:
        attrs = {"n": size, "dim": dim, "norm": norm}
        shape = [3, 4]
        shape[dim] = n
        for name, f in (("fft", ft.fft), ("ifft", ft.ifft)):
            g = pairs(lambda x: f(x, n=size, dim=dim, norm=norm))
            cases.add("fft", f"{name}_{n}_{size}", name, g, [torch.randn(*shape, 2)], attrs)
        g = lambda x: torch.view_as_real(ft.rfft(x, n=size, dim=dim, norm=norm))
        cases.add("fft", f"rfft_{n}_{size}", "rfft", g, [torch.randn(*shape)], attrs)
        for real in (size, 9, 10):
            back = lambda x: ft.irfft(torch.view_as_complex(x), n=real, dim=dim, norm=norm)
            attrs = {"n": real, "dim": dim, "norm": norm}
            inputs = [torch.randn(*shape, 2)]
            cases.add("fft", f"irfft_{n}_{real}", "irfft", back, inputs, attrs)
    for norm in ("backward", "ortho", "forward"):
        for name, f in (("fft2", ft.fft2), ("ifft2", ft.ifft2)):
            g = pairs(lambda x: f(x, norm=norm))
            cases.add("fft", f"{name}_{norm}", name, g, [torch.randn(2, 4, 6, 2)], {"norm": norm})
        for name, f in (("fftn", ft.fftn), ("ifftn", ft.ifftn)):
            g = pairs(lambda x: f(x, dim=(0, 2), norm=norm))
            attrs = {"norm": norm, "dims": [0, 2]}
            cases.add("fft", f"{name}_{norm}", name, g, [torch.randn(3, 2, 4, 2)], attrs)
        g = lambda x: torch.view_as_real(ft.rfft2(x, norm=norm))
        cases.add("fft", f"rfft2_{norm}", "rfft2", g, [torch.randn(2, 5, 6)], {"norm": norm})
        for n in (6, 7):
            g = lambda x: ft.irfft2(torch.view_as_complex(x), s=(5, n), norm=norm)
            attrs = {"norm": norm, "n": n}
            cases.add("fft", f"irfft2_{norm}_{n}", "irfft2", g, [torch.randn(2, 5, 4, 2)], attrs)
    for name, f in (("fftshift", ft.fftshift), ("ifftshift", ft.ifftshift)):
        g = lambda x: f(x, dim=(0, 1))
        cases.add("fft", name, name, g, [torch.randn(4, 5)], {"dims": [0, 1]})
    for n in (5, 6):
        f = lambda: ft.fftfreq(n, 0.25, dtype=torch.float64)
        cases.add("fft", f"fftfreq_{n}", "fftfreq", f, [], {"n": n, "spacing": 0.25})
        f = lambda: ft.rfftfreq(n, 0.25, dtype=torch.float64)
        cases.add("fft", f"rfftfreq_{n}", "rfftfreq", f, [], {"n": n, "spacing": 0.25})


def segments(cases):
    ids, count = torch.tensor([3, 0, 3, 1, 0, 3]), 4
    kinds = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -torch.inf, "amin": torch.inf}
    for kind, start in kinds.items():

        def f(x, ids):
            index = ids[:, None].expand_as(x)
            to = torch.full((count, x.shape[1]), start, dtype=x.dtype)
            # What is there takes part, but in a mean, where it would count as a row.
            return to.scatter_reduce(0, index, x, kind, include_self=kind != "mean")

        cases.add("segment", f"segment_{kind}", f"segment_{kind}", f, [torch.randn(6, 3), ids], {"count": count})
    sorted_ = torch.randn(2, 7).sort().values
    values = torch.cat([torch.randn(2, 4), sorted_[:, :2]], 1)
    for right in (False, True):
        name = "right" if right else "left"
        f = lambda s, v: torch.searchsorted(s, v, right=right)
        cases.add("segment", f"searchsorted_{name}", "searchsorted", f, [sorted_, values], {"right": right})
        f = lambda x, edges: torch.bucketize(x, edges, right=right)
        cases.add("segment", f"bucketize_{name}", "bucketize", f, [values, sorted_[0]], {"right": right})


def recurrent(cases):
    for name, kind, layers, bidirectional, batch_first, bias in [
        ("lstm", torch.nn.LSTM, 1, False, False, True),
        ("lstm_two_both_ways", torch.nn.LSTM, 2, True, True, True),
        ("lstm_no_bias", torch.nn.LSTM, 2, False, False, False),
        ("gru", torch.nn.GRU, 1, False, True, True),
        ("gru_two_both_ways", torch.nn.GRU, 2, True, False, True),
        ("gru_no_bias", torch.nn.GRU, 1, True, False, False),
    ]:
        inputs, hidden, time, batch = 3, 4, 5, 2
        net = kind(inputs, hidden, layers, bias, batch_first, 0.0, bidirectional).double()
        names = [n for n, _ in net.named_parameters()]
        states = 2 if kind is torch.nn.LSTM else 1
        count = layers * (1 + bidirectional)

        def f(x, *rest):
            state, parameters = rest[:states], dict(zip(names, rest[states:]))
            state = state if states == 2 else state[0]
            y, last = torch.func.functional_call(net, parameters, (x, state))
            return (y, *last) if states == 2 else (y, last)

        shape = (batch, time, inputs) if batch_first else (time, batch, inputs)
        given = [torch.randn(*shape)] + [torch.randn(count, batch, hidden) for _ in range(states)]
        attrs = {"hidden": hidden, "layers": layers, "bidirectional": bidirectional}
        attrs |= {"batch_first": batch_first, "bias": bias, "names": names}
        weights = [p.detach() for _, p in net.named_parameters()]
        cases.add("recurrent", name, "lstm" if states == 2 else "gru", f, given + weights, attrs)


def main():
    torch.manual_seed(11)
    cases = Cases()
    linalg(cases)
    fourier(cases)
    segments(cases)
    recurrent(cases)
    cases.write(Path(sys.argv[1]))


main()
