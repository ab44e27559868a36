"""The vocabulary: byte-pair merges of words, written in the form of World's vocabulary, and its tokenizer."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter

# What tokens are made within. No token crosses a colon, a digit or an empty line: where a reply begins and ends, the
# tokens do not depend on what follows.
WORDS = re.compile(rb"\d|:|\n\n|\n| ?[A-Za-z]+| ?[^\sA-Za-z\d:]+|\s")

Word = tuple[bytes, ...]


def joined(word: Word, pair: tuple[bytes, bytes]) -> Word:
    out, at = [], 0
    while at < len(word):
        both = word[at : at + 2] == pair
        out.append(word[at] + word[at + 1] if both else word[at])
        at += 2 if both else 1
    return tuple(out)


def make_vocabulary(text: str, size: int) -> list[bytes]:
    """`size` - 1 tokens for the ids from 1 on: all single bytes, then merges, the most frequent pair first."""
    counts = Counter(WORDS.findall(text.encode()))
    words = {tuple(bytes([byte]) for byte in word): n for word, n in counts.items() if n > 2}
    merged: set[bytes] = set()
    while len(merged) < size - 257:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merged.add(best[0] + best[1])
        changed: Counter[Word] = Counter()
        for word, n in words.items():
            changed[joined(word, best) if best[0] in word else word] += n
        words = changed
    return [bytes([byte]) for byte in range(256)] + sorted(merged, key=lambda token: (len(token), token))


def literal(token: bytes) -> str:
    try:
        return repr(token.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(token)


def write_vocabulary(tokens: list[bytes], path: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number, token in enumerate(tokens, 1):
            file.write(f"{number} {literal(token)} {len(token)}\n")


def read_vocabulary(path: str) -> list[bytes]:
    tokens = []
    for line in open(path, encoding="utf-8"):
        value = ast.literal_eval(line[line.index(" ") + 1 : line.rindex(" ")])
        tokens.append(value.encode() if isinstance(value, str) else value)
    return tokens


class Tokenizer:
    """Takes the longest token at each place, as World's does."""

    def __init__(self, tokens: list[bytes]):
        self.size = len(tokens) + 1
        self.ids = {token: number for number, token in enumerate(tokens, 1)}
        self.lengths: dict[bytes, list[int]] = {}
        for length in sorted({len(token) for token in tokens if len(token) > 1}, reverse=True):
            for begin in {token[:2] for token in tokens if len(token) == length}:
                self.lengths.setdefault(begin, []).append(length)

    def encode(self, text: str, rng: random.Random | None = None, splitting: float = 0.0) -> list[int]:
        """With `splitting` a token is now and then a shorter one than the longest, so that spellings are learnt."""
        data, out, at = text.encode(), [], 0
        while at < len(data):
            fitting = [n for n in self.lengths.get(data[at : at + 2], ()) if data[at : at + n] in self.ids] + [1]
            length = fitting[0]
            if splitting and len(fitting) > 1 and rng.random() < splitting:
                length = rng.choice(fitting[1:])
            out.append(self.ids[data[at : at + length]])
            at += length
        return out
