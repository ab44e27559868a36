"""The recurrence of RWKV-7 (wkv7.cpp) as an operator that PyTorch differentiates and compiles around."""

from __future__ import annotations

import pathlib

import torch
from torch import Tensor
from torch.utils.cpp_extension import load

HERE = pathlib.Path(__file__).resolve().parent
HEAD, INTERVAL = 32, 16  # as in wkv7.cpp


def compiled():
    folder = HERE.parents[2] / "build/demo/wkv7"
    folder.mkdir(parents=True, exist_ok=True)
    return load(
        "wkv7",
        [str(HERE / "wkv7.cpp")],
        extra_cflags=["-O3", "-march=native", "-ffast-math"],
        build_directory=str(folder),
    )


extension = compiled()


@torch.library.custom_op("guide::wkv7", mutates_args=())
def wkv7(start: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    """y, and what the backward pass needs. `start` is [batch, heads, value, key], the rest [batch, steps, heads, 32]."""
    return extension.forward(*(x.contiguous() for x in (start, r, w, k, v, a, b)))


@wkv7.register_fake
def _(start, r, w, k, v, a, b):
    batch, steps, heads, _ = r.shape
    parts = (steps + INTERVAL - 1) // INTERVAL
    return [r.new_empty(r.shape), r.new_empty(r.shape), r.new_empty(batch, heads, parts, HEAD, HEAD)]


@torch.library.custom_op("guide::wkv7_backward", mutates_args=())
def wkv7_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, sa: Tensor, kept: Tensor, dy: Tensor
) -> list[Tensor]:
    return extension.backward(*(x.contiguous() for x in (r, w, k, v, a, b, sa, kept, dy)))


@wkv7_backward.register_fake
def _(r, w, k, v, a, b, sa, kept, dy):
    batch, _, heads, _ = r.shape
    return [r.new_empty(batch, heads, HEAD, HEAD)] + [r.new_empty(r.shape) for _ in range(6)]


def save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[1:], output[1], output[2])


def differentiate(ctx, gradients):
    return tuple(wkv7_backward(*ctx.saved_tensors, gradients[0]))


wkv7.register_autograd(differentiate, setup_context=save)
