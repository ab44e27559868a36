"""How many questions a model answers exactly as expected."""

from __future__ import annotations

import random

import torch

import augment
import sums
from corpus import FIRST_EXCHANGE, Corpus, Exchange
from model import Guide
from unknown import DO_NOT_KNOW
from vocabulary import Tokenizer


def development_questions(corpus: Corpus) -> dict[str, list[Exchange]]:
    """What is measured while training: held-out phrasings, plain, misspelt and in the middle of a chat, and sums."""
    rng = random.Random(99)
    held_out = [Exchange(q, fact.answer) for fact in corpus.facts for q in fact.held_out]
    misspelt = [Exchange(augment.misspelt(e.question, rng), e.answer) for e in held_out]
    trained = [Exchange(rng.choice(fact.phrasings), fact.answer) for fact in corpus.facts]
    table = [Exchange(*sums.draw(rng)) for _ in range(200)]
    talk = [Exchange(q, fact.answer) for fact in corpus.talk for q in fact.held_out]
    return {"held out": held_out, "misspelt": misspelt, "trained": trained, "sums": table, "talk": talk}


def is_greedy(model: Guide, start: torch.Tensor, batch: list[tuple[list[int], list[int]]]) -> list[bool]:
    """Whether greedy decoding after each prompt gives its reply: the likeliest token after every part of the reply is
    the next one."""
    length = max(len(prompt) + len(reply) for prompt, reply in batch)
    tokens = torch.tensor([(prompt + reply + [0] * length)[:length] for prompt, reply in batch])
    with torch.no_grad():
        likeliest = model(tokens, start).argmax(-1)
    right = []
    for row, (prompt, reply) in enumerate(batch):
        span = slice(len(prompt) - 1, len(prompt) + len(reply) - 1)
        right.append(likeliest[row, span].tolist() == reply)
    return right


def wrong_answers(
    model: Guide, start: torch.Tensor, tokenizer: Tokenizer, exchanges: list[Exchange], before: str = FIRST_EXCHANGE
) -> list[Exchange]:
    pairs = [
        (tokenizer.encode(f"{before}User: {e.question}\n\nAssistant:"), tokenizer.encode(f" {e.answer}\n\n"))
        for e in exchanges
    ]
    order = sorted(range(len(pairs)), key=lambda n: len(pairs[n][0]) + len(pairs[n][1]))
    wrong = []
    for begin in range(0, len(order), 32):
        part = order[begin : begin + 32]
        for n, right in zip(part, is_greedy(model, start, [pairs[n] for n in part])):
            if not right:
                wrong.append(exchanges[n])
    return wrong


def report(model: Guide, start: torch.Tensor, tokenizer: Tokenizer, questions: dict[str, list[Exchange]]) -> str:
    parts = []
    for name, exchanges in questions.items():
        share = 1 - len(wrong_answers(model, start, tokenizer, exchanges)) / len(exchanges)
        parts.append(f"{name} {share:.1%}")
    return ", ".join(parts)
