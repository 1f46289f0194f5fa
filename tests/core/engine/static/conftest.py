"""A tiny model directory with a tokenizer and a chat template, and what the task makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle
import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.tokenizer import find_chat_template
from llm_run.core.registry.manager import load_family
from llm_run.core.request import prepare
from llm_run.core.tasks import load_task

Run = Callable[..., int]


@pytest.fixture(scope="session")
def run_task() -> Run:
    """Return a function that runs a task with options."""

    def run(task: str, **options: Any) -> int:
        words = ["--task", task]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        return load_task(task)(prepare(resolve(parse(words))[0])[0])

    return run


@pytest.fixture(scope="session")
def small(chat_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama; its logits differ enough for greedy search to be sure."""
    family = load_family("llama")
    config = family.card.sizes["tiny"]
    tokenizer = family.tokenizer(config, chat_directory)
    config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size, init_std=0.15)
    paddle.seed(7)
    directory = tmp_path_factory.mktemp("small")
    save_model_directory(
        family.build_model(config), family, config, tokenizer, directory,
        chat_template=find_chat_template(family, config, chat_directory),
    )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def exported(small: Path, run_task: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported directory; tests that change it make a copy."""
    directory = tmp_path_factory.mktemp("out") / "exported"
    assert run_task("export", model_name_or_path=small, output_path=directory) == 0
    return directory


@pytest.fixture
def ask(run_task: Run, tmp_path: Path) -> Callable[..., str]:
    """Return a function that answers prompts greedily and returns what the output file holds."""

    def run(model: Path, **options: Any) -> str:
        data, output = tmp_path / "ask.jsonl", tmp_path / "answers.jsonl"
        data.write_text("".join(f'{{"src": "{text}"}}\n' for text in ("The park", "Numbers: 1, 2, 3", "1", "Paris")))
        settings = {"decode_strategy": "greedy_search", "max_new_tokens": 8, "src_length": 64, **options}
        output.unlink(missing_ok=True)
        assert run_task("generate", model_name_or_path=model, data_file=data, output_file=output, **settings) == 0
        return output.read_text()

    return run
