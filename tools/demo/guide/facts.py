"""The facts that the model learns, and the questions that it must not meet before it is evaluated."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass, field

FOLDER = pathlib.Path(__file__).resolve().parent.parent


@dataclass
class Fact:
    answer: str
    phrasings: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)


def normalised(question: str) -> str:
    """Questions that differ in nothing else are the same."""
    return re.sub(r"\s+", " ", question).strip().rstrip(" ?!.").lower()


def read_facts(path: pathlib.Path) -> list[Fact]:
    facts: list[Fact] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, text = line[:2], line[2:].strip()
        if kind == "= ":
            facts.append(Fact(text))
        elif kind == "- ":
            facts[-1].phrasings.append(text)
        elif kind == "! ":
            facts[-1].held_out.append(text)
    return facts


def known_facts() -> list[Fact]:
    return read_facts(FOLDER / "facts/strategies.txt") + read_facts(FOLDER / "facts/using.txt")


def small_talk() -> list[Fact]:
    return read_facts(FOLDER / "facts/talk.txt")


def unseen_questions() -> set[str]:
    """What no training text may ask: the evaluation's questions and the held-out phrasings."""
    questions = [q for fact in known_facts() + small_talk() for q in fact.held_out]
    for path in sorted((FOLDER / "evaluation").glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        questions += [line[2:] for line in lines if line.startswith("? ")]
    return {normalised(q) for q in questions}
