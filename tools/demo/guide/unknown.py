"""Questions about everything that the model does not know: topics in forms, words that do not exist, chatter."""

from __future__ import annotations

import random

from facts import FOLDER

DO_NOT_KNOW = "I don't know that. I only know this software: ask me about strategies, models, states or speed."

# Kinds whose topics fit only forms of their own.
APART = {"words", "tasks", "numbers"}
ARTICLES = ("a ", "an ", "the ", "my ")
SYLLABLES = """ba be bo ca co da de di do fa fi fo ga go ha he hi ja jo ka ki la le li lo ma me mi mo na ne ni no pa pe pi
po ra re ri ro sa se si so ta te ti to va ve vi wa wi ya za zo sh ch th st tr gr pl br an en in on er or al el ing ock ust
ent ump ink""".split()
ENDINGS = ["", "", "s", "er", "ing", "ia", "on"]


def read_table(name: str) -> dict[str, list[str]]:
    lines = (FOLDER / "facts/unknown" / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split(": ", 1) for line in lines if not line.startswith("#"))
    return {kind: text.split("|") for kind, text in pairs}


def invented_word(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4))) + rng.choice(ENDINGS)


def without_article(topic: str) -> str:
    for article in ARTICLES:
        if topic.startswith(article):
            return topic[len(article) :]
    return topic


class Unknown:
    def __init__(self) -> None:
        self.topics = read_table("topics.txt")
        self.forms: dict[str, list[str]] = {}
        for kinds, forms in read_table("forms.txt").items():
            for kind in kinds.split(" "):
                self.forms.setdefault(kind, []).extend(forms)
        self.kinds = [kind for kind in self.topics if kind not in APART]
        lines = (FOLDER / "facts/unknown/questions.txt").read_text(encoding="utf-8").splitlines()
        self.questions = [line for line in lines if not line.startswith("#")]

    def topic(self, kind: str, rng: random.Random) -> str:
        topic = rng.choice(self.topics[kind])
        return without_article(topic) if rng.random() < 0.3 else topic

    def draw(self, rng: random.Random) -> str:
        which = rng.random()
        if which < 0.2:
            return rng.choice(self.questions)
        if which < 0.4:
            invented = [rng.choice(["", "", "a ", "the ", "my "]) + invented_word(rng) for _ in range(2)]
            forms = self.forms[rng.choice(["any", "any", rng.choice(self.kinds)])]
            return rng.choice(forms).format(*invented)
        if which < 0.6:
            kind = rng.choice(self.kinds)
            return rng.choice(self.forms["any"]).format(self.topic(kind, rng), self.topic(kind, rng))
        kind = rng.choice(list(self.topics))
        return rng.choice(self.forms[kind]).format(self.topic(kind, rng), self.topic(kind, rng))
