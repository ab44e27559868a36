#!/usr/bin/env python3
"""Writes strategies.txt: which layers the Python package `rwkv` (0.8.32) puts where. Run it here: python3 strategies.py

One line for each strategy and number of layers (the head counted): layers|strategy|plan, where the plan has a word
DEVICE-TYPE[i8][+] for each layer; + means streamed. Only strategies that take no more layers than there are, for the
package cuts what is too much, and this project refuses it.
"""

import contextlib
import io
import os
import re
import tempfile

os.environ["RWKV_JIT_ON"] = os.environ["RWKV_CUDA_ON"] = "0"
import torch
from rwkv.model import RWKV

STRATEGIES = """
cpu fp32
cpu bf16
cpu fp16i8
cuda fp16
cuda:1 bf16i8
cpu fp32 *1 -> cpu bf16
cpu fp32i8 *2 -> cpu bf16
cuda fp16 *2 -> cpu fp32
cuda fp16i8 *3 -> cpu fp32 *1
cpu fp32 -> cpu bf16
cpu fp32 -> cpu bf16 -> cpu fp16
cpu fp32 -> cpu bf16 *1 -> cpu fp16
cpu fp32 -> cpu bf16i8 -> cpu fp16 -> cpu fp32i8
cpu fp32 *1 -> cpu bf16 *1
cpu fp32 *1 -> cpu bf16 *1 -> cpu fp16 *1
cuda:0 fp16 *1 -> cuda:1 fp16 *2 -> cpu fp32
cuda:0 fp16 -> cuda:1 fp16
cuda:0 fp16 -> cuda:1 fp16 -> cuda:2 fp16 -> cuda:3 fp16
cuda fp16 *2+
cuda fp16i8 *0+
cuda fp16i8 *1+
cuda fp16 *2+ -> cpu fp32 *1
cpu fp32 *1 -> cuda fp16 *1+
cpu fp32 *1 -> cuda fp16 *1+ -> cpu bf16 *1
cuda fp16 *1+ -> cuda:1 fp16i8 *1
cuda fp16 *8+ -> cpu fp32 *4
cpu fp32 *25
cuda fp16 *12 -> cpu fp32
cuda fp16i8 *20+
cuda fp16i8 *24 -> cuda fp16 *1+
cuda fp16 *32 -> cpu bf16 *1
""".strip().splitlines()
LAYERS = (2, 3, 4, 7, 13, 25, 33)
TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def save_model(path, layers):
    one, matrix = torch.ones(2), torch.ones(2, 2)
    z = {"emb.weight": matrix, "blocks.0.ln0.weight": one, "blocks.0.ln0.bias": one}
    for i in range(layers):
        for part in ("att", "ffn"):
            for name in ("key", "value", "receptance", "output"):
                z[f"blocks.{i}.{part}.{name}.weight"] = matrix.clone()
    z["head.weight"] = matrix.clone()
    torch.save(z, path + ".pth")


def plan_of(path, strategy):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(Exception):
        RWKV(path, strategy)  # fails where it would need CUDA, but has printed its plan by then
    plan = []
    for number, device, kept, stored, stream in re.findall(
            r"(?:^|(?<= ))(\d+)-(\S+?)-(float32|float16|bfloat16)-(float32|float16|bfloat16|uint8)(-stream)?(?= )",
            text.getvalue(), re.M):
        assert int(number) == len(plan)
        plan.append(device + "-" + TYPES[kept] + ("i8" if stored == "uint8" else "") + ("+" if stream else ""))
    return plan


def main():
    path = tempfile.mkdtemp() + "/model"
    with open("strategies.txt", "w") as file:
        for layers in LAYERS:
            save_model(path, layers - 1)
            for strategy in STRATEGIES:
                if sum(map(int, re.findall(r"\*(\d+)", strategy))) <= layers:
                    plan = plan_of(path, strategy)
                    assert len(plan) == layers, (strategy, layers, plan)
                    print(layers, strategy, " ".join(plan), sep="|", file=file)


main()
