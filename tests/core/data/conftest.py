"""Small real tokenizers, and runs with the options that a test names."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from llm_run.core.config.groups import ConvertOptions, DataOptions, DecodingOptions, LaunchOptions, ModelOptions
from llm_run.core.config.training import TrainingOptions
from llm_run.core.data.tokenizers import JsonTokenizer, SentencePieceTokenizer, TokenFacts
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.run import Run, RunConfig

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "人之初,性本善。性相近,习相远。苟不教,性乃迁。",
    "Whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune.",
] * 4
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True)
class PlainConfig(ModelConfig):
    """A model shape for tests of data."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**fields)

    def to_fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@pytest.fixture(scope="session")
def model_config() -> ModelConfig:
    """A shape with a vocabulary of 600 tokens."""
    return PlainConfig(
        vocab_size=600,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        ffn_size=8,
        max_positions=64,
    )


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE as tokenizer.json, its special tokens those of ChatML."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    )
    return folder


@pytest.fixture(scope="session")
def bpe(bpe_folder: Path) -> JsonTokenizer:
    """The byte-level BPE."""
    return JsonTokenizer(bpe_folder)


@pytest.fixture(scope="session")
def piece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SentencePiece BPE as llama's: byte fallback, no normalization."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=420, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("piece")
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(scope="session")
def piece(piece_folder: Path) -> SentencePieceTokenizer:
    """The SentencePiece BPE, with ``<s>`` before a prompt."""
    return SentencePieceTokenizer(
        piece_folder / "tokenizer.model", facts=TokenFacts(bos="<s>", eos="</s>", prefix=("<s>",))
    )


@pytest.fixture
def make_run(model_config: ModelConfig) -> Callable[..., Run]:
    """Build a run out of option values; each goes to the group that has it."""

    def make(task: str, **values: Any) -> Run:
        groups = {"model": ModelOptions, "data": DataOptions, "training": TrainingOptions, "decoding": DecodingOptions,
                  "convert": ConvertOptions, "launch": LaunchOptions}  # fmt: skip
        made = {}
        for name, group in groups.items():
            fields = {field.name for field in dataclasses.fields(group)}
            made[name] = group(**{key: values.pop(key) for key in sorted(fields & values.keys())})
        assert not values, f"no such option: {sorted(values)}"
        config = RunConfig(task=task, family="llama", origins={}, **made)
        return Run(config=config, family=None, model_config=model_config)  # type: ignore[arg-type]

    return make


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write objects (or raw lines) as a JSONL file."""

    def write(name: str, *records: Any) -> Path:
        lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
