"""RWKV-7 for training on a CPU. Parameters have the names and shapes of published checkpoints."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Parameter

from kernel import HEAD, wkv7

LAYERS, WIDTH, RANK = 6, 160, 32
HEADS = WIDTH // HEAD


def low_rank() -> tuple[Parameter, Parameter]:
    outer = nn.init.orthogonal_(torch.empty(RANK, WIDTH), gain=0.1)
    return Parameter(torch.zeros(WIDTH, RANK)), Parameter(outer)


class Linear(nn.Linear):
    """Weights in fp32; products of bf16 numbers with fp32 sums, as the trained model will be run."""

    def __init__(self, inputs: int, outputs: int, bound: float):
        super().__init__(inputs, outputs, bias=False)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self.weight.bfloat16()).float()


def shifted(x: Tensor) -> Tensor:
    """What the token before has that this one has not."""
    return F.pad(x, (0, 0, 1, -1)) - x


class TimeMix(nn.Module):
    def __init__(self, layer: int):
        super().__init__()
        self.layer = layer
        rising, falling = layer / (LAYERS - 1), 1 - layer / LAYERS
        channel = torch.arange(WIDTH)
        spread = (channel / (WIDTH - 1) - 0.5).view(1, 1, WIDTH)
        for name, power in dict(r=0.2, w=0.9, k=0.7, v=0.7, a=0.9, g=0.2).items():
            mix = 1 - (channel / WIDTH).view(1, 1, WIDTH) ** (power * falling)
            setattr(self, "x_" + name, Parameter(mix))
        zigzag = ((channel % HEAD) - (HEAD - 1) / 2) / ((HEAD - 1) / 2)
        zigzag = (zigzag * zigzag.abs()).view(1, 1, WIDTH)
        decay = -6 + 6 * (channel / (WIDTH - 1)).view(1, 1, WIDTH) ** (1 + rising**0.3)
        self.w0 = Parameter(decay + 0.5 + zigzag * 2.5)
        self.a0 = Parameter(-0.19 + zigzag * 0.3 + spread * 0.4)
        self.w1, self.w2 = low_rank()
        self.a1, self.a2 = low_rank()
        self.g1, self.g2 = low_rank()
        if layer > 0:
            self.v0 = Parameter(0.73 - spread * 0.4)
            self.v1, self.v2 = low_rank()
        self.k_k = Parameter(0.71 - spread * 0.1)
        self.k_a = Parameter(torch.full((1, 1, WIDTH), 1.02))
        self.r_k = Parameter(torch.full((HEADS, HEAD), -0.04))
        scale = WIDTH**-0.5
        self.receptance = Linear(WIDTH, WIDTH, 0.5 * scale)
        self.key = Linear(WIDTH, WIDTH, 0.05 * scale)
        self.value = Linear(WIDTH, WIDTH, 0.5 * scale)
        self.output = Linear(WIDTH, WIDTH, 0)
        self.ln_x = nn.GroupNorm(HEADS, WIDTH, eps=64e-5)
        nn.init.constant_(self.ln_x.weight, ((1 + layer) / LAYERS) ** 0.7)

    def forward(self, x: Tensor, v_first: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, _ = x.shape
        heads = (batch, steps, HEADS, HEAD)
        before = shifted(x)
        mixes = (self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        xr, xw, xk, xv, xa, xg = (torch.addcmul(x, before, mix) for mix in mixes)
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.w0 + torch.tanh(xw @ self.w1) @ self.w2))
        a = torch.sigmoid(self.a0 + (xa @ self.a1) @ self.a2)
        g = torch.sigmoid(xg @ self.g1) @ self.g2
        direction = F.normalize((k * self.k_k).view(heads), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.v0 + (xv @ self.v1) @ self.v2)
        r, w, k, v, a = (y.view(heads) for y in (r, w, k, v, a))
        y = wkv7(start, r, w, k, v, -direction, direction * a)[0]
        y = self.ln_x(y.view(batch * steps, WIDTH)).view(batch, steps, WIDTH)
        bonus = (r * k * self.r_k).sum(-1, keepdim=True) * v
        return self.output((y + bonus.view(batch, steps, WIDTH)) * g), v_first


class ChannelMix(nn.Module):
    def __init__(self, layer: int):
        super().__init__()
        channel = (torch.arange(WIDTH) / WIDTH).view(1, 1, WIDTH)
        self.x_k = Parameter(1 - channel ** ((1 - layer / LAYERS) ** 4))
        self.key = Linear(WIDTH, 4 * WIDTH, 0.5 * WIDTH**-0.5)
        self.value = Linear(4 * WIDTH, WIDTH, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(torch.relu(self.key(torch.addcmul(x, shifted(x), self.x_k))) ** 2)


class Block(nn.Module):
    def __init__(self, layer: int):
        super().__init__()
        if layer == 0:
            self.ln0 = nn.LayerNorm(WIDTH)
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.att, self.ffn = TimeMix(layer), ChannelMix(layer)


class Guide(nn.Module):
    def __init__(self, vocabulary: int):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, WIDTH)
        nn.init.uniform_(self.emb.weight, -1e-4, 1e-4)
        self.blocks = nn.ModuleList(Block(layer) for layer in range(LAYERS))
        self.ln_out = nn.LayerNorm(WIDTH)
        self.head = Linear(WIDTH, vocabulary, 0)
        nn.init.orthogonal_(self.head.weight, gain=0.5 * math.sqrt(vocabulary / WIDTH))

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Logits [batch, steps, vocabulary]. `start` is the state of each layer, [layers, heads, value, key]."""
        x, v_first = self.blocks[0].ln0(self.emb(tokens)), None
        for block, state in zip(self.blocks, start):
            y, v_first = block.att(block.ln1(x), v_first, state.expand(tokens.shape[0], -1, -1, -1))
            x = x + y
            x = x + block.ffn(block.ln2(x))
        return self.head(self.ln_out(x))


def no_state() -> Tensor:
    return torch.zeros(LAYERS, HEADS, HEAD, HEAD)


def load_guide(path: str) -> Guide:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = Guide(weights["emb.weight"].shape[0])
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model


def save_guide(model: Guide, path: str) -> None:
    torch.save({name: value.detach().bfloat16() for name, value in model.state_dict().items()}, path)
