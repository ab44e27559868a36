"""Additions and comparisons of the numbers from 0 to 20: a table to be learnt whole."""

from __future__ import annotations

import random

LARGEST = 20
ADDITIONS = """what is {} + {}|{} + {}|{}+{}|add {} and {}|how much is {} plus {}|what is {} plus {}|{} plus {} is|{} plus {}|
how much is {} + {}|what's {} + {}|{} and {} together|what is the sum of {} and {}|sum of {} and {}|calculate {} + {}|{} + {} =|
what do you get when you add {} and {}|can you add {} and {}|compute {} plus {}|what does {} + {} give|what is {}+{}|
what does {} plus {} make|tell me {} + {}|do you know {} + {}|how many are {} and {}|please add {} to {}|{} added to {}"""
LARGER = """which is larger, {} or {}|compare {} and {}|what is bigger, {} or {}|{} or {}, which is more|which is more, {} or {}|
which number is larger, {} or {}|what is the larger one of {} and {}|which is greater, {} or {}|is {} larger than {}|
is {} more than {}|is {} bigger than {}|{} or {}, what is larger|which one is bigger, {} or {}|compare {} with {}|
what is more, {} or {}|the larger of {} and {}|is {} greater than {}|tell me the bigger number, {} or {}"""
SMALLER = """which is smaller, {} or {}|what is smaller, {} or {}|{} or {}, which is less|which is less, {} or {}|is {} smaller than {}|
which number is smaller, {} or {}|is {} less than {}|the smaller of {} and {}|{} or {}, what is smaller|
tell me the smaller number, {} or {}"""


def forms(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


def addition(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}."


def larger(a: int, b: int) -> str:
    return f"{a} and {b} are equal." if a == b else f"{max(a, b)} is larger than {min(a, b)}."


def smaller(a: int, b: int) -> str:
    return f"{a} and {b} are equal." if a == b else f"{min(a, b)} is smaller than {max(a, b)}."


KINDS = [(forms(ADDITIONS), addition), (forms(LARGER), larger), (forms(SMALLER), smaller)]


def draw(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    questions, answer = rng.choices(KINDS, [55, 30, 15])[0]
    question = rng.choice(questions).format(a, b)
    if rng.random() < 0.4:
        question += rng.choice("?.")
    return question, answer(a, b)
