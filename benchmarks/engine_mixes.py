"""Random mixes of requests through the engine, against each request alone: every greedy token must be the same.

    python benchmarks/engine_mixes.py [--mixes 200] [--families llama qwen chatglm bloom]

Each mix draws the prompts (many begin alike), the lengths of the answers, and the engine's limits: a cache so small
that requests are preempted, blocks of several sizes, steps so short that prompts are cut, and guessing ahead or not.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llm_run.core.causal_lm import CausalLM
    from llm_run.core.engine.engine import Engine
    from llm_run.core.engine.sequence import Sequence

LONGEST_ANSWER = 12
NUM_PROMPTS = 24
STD = 0.3
"""Of the weights. With those that training begins with, many models repeat their last token, whatever came before."""
WRONG_GUESSES = 0.3


@dataclass(slots=True)
class Outcome:
    """What mixes have shown."""

    answers: int = 0
    mismatches: int = 0
    preempted: int = 0
    found: int = 0
    """Tokens of prompts that were found in the cache."""
    guessed_right: int = 0


class Oracle:
    """Guesses the answers that are expected, some tokens of them wrong (``Drafter``)."""

    def __init__(self, texts: list[list[int]], random: np.random.Generator) -> None:
        self._texts, self._random = texts, random

    def propose(self, sequence: Sequence, most: int) -> list[int]:
        """Return up to four tokens."""
        size = len(sequence.tokens)
        text = next(text for text in self._texts if text[:size] == sequence.tokens)
        return [
            token + 1 if self._random.random() < WRONG_GUESSES else token for token in text[size : size + min(most, 4)]
        ]


def redraw(model: CausalLM, seed: int = 0) -> None:
    """Give a model weights with which every token of a text matters."""
    from llm_run.core.convert.load import fill

    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        if len(parameter.shape) > 1:
            fill(parameter, generator.normal(0, STD, parameter.shape).astype(np.float32))


class Mixes:
    """Prompts of one model, with the answers that each gets alone."""

    def __init__(self, model: CausalLM, seed: int = 0) -> None:
        """Answer each prompt alone, over a plain cache."""
        from llm_run.core.engine.decode import generate
        from llm_run.core.engine.settings import SamplingSettings

        self._model, self._random = model, np.random.default_rng(seed)
        highest = model.config.vocab_size - 8
        beginnings = [self._random.integers(3, highest, size).tolist() for size in (0, 24, 33)]
        self._prompts = [
            beginnings[place % 3] + self._random.integers(3, highest, int(self._random.integers(1, 40))).tolist()
            for place in range(NUM_PROMPTS)
        ]
        settings = SamplingSettings(max_new_tokens=LONGEST_ANSWER)
        self._answers = [generate(model, [prompt], settings)[0].ids for prompt in self._prompts]

    def run(self, count: int) -> Outcome:
        """Run so many mixes."""
        outcome = Outcome()
        for _ in range(count):
            self._run_one(outcome)
        return outcome

    def _run_one(self, outcome: Outcome) -> None:
        from llm_run.core.engine.request import Request
        from llm_run.core.engine.settings import SamplingSettings

        draw = self._random
        places = draw.integers(0, NUM_PROMPTS, int(draw.integers(3, 12))).tolist()
        amounts = draw.integers(1, LONGEST_ANSWER + 1, len(places)).tolist()
        engine = self._engine()
        engine.start()
        handles = [
            engine.submit(Request(prompt=self._prompts[place], settings=SamplingSettings(max_new_tokens=amount)))
            for place, amount in zip(places, amounts, strict=True)
        ]
        for place, amount, handle in zip(places, amounts, handles, strict=True):
            outcome.answers += 1
            outcome.mismatches += [event.token for event in handle] != self._answers[place][:amount]
        engine.drain(10)
        engine.check()
        engine.stop()
        stats = engine.stats()
        outcome.preempted += stats.preemptions
        outcome.found += stats.prefix_hits
        outcome.guessed_right += stats.counts.guessed_right

    def _engine(self) -> Engine:
        from llm_run.core.engine.engine import Engine, EngineLimits

        draw = self._random
        limits = EngineLimits(
            cache_tokens=int(draw.choice([96, 160, 1024])), block_tokens=int(draw.choice([4, 8, 16])),
            step_tokens=int(draw.integers(4, 64)), max_running=int(draw.integers(2, 10)),
        )  # fmt: skip
        texts = [prompt + answer for prompt, answer in zip(self._prompts, self._answers, strict=True)]
        return Engine(self._model, None, limits, drafter=Oracle(texts, draw) if draw.random() < 0.3 else None)


def main() -> int:
    """Print one line a family; fail where a token differs."""
    import paddle

    from llm_run.core.registry.manager import load_family

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixes", type=int, default=200)
    parser.add_argument("--families", nargs="+", default=["llama", "qwen", "chatglm", "bloom"])
    arguments = parser.parse_args()
    wrong = 0
    for name in arguments.families:
        family = load_family(name)
        paddle.seed(4)
        model = family.build_model(family.card.sizes["tiny"])
        redraw(model)
        model.eval()
        begin = time.perf_counter()
        outcome = Mixes(model).run(arguments.mixes)
        wrong += outcome.mismatches
        print(
            f"{name}: mixes {arguments.mixes}, answers {outcome.answers}, mismatches {outcome.mismatches}, preempted "
            f"{outcome.preempted}, prompt tokens found in the cache {outcome.found}, guesses right "
            f"{outcome.guessed_right}, {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
