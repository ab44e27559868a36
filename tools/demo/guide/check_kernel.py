"""Compares the kernel with a plain loop in double precision that PyTorch differentiates: relative errors of y and of all
gradients."""

import torch
import torch.nn.functional as F

from kernel import HEAD, wkv7


def plain(state, r, w, k, v, a, b):
    out = []
    for t in range(r.shape[1]):
        sa = state @ a[:, t, :, :, None]
        state = state * w[:, t, :, None, :] + sa * b[:, t, :, None, :] + v[:, t, :, :, None] * k[:, t, :, None, :]
        out.append((state @ r[:, t, :, :, None])[..., 0])
    return torch.stack(out, 1)


def inputs(batch: int, steps: int, heads: int) -> list[torch.Tensor]:
    shape = (batch, steps, heads, HEAD)
    start = torch.randn(batch, heads, HEAD, HEAD)
    r, k, v = (torch.randn(shape) for _ in range(3))
    w = torch.exp(-0.606531 * torch.sigmoid(torch.randn(shape) * 3))
    direction, rate = F.normalize(torch.randn(shape), dim=-1), torch.sigmoid(torch.randn(shape))
    return [start, r, w, k, v, -direction, direction * rate]


def main() -> None:
    torch.manual_seed(0)
    worst = 0.0
    for steps in (1, 16, 41):
        given = inputs(2, steps, 3)
        exact = [x.double().requires_grad_() for x in given]
        single = [x.clone().requires_grad_() for x in given]
        dy = torch.randn(given[1].shape)
        y, ours = plain(*exact), wkv7(*single)[0]
        y.backward(dy.double())
        ours.backward(dy)
        pairs = [(y, ours)] + [(p.grad, q.grad) for p, q in zip(exact, single)]
        errors = [((p - q).norm() / p.norm().clamp_min(1e-30)).item() for p, q in pairs]
        worst = max(worst, *errors)
        print(f"{steps:3} steps: y, start, r, w, k, v, a, b:", *(f"{e:.1e}" for e in errors))
    if not worst < 1e-5:
        raise SystemExit("the kernel is wrong")


if __name__ == "__main__":
    main()
