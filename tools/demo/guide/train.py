"""Trains the demo model from scratch: train.py FOLDER [--steps N]

Writes guide-2.5m.pth and guide-2.5m.vocab.txt into FOLDER. The same command goes on where an interrupted one stopped.
Two processes of one thread each share a step's batch: they wait for each other once a step, threads would at each
product.
"""

from __future__ import annotations

import argparse
import copy
import os
import pathlib
import random
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from corpus import QUESTION_WEIGHT, Corpus
from model import Guide, no_state, save_guide
from scoring import development_questions, report
from vocabulary import Tokenizer, make_vocabulary, read_vocabulary, write_vocabulary

VOCABULARY = 1500
PROCESSES, BATCH, LENGTH = 2, 2, 512  # BATCH: sequences of one process
RATE, LAST_RATE, WARM_UP, FALLING = 1.2e-3, 2e-5, 150, 0.47  # FALLING: the share of the steps at the end
DECAY = 0.1  # of matrices
MANNERS_FROM = 3000  # the step from which some conversations have another manner of answering
AVERAGE = 0.999  # what is left of the averaged weights at a step
EVERY, EVALUATE = 100, 1000  # steps between lines of the log with checkpoints, and between evaluations
SEED = 1


def vocabulary_of(corpus: Corpus, path: pathlib.Path) -> Tokenizer:
    if not path.exists():
        text = corpus.text(random.Random(SEED), 4000)
        write_vocabulary(make_vocabulary(text, VOCABULARY), str(path))
    return Tokenizer(read_vocabulary(str(path)))


def optimizer_of(model: Guide) -> torch.optim.Optimizer:
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, value in model.named_parameters():
        matrix = name.endswith(".weight") and value.dim() == 2
        groups.setdefault((2.0 if name.endswith("att.w0") else 1.0, DECAY if matrix else 0.0), []).append(value)
    parts = [dict(params=values, weight_decay=decay, scale=scale) for (scale, decay), values in groups.items()]
    return torch.optim.AdamW(parts, betas=(0.9, 0.99), eps=1e-18, fused=True)


def rate_at(step: int, steps: int) -> float:
    left = min(1, (steps - step) / (FALLING * steps))
    return min(1, step / WARM_UP) * (LAST_RATE + (RATE - LAST_RATE) * left)


class Training:
    def __init__(self, folder: pathlib.Path, steps: int, process: int):
        self.folder, self.steps, self.process = folder, steps, process
        self.step, self.seconds = 0, 0.0
        self.corpus = Corpus()
        self.tokenizer = vocabulary_of(self.corpus, folder / "guide-2.5m.vocab.txt")
        torch.manual_seed(SEED)
        self.model = Guide(self.tokenizer.size)
        self.average = copy.deepcopy(self.model)
        self.optimizer = optimizer_of(self.model)
        self.start = no_state()
        self.questions = development_questions(self.corpus)
        self.compiled = torch.compile(self.model)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(f"{SEED} {self.step} {self.process}")
        manners = self.step > MANNERS_FROM
        windows = [self.corpus.window(rng, self.tokenizer, LENGTH + 1, manners) for _ in range(BATCH)]
        return torch.tensor([w[0] for w in windows]), torch.tensor([w[1][1:] for w in windows])

    def one_step(self) -> float:
        """The loss on answers."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, self.steps) * group["scale"]
        tokens, weights = self.batch()
        logits = self.compiled(tokens[:, :-1], self.start)
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        weights = weights.flatten()
        self.optimizer.zero_grad(set_to_none=True)
        ((losses * weights).sum() / weights.sum()).backward()
        self.share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        left = min(AVERAGE, 1 - 10 / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - left)
        answers = weights > QUESTION_WEIGHT
        return losses[answers].mean().item()

    def share_gradients(self) -> None:
        gradients = [value.grad for value in self.model.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(PROCESSES).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))

    def evaluate(self) -> None:
        rounded = copy.deepcopy(self.average)
        for value in rounded.parameters():
            value.data = value.data.bfloat16().float()
        self.log(report(rounded, self.start, self.tokenizer, self.questions))

    def log(self, text: str) -> None:
        line = f"step {self.step}, {self.seconds / 60:.1f} min: {text}"
        print(line, flush=True)
        with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self) -> None:
        losses = []
        while self.step < self.steps:
            begin = time.monotonic()
            losses.append(self.one_step())
            self.seconds += time.monotonic() - begin
            if self.process > 0:
                continue
            if self.step % EVERY == 0:
                self.log(f"loss on answers {sum(losses) / len(losses):.4f}")
                losses.clear()
                self.keep()
            if self.step % EVALUATE == 0 or self.step == self.steps:
                self.evaluate()
                save_guide(self.average, str(self.folder / "guide-2.5m.pth"))

    def keep(self) -> None:
        parts = dict(
            step=self.step,
            seconds=self.seconds,
            model=self.model.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )
        torch.save(parts, self.folder / "checkpoint.new")
        os.replace(self.folder / "checkpoint.new", self.folder / "checkpoint")

    def resume(self) -> None:
        if not (self.folder / "checkpoint").exists():
            return
        parts = torch.load(self.folder / "checkpoint", weights_only=True)
        self.step, self.seconds = parts["step"], parts["seconds"]
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        self.optimizer.load_state_dict(parts["optimizer"])


def run(process: int, folder: pathlib.Path, steps: int) -> None:
    torch.set_num_threads(1)
    meeting = folder / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting.resolve()}", rank=process, world_size=PROCESSES)
    training = Training(folder, steps, process)
    training.resume()
    if process == 0:
        size = sum(value.numel() for value in training.model.parameters())
        training.log(f"{size} parameters, {len(training.corpus.facts)} facts")
    training.run()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=6500)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "meeting").unlink(missing_ok=True)
    vocabulary_of(Corpus(), options.folder / "guide-2.5m.vocab.txt")
    mp.spawn(run, (options.folder, options.steps), PROCESSES)


if __name__ == "__main__":
    main()
