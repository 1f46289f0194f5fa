"""A tiny model, rows of made-up tokens, and a run of them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.config.groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family
from llm_run.core.run import Run, RunConfig
from llm_run.core.trainer.identity import identity
from llm_run.core.trainer.job import Job
from llm_run.core.trainer.loop import train
from llm_run.core.trainer.randomness import seed_all
from llm_run.core.trainer.resume import find_checkpoint
from llm_run.core.trainer.storage import Storage
from llm_run.core.trainer.workspace import Workspace


@dataclass(frozen=True)
class Rows:
    """Rows that count upwards from a random token, of random or fixed length; the first tokens are a prompt."""

    epoch_size: int = 64
    length: int = 16
    vocab_size: int = 64
    ragged: bool = False
    prompt: int = 0
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        return f"rows {self.epoch_size} {self.length} {self.vocab_size} {self.ragged} {self.prompt} {self.seed}"

    def sample(self, position: int) -> Sample:
        generator = np.random.default_rng([self.seed, position % self.epoch_size])
        length = int(generator.integers(self.prompt + 2, self.length + 1)) if self.ragged else self.length
        first, stride = generator.integers(self.vocab_size), generator.integers(1, 4)
        tokens = (first + stride * np.arange(length + 1)) % self.vocab_size
        labels = tokens[1:].copy()
        labels[: self.prompt] = IGNORED
        return Sample(
            ids=tokens[:-1],
            labels=labels,
            segments=np.ones(length, dtype=np.int32),
            prefix=np.arange(length) < self.prompt,
        )


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    return Rows


@pytest.fixture(scope="session")
def family() -> Family:
    return load_family("llama")


@pytest.fixture(scope="session")
def model_config(family: Family) -> ModelConfig:
    return family.card.sizes["tiny"]


@pytest.fixture
def make_job(family: Family, model_config: ModelConfig) -> Callable[..., Job]:
    """Build a job of the tiny model: ``make_job(output_dir, source, evaluation, **training_options)``."""

    def make(output_dir: Path, source: Rows, evaluation: Rows | None = None, **options: Any) -> Job:
        defaults = {
            "output_dir": str(output_dir), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
            "max_steps": 6, "logging_steps": 1, "save_steps": 2, "learning_rate": 3e-3, "save_rehearsal": False,
        }  # fmt: skip
        config = RunConfig(
            task="pretrain", family="llama", model=ModelOptions(model_size="tiny"), data=DataOptions(),
            training=TrainingOptions(**(defaults | options)), decoding=DecodingOptions(), convert=ConvertOptions(),
            launch=LaunchOptions(), origins={"max_steps": "flag"},
        )  # fmt: skip
        run = Run(config=config, family=family, model_config=model_config)
        seed_all(config.training.seed)
        return Job(
            run=run, model=family.build_model(model_config), training=source, evaluation=evaluation, tokenizer=None,
            template=None, identity=identity(run, data=source.fingerprint, weights="random"),
        )  # fmt: skip

    return make


@pytest.fixture
def run_job() -> Callable[..., int]:
    """Train a job in its output directory, going on from the newest checkpoint, as the tasks do."""

    def run(job: Job, storage: Storage | None = None) -> int:
        with Workspace(Path(job.options.output_dir or ""), storage) as workspace:
            return train(job, workspace, find_checkpoint(workspace, job.options, job.identity))

    return run
