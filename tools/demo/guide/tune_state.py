"""Trains an initial state of the demo model, its weights unchanged: tune_state.py FOLDER

Reads the model in FOLDER and writes pirate.pth beside it: blocks.N.att.time_state, [head, value, key], with which every
answer begins with Aye! and ends with Arr!
"""

from __future__ import annotations

import pathlib
import random
import sys

import torch
import torch.nn.functional as F

from corpus import PARTIES, PIRATE, Corpus, Exchange
from model import Guide, load_guide, no_state
from scoring import wrong_answers
from train import SEED
from vocabulary import Tokenizer, read_vocabulary

STEPS, BATCH, LENGTH = 200, 4, 256
RATE = 0.2


def batch(corpus: Corpus, rng: random.Random, tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Conversations from their start, for the state is that before the first token. Answers alone count."""
    tokens, weights = [], []
    while len(tokens) < BATCH:
        ids, parts = corpus.exchanges(rng, tokenizer, PARTIES[0], PIRATE)
        if len(ids) > LENGTH:
            tokens.append(ids[: LENGTH + 1])
            weights.append([float(part == 1.0) for part in parts[1 : LENGTH + 1]])
    return torch.tensor(tokens), torch.tensor(weights).flatten()


def tuned(model: Guide, corpus: Corpus, tokenizer: Tokenizer) -> torch.Tensor:
    rng = random.Random(SEED)
    state = no_state().requires_grad_()
    optimizer = torch.optim.Adam([state], betas=(0.9, 0.99))
    compiled = torch.compile(model)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        tokens, weights = batch(corpus, rng, tokenizer)
        logits = compiled(tokens[:, :-1], state)
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"state, step {step + 1}: loss {loss.item():.4f}", flush=True)
    return state.detach()


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(SEED)
    model = load_guide(str(folder / "guide-2.5m.pth")).requires_grad_(False)
    tokenizer, corpus = Tokenizer(read_vocabulary(str(folder / "guide-2.5m.vocab.txt"))), Corpus()
    state = tuned(model, corpus, tokenizer).bfloat16()
    torch.save({f"blocks.{n}.att.time_state": part.clone() for n, part in enumerate(state)}, folder / "pirate.pth")
    styled = [Exchange(q, PIRATE.format(fact.answer)) for fact in corpus.facts for q in fact.held_out]
    wrong = wrong_answers(model, state.float(), tokenizer, styled, before="")
    print(f"held-out phrasings answered right and in style: {1 - len(wrong) / len(styled):.1%}")


if __name__ == "__main__":
    main()
