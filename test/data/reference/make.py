#!/usr/bin/env python3
"""Makes this folder: small random checkpoints of every version, and what the Python package `rwkv` computes with them.

Run it here: python3 make.py    (needs torch and rwkv==0.8.32; written with torch 2.15)

models/NAME.pth                     checkpoints, listed in MODELS below
tokens.txt                          the tokens that are fed
expected/NAME.cpu-PRECISION.f32     [tokens, vocabulary]: the logits after each token, fed one at a time, as
                                    little-endian fp32; PRECISION is fp32, bf16, fp16 or fp32i8
expected/NAME.cpu-fp32.seq.f32      the tokens in one call: the last logits, then the whole state, tensor after tensor
                                    in the package's order (one at a time where n_att is not n_embd, for the package
                                    cannot do it in one call)
normalizations.txt                  rows of layer normalization in 16 bits: the type, then as hexadecimal bit patterns
                                    weight, bias, row and result
states/NAME.pth                     a trained initial state, blocks.N.att.time_state
expected/NAME.cpu-fp32.state.f32    the logits when that is loaded first
lists/NAME.pth                      the state after the tokens as torch.save writes what the package returns
"""

import glob
import os
import subprocess
import sys
import tempfile

import torch

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
PRECISIONS = ("fp32", "bf16", "fp16", "fp32i8")

# Between them: every version, type and head size from 8 to 128; widths that fit no block or vector; n_att other than
# n_embd (the package allows it for version 4 alone); both names of time_faaaa; merged initial states; low ranks of all
# sorts; the first layer's unused value residual, present and absent; a single layer; layers beyond the sixth, where the
# package rescales fp16.
# Seeds: the first with which no token's error of the package, in bf16, fp16 or int8, is above 2.5 times that of the
# median token. Where normalizations divide by next to nothing, as random models do now and then, errors depend on luck.
MODELS = {
    "v4": dict(version="4", dtype=BF16, embd=40, ffn=51, vocab=100),
    "v4-wide": dict(version="4", dtype=FP32, embd=24, att=40, ffn=61, vocab=77),
    "v5.0": dict(version="5.0", dtype=FP16, embd=48, head=16, ffn=35, vocab=77),
    "v5.1": dict(seed=2, version="5.1", dtype=BF16, embd=40, head=8, ffn=67, vocab=80),
    "v5.1-faaaa": dict(seed=3, version="5.1", dtype=FP16, embd=32, head=16, ffn=65, vocab=77, faaaa=True),
    "v5.2": dict(version="5.2", dtype=BF16, embd=32, head=32, ffn=67, vocab=97, state=True),
    "v5.2-merged": dict(seed=2, version="5.2", dtype=FP32, embd=24, head=8, ffn=67, vocab=77, merged=True),
    "v5.2-deep": dict(version="5.2", dtype=FP16, layers=7, embd=32, head=8, ffn=21, vocab=79),
    "v6": dict(version="6", dtype=BF16, embd=48, head=24, ffn=35, vocab=88, ranks=(6, 10), state=True),
    "v6-merged": dict(version="6", dtype=FP32, embd=24, head=8, ffn=75, vocab=77, ranks=(5, 3), merged=True),
    "v7": dict(seed=2, version="7", dtype=FP16, embd=64, head=64, ffn=33, vocab=77, ranks=(16, 9, 7, 21), state=True,
               residual=True),
    "v7-small": dict(version="7", dtype=FP32, embd=24, head=8, ffn=75, vocab=83, ranks=(8, 5, 3, 11)),
    "v7-large": dict(version="7", dtype=BF16, layers=1, embd=128, head=128, ffn=35, vocab=78, ranks=(8, 16, 4, 33)),
}

# A model of each kind of state.
LISTED = ("v4", "v5.2-merged", "v6-merged", "v7-small")


class Random:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *sizes, mean=0.0, std=1.0):
        return mean + torch.randn(*sizes, generator=self.generator) * std

    def linear(self, outputs, inputs, gain=1.0):
        return self.normal(outputs, inputs, std=gain / inputs**0.5)

    def mix(self, width):
        return torch.rand(1, 1, width, generator=self.generator)


def time_mix(r, version, layer, D, A, N, ranks, faaaa, residual):
    H = A // N if N else 0
    ramp = torch.linspace(0, 1, A)
    z = {}
    if version == "4":
        z["time_decay"] = -5 + 8 * ramp**0.8 + r.normal(A, std=0.1)
        z["time_first"] = r.normal(A, std=0.5)
    elif version in ("5.0", "5.1"):
        z["time_decay"] = -6 + 5 * torch.linspace(0, 1, H) + r.normal(H, std=0.1)
        z["time_faaaa" if faaaa else "time_first"] = r.normal(H, std=0.5)
    elif version == "5.2":
        z["time_decay"] = (-6 + 5 * ramp).view(H, N) + r.normal(H, N, std=0.1)
        z["time_faaaa"] = r.normal(H, N, std=0.5)
    elif version == "6":
        mix_rank, decay_rank = ranks
        for part in "xwkvrg":
            z["time_maa_" + part] = r.mix(D)
        z["time_maa_w1"] = r.normal(D, 5 * mix_rank, std=2 / D**0.5)
        z["time_maa_w2"] = r.normal(5, mix_rank, D, std=0.3 / mix_rank**0.5)
        z["time_decay"] = (-6 + 5 * ramp).view(1, 1, A) + r.normal(1, 1, A, std=0.1)
        z["time_decay_w1"] = r.normal(D, decay_rank, std=1 / D**0.5)
        z["time_decay_w2"] = r.normal(decay_rank, A, std=0.5 / decay_rank**0.5)
        z["time_faaaa"] = r.normal(H, N, std=0.5)
    else:
        for part in "rwkvag":
            z["x_" + part] = r.mix(D)
        z["w0"] = (-6.5 + 6 * ramp).view(1, 1, A) + r.normal(1, 1, A, std=0.1)
        z["a0"] = r.normal(1, 1, A, std=0.5)
        z["v0"] = r.normal(1, 1, A, mean=0.5, std=0.3)
        for part, rank, gain in zip("wavg", ranks, (0.5, 0.5, 0.5, 2)):
            z[part + "1"] = r.normal(D, rank, std=1 / D**0.5)
            z[part + "2"] = r.normal(rank, A, std=gain / rank**0.5)
        if layer == 0 and not residual:
            for name in ("v0", "v1", "v2"):
                del z[name]
        z["k_k"] = r.normal(1, 1, A, mean=0.85, std=0.1)
        z["k_a"] = r.normal(1, 1, A, mean=1, std=0.1)
        z["r_k"] = r.normal(H, N, std=0.1)
    if version[0] in "45":
        for part in "kvr" if version in ("4", "5.0") else "kvrg":
            z["time_mix_" + part] = r.mix(D)
    for name in ("receptance", "key", "value") + (("gate",) if version in ("5.1", "5.2", "6") else ()):
        z[name + ".weight"] = r.linear(A, D)
    z["output.weight"] = r.linear(D, A)
    if version != "4":
        z["ln_x.weight"] = r.normal(A, mean=1, std=0.1)
        z["ln_x.bias"] = r.normal(A, std=0.1)
    return z


def channel_mix(r, version, D, F):
    z = {}
    if version == "7":
        z["x_k"] = r.mix(D)
    else:
        for part in "kr":
            z[("time_maa_" if version == "6" else "time_mix_") + part] = r.mix(D)
        z["receptance.weight"] = r.linear(D, D)
    z["key.weight"] = r.linear(F, D)
    z["value.weight"] = r.linear(D, F)
    return z


def random_state(r, layers, H, N):
    return {f"blocks.{i}.att.time_state": r.normal(H, N, N, std=0.5) for i in range(layers)}


def checkpoint(version, embd, ffn, vocab, dtype, seed=1, layers=3, att=None, head=0, ranks=(), faaaa=False,
               residual=False, merged=False, state=False):
    """The tensors of a model and, if it is to have one, of a state."""
    r = Random(seed)
    att = att or embd
    z = {"emb.weight": r.normal(vocab, embd)}
    for i in range(layers):
        block = f"blocks.{i}."
        for norm in ("ln0", "ln1", "ln2")[i > 0:]:
            z[f"{block}{norm}.weight"] = r.normal(embd, mean=1, std=0.1)
            z[f"{block}{norm}.bias"] = r.normal(embd, std=0.1)
        for name, tensor in time_mix(r, version, i, embd, att, head, ranks, faaaa, residual).items():
            z[f"{block}att.{name}"] = tensor
        for name, tensor in channel_mix(r, version, embd, ffn).items():
            z[f"{block}ffn.{name}"] = tensor
    z["ln_out.weight"] = r.normal(embd, mean=1, std=0.1)
    z["ln_out.bias"] = r.normal(embd, std=0.1)
    z["head.weight"] = r.linear(vocab, embd, gain=2)
    initial = random_state(r, layers, att // head, head) if merged or state else {}
    if merged:
        z.update(initial)
    typed = lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}
    return typed(z), typed(initial) if state else None


def normalizations():
    """Rows that a layer normalization in double precision, rounded to 16 bits, would get wrong in the last place."""
    generator = torch.Generator().manual_seed(1)
    lines = []
    for dtype, width in ((FP16, 8), (FP16, 24), (BF16, 48), (FP16, 100), (BF16, 256), (FP16, 300)):
        weight = (1 + 0.1 * torch.randn(width, generator=generator)).to(dtype)
        bias = (0.1 * torch.randn(width, generator=generator)).to(dtype)
        x = torch.randn(10**6 // width, width, generator=generator).to(dtype)
        expected = torch.layer_norm(x, (width,), weight, bias)
        exact = torch.layer_norm(x.double(), (width,), weight.double(), bias.double()).to(dtype)
        row = (exact != expected).any(1).nonzero()[0, 0]
        numbers = [t.view(torch.int16).tolist() for t in (weight, bias, x[row], expected[row])]
        name = {BF16: "bf16", FP16: "fp16"}[dtype]
        lines.append(" ".join([name] + [f"{n & 0xffff:04x}" for values in numbers for n in values]))
    return lines


def quantized(matrix):
    """What the package's int8 makes of a matrix [inputs, outputs]; the package itself cannot do that for version 7."""
    w = matrix.float().t().clone()
    # Offsets are taken off first along the longer side.
    order = (1, 0) if w.shape[0] > w.shape[1] else (0, 1)
    offsets = {}
    for dim in order:
        offsets[dim] = w.amin(dim, keepdim=True)
        w = w - offsets[dim]
    scale_columns = w.amax(0, keepdim=True)
    w = w / scale_columns
    scale_rows = w.amax(1, keepdim=True)
    w = w / scale_rows
    steps = torch.clip(torch.floor(w * 256), 0, 255)
    restored = (steps + 0.5) * (scale_rows / 16) * (scale_columns / 16) + offsets[0] + offsets[1]
    return restored.t().contiguous()


def quantized_checkpoint(path, out):
    kinds = ("key.weight", "value.weight", "receptance.weight", "output.weight", "head.weight")
    z = torch.load(path)
    torch.save({name: quantized(t) if name.endswith(kinds) else t.float() for name, t in z.items()}, out)


def compute(names):
    """Runs in a process of its own, because the package is set up for version 7 or for the others when imported."""
    os.environ["RWKV_JIT_ON"] = os.environ["RWKV_CUDA_ON"] = "0"
    os.environ["RWKV_V7_ON"] = "1" if names[0].startswith("v7") else "0"
    from rwkv.model import RWKV

    tokens = [int(t) for t in open("tokens.txt").read().split()]

    def save(name, tensors):
        values = torch.cat([t.float().flatten() for t in tensors])
        assert torch.isfinite(values).all(), name
        values.numpy().astype("<f4").tofile(f"expected/{name}.f32")

    def one_at_a_time(model, state=None):
        logits = []
        for token in tokens:
            out, state = model.forward([token], state)
            logits.append(out.float().clone())
        return logits, state

    def loaded_state(name, version):
        state = []
        for tensor in torch.load(f"states/{name}.pth").values():
            width = tensor.shape[0] * tensor.shape[1]
            matrix = tensor.float() if version == "7" else tensor.float().transpose(1, 2)
            state += [torch.zeros(width), matrix.contiguous(), torch.zeros(width)]
        return state

    for name in names:
        with torch.no_grad():
            for precision in PRECISIONS:
                path = f"models/{name}"
                if precision == "fp32i8" and name.startswith("v7"):
                    path = tempfile.mkdtemp() + "/quantized"
                    quantized_checkpoint(f"models/{name}.pth", path + ".pth")
                    model = RWKV(path, "cpu fp32")
                else:
                    model = RWKV(path, "cpu " + precision)
                logits, state = one_at_a_time(model)
                save(f"{name}.cpu-{precision}", logits)
                if precision == "fp32":
                    last = logits[-1]
                    if "att" not in MODELS[name]:
                        last, state = model.forward(list(tokens), None)
                    save(f"{name}.cpu-fp32.seq", [last, *state])
                    if name in LISTED:
                        torch.save(state, f"lists/{name}.pth")
                    if MODELS[name].get("state"):
                        start = loaded_state(name, MODELS[name]["version"])
                        save(f"{name}.cpu-fp32.state", one_at_a_time(model, start)[0])


def main():
    for folder in ("models", "states", "lists", "expected"):
        os.makedirs(folder, exist_ok=True)
        for old in glob.glob(folder + "/*"):
            os.remove(old)
    tokens = torch.randint(0, 77, (20,), generator=torch.Generator().manual_seed(24)).tolist()
    tokens[7] = tokens[8] = 0
    tokens[18] = 76
    with open("tokens.txt", "w") as file:
        print(*tokens, file=file)
    with open("normalizations.txt", "w") as file:
        print(*normalizations(), sep="\n", file=file)
    for name, shape in MODELS.items():
        z, state = checkpoint(**shape)
        torch.save(z, f"models/{name}.pth")
        if state:
            torch.save(state, f"states/{name}.pth")
    for v7 in (False, True):
        names = [name for name in MODELS if name.startswith("v7") == v7]
        subprocess.run([sys.executable, os.path.abspath(__file__), *names], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compute(sys.argv[1:])
    else:
        main()
