#!/usr/bin/env python3
"""Makes the checkpoints of this folder with PyTorch (written with 2.15), and says in expected.txt how PyTorch
reads those that are to be read: one line per tensor, `file|tensor|type|sizes|values`, `file|tensor|-` for a
value that is no tensor. Run it here: python3 make.py"""

import argparse
import collections
import os

import numpy as np
import torch
from torch import nn

EXPECTED = []
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def count(*sizes, dtype=FP32, start=0.0):
    """Numbers that all three types hold exactly."""
    n = int(np.prod(sizes))
    return (torch.arange(n, dtype=torch.float64) / 4 + start).to(dtype).reshape(sizes)


def show(number):
    return {float("inf"): "inf", float("-inf"): "-inf"}.get(number, "nan" if number != number else repr(number))


def save(name, value, readable=True, **options):
    file = name + ".pth"
    torch.save(value, file, **options)
    if not readable:
        return
    for key, tensor in value.items():
        if isinstance(tensor, torch.Tensor):
            dtype = {BF16: "bf16", FP16: "fp16", FP32: "fp32"}[tensor.dtype]
            sizes = " ".join(str(s) for s in tensor.shape)
            values = " ".join(show(float(x)) for x in tensor.detach().double().reshape(-1))
            EXPECTED.append(f"{file}|{key}|{dtype}|{sizes}|{values}")
        else:
            EXPECTED.append(f"{file}|{key}|-")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(2, 3)
        self.ln = nn.LayerNorm(3)
        self.register_buffer("mix", torch.ones(1, 1, 3))


def plain():
    return {"emb.weight": count(2, 3, dtype=BF16), "ln.weight": count(3, dtype=FP16, start=-1), "ln.bias": count(3)}


def with_attribute(tensor):
    tensor.note = "kept by PyTorch"
    return tensor


torch.manual_seed(1)
base = count(4, 6)
save("dict", plain())
save("ordered_dict", collections.OrderedDict(plain()))
save("default_dict", collections.defaultdict(list, plain()))
save("state_dict", Model().state_dict())
save("parameters", {
    "parameter": nn.Parameter(count(2, 2)),
    "frozen": nn.Parameter(count(2, 2), requires_grad=False),
    "with attribute": with_attribute(nn.Parameter(count(2))),
    "tensor with attribute": with_attribute(count(3)),
    "buffer": nn.Buffer(count(2)),
})
save("views", {
    "base": base,
    "rows": base[1:3],
    "columns": base[:, 2:5],
    "every second": base[::2, ::3],
    "transposed": base.t(),
    "expanded": base[0, 1].expand(2, 3),
    "expanded rows": base[3].expand(2, 6),
    "permuted": count(2, 3, 4).permute(2, 0, 1),
    "one": base[2:3, 4:5],
    "tied": base,
})
save("shapes", {
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0),
    "no rows": torch.empty(0, 3, dtype=BF16),
    "empty view": base[4:, 6:],
    "rank 5": count(1, 2, 1, 3, 2, dtype=FP16),
})
save("special_values", {
    "fp32": torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3.4028234663852886e38]),
    "fp16": torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 6e-8, 65504.0], dtype=FP16),
    "bf16": torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3e38], dtype=BF16),
})
others = {
    "weight": count(3), "int": 3, "long": 2**100, "negative": -(2**40), "text": "x", "none": None, "float": 1.5,
    "bool": True, "bytes": b"xyz", "list": [1, [2]], "tuple": (1, 2, 3, 4), "set": {1}, "frozenset": frozenset([2]),
    "dict": {"a": 1}, "size": torch.Size([2]), "dtype": torch.float8_e5m2, "device": torch.device("cpu"),
    "numpy": np.float64(2), "counter": collections.Counter("aab"), "complex": 1j, "storage": torch.LongStorage(2),
}
save("other_values", others)
save("other_values_protocol4", others, pickle_protocol=4)
for protocol in (1, 3, 4, 5):
    save(f"protocol{protocol}", plain(), pickle_protocol=protocol)
save("no_byteorder", plain(), _disable_byteorder_record=True)
legacy = dict(_use_new_zipfile_serialization=False)
save("legacy", plain() | {"view": base.t(), "again": base[1], "list": [torch.ones(2, dtype=torch.int64)]}, **legacy)
save("legacy_state_dict", Model().state_dict(), **legacy)
save("legacy_protocol4", plain(), pickle_protocol=4, **legacy)

save("float8", {"x": torch.zeros(2, dtype=torch.float8_e4m3fn)}, readable=False)
save("sparse", {"x": torch.eye(2).to_sparse()}, readable=False)
save("meta", {"x": torch.zeros(2, device="meta")}, readable=False)
save("negated", {"x": torch.zeros(2, dtype=torch.complex64).conj().imag}, readable=False)
save("module", Model(), readable=False)
save("tensor", count(2), readable=False)
save("numpy_array", {"x": count(2), "y": np.zeros(2)}, readable=False)
training = {"epoch": 3, "state_dict": plain(), "optimizer": {"state": {0: {"exp_avg": count(2)}}}}
save("training", training, readable=False)
save("training_arguments", training | {"args": argparse.Namespace(lr=1)}, readable=False)
torch.jit.save(torch.jit.script(nn.ReLU()), "torchscript.pth")
with torch.serialization.skip_data():
    save("skipped_data", plain(), readable=False)
torch.serialization.set_crc32_options(False)
save("no_checksums", plain(), readable=False)

with open("expected.txt", "w") as f:
    f.write("".join(line + "\n" for line in EXPECTED))
print(sum(os.path.getsize(f) for f in os.listdir(".")), "bytes")
