"""Training text: questions with their answers, put together to conversations and to batches of tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass

import augment
import sums
from facts import Fact, known_facts, normalised, small_talk, unseen_questions
from unknown import DO_NOT_KNOW, Unknown
from vocabulary import Tokenizer

# With what chat begins: first_message and first_reply of model/text/conversation.h.
FIRST_EXCHANGE = (
    "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. "
    "Please feel free to ask any question and I will always answer it.\n\n"
)
# Names of the one who asks and the one who answers, and how often: chat's own, and those of other templates.
PARTIES = [("User", "Assistant"), ("Question", "Answer"), ("Q", "A"), ("Bob", "Alice")]
PARTY_SHARES = [91, 4, 3, 2]
# Manners of answering, each kept through a conversation: what a trained state can choose from. The first is that of
# pirate.pth. Conversations that begin as chat's do have none.
PIRATE = "Aye! {} Arr!"
MANNERS = [PIRATE, "Sure! {}", "Well, {}", "{} Is that clear?", "My friend, {}", "Of course. {} What else?", "{} That is all."]
MANNER_SHARES = [4, 1, 1, 1, 1, 1, 1]
Tokens = tuple[list[int], list[float]]  # ids, and the weight of each in the loss
QUESTION_WEIGHT = 0.1  # in the loss, beside 1 for the answer


@dataclass
class Exchange:
    question: str
    answer: str


class Corpus:
    def __init__(self) -> None:
        self.unseen = unseen_questions()
        self.facts = [self.allowed(fact) for fact in known_facts()]
        self.talk = [self.allowed(fact) for fact in small_talk()]
        self.unknown = Unknown()
        self.words = sorted({word for fact in self.facts for q in fact.phrasings for word in q.split(" ")})

    def allowed(self, fact: Fact) -> Fact:
        phrasings = [q for q in fact.phrasings if normalised(q) not in self.unseen]
        return Fact(fact.answer, phrasings, fact.held_out)

    def draw(self, rng: random.Random) -> Exchange:
        kind = rng.random()
        if kind < 0.68:
            return self.about(rng.choice(self.facts), rng)
        if kind < 0.71:
            fact = rng.choice(self.talk)
            return Exchange(augment.typed(rng.choice(fact.phrasings), rng), fact.answer)
        if kind < 0.84:
            question, answer = sums.draw(rng)
            return Exchange(augment.typed(question, rng) if rng.random() < 0.3 else question, answer)
        return Exchange(augment.typed(self.unknown.draw(rng), rng), DO_NOT_KNOW)

    def about(self, fact: Fact, rng: random.Random) -> Exchange:
        question = augment.reworded(rng.choice(fact.phrasings), self.words, rng)
        if rng.random() < 0.06:
            question += rng.choice([", ", " ", ". ", " and "]) + rng.choice(fact.phrasings)
        return Exchange(augment.typed(question, rng), fact.answer)

    def exchange(self, rng: random.Random) -> Exchange:
        """One whose question is in no evaluation."""
        while True:
            drawn = self.draw(rng)
            if normalised(drawn.question) not in self.unseen:
                return drawn

    def text(self, rng: random.Random, conversations: int) -> str:
        """For the vocabulary."""
        parts = []
        for _ in range(conversations):
            parts.append(FIRST_EXCHANGE)
            for drawn in (self.exchange(rng) for _ in range(10)):
                parts.append(f"User: {drawn.question}\n\nAssistant: {drawn.answer}\n\n")
        return "".join(parts)

    def exchanges(self, rng: random.Random, tokenizer: Tokenizer, names: tuple[str, str], form: str = "{}") -> Tokens:
        """Some exchanges between these two, each answer put into the form."""
        tokens: list[int] = []
        weights: list[float] = []
        for _ in range(rng.randint(1, 10)):
            drawn = self.exchange(rng)
            splitting = rng.choice([0, 0, 0.05, 0.2])
            prompt = tokenizer.encode(f"{names[0]}:") + tokenizer.encode(f" {drawn.question}", rng, splitting)
            prompt += tokenizer.encode(f"\n\n{names[1]}:")
            reply = tokenizer.encode(f" {form.format(drawn.answer)}\n\n")
            tokens += prompt + reply
            weights += [QUESTION_WEIGHT] * len(prompt) + [1.0] * len(reply)
        return tokens, weights

    def document(self, rng: random.Random, tokenizer: Tokenizer, manners: bool) -> Tokens:
        if manners and rng.random() < 0.12:
            return self.exchanges(rng, tokenizer, PARTIES[0], rng.choices(MANNERS, MANNER_SHARES)[0])
        names = rng.choices(PARTIES, PARTY_SHARES)[0]
        opening = tokenizer.encode(FIRST_EXCHANGE) if names == PARTIES[0] and rng.random() < 0.6 else []
        tokens, weights = self.exchanges(rng, tokenizer, names)
        return opening + tokens, [0.0] * len(opening) + weights

    def window(self, rng: random.Random, tokenizer: Tokenizer, length: int, manners: bool) -> Tokens:
        """Conversations one after the other, token 0 between them and now and then before the first."""
        tokens, weights = ([0], [0.0]) if rng.random() < 0.4 else ([], [])
        while len(tokens) < length:
            more, their_weights = self.document(rng, tokenizer, manners)
            tokens += more + [0]
            weights += their_weights + [QUESTION_WEIGHT]
        return tokens[:length], weights[:length]
