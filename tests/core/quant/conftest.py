"""A tiny llama, data for it, and its quantized directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.convert.save import ModelParts, save_model_directory, write_model_directory
from llm_run.core.convert.tokenizer import load_tokenizer
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Batch, Sample
from llm_run.core.ops import AttentionMask
from llm_run.core.quant import task
from llm_run.core.quant.directory import ModelPacking, QuantizedTensors
from llm_run.core.quant.methods import Method
from llm_run.core.quant.plan import quantization_config
from llm_run.core.quant.quantize import Quantized, quantize_by_blocks
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family

TEXTS = [
    "The quantization of a model rounds its weights to integers, layer after layer.",
    "Numbers: 1, 2, 3, 10, 100; words, words, and some more words, until the row is full.",
    "Once upon a time there was a small matrix that wanted to be smaller still.",
]


@pytest.fixture(scope="session")
def llama() -> Family:
    return load_family("llama")


@pytest.fixture
def model(llama: Family) -> CausalLM:
    """Random, with inputs of unequal size and norms that are not all 1, ready for inference."""
    paddle.seed(3)
    built = llama.build_model(llama.card.sizes["tiny"])
    random = np.random.default_rng(4)
    for name, parameter in built.named_parameters():
        if name.endswith("norm.weight"):
            parameter.set_value(np.exp(random.normal(0, 0.7, parameter.shape)).astype(np.float32))
        elif name.endswith("proj.weight"):
            parameter.set_value(random.normal(0, 0.15, parameter.shape).astype(np.float32))
    built.eval()
    return built


def rows(config: Any, count: int, seed: int) -> list[Batch]:
    """Batches of two rows of 24 and 19 tokens."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        samples = []
        for length in (24, 19):
            ids = random.integers(3, config.vocab_size, [length])
            labels = np.append(ids[1:], IGNORED)
            samples.append(Sample(ids, labels, np.ones(length, dtype=np.int32), np.arange(length) < 1))
        made.append(collate(samples, config, 0))
    return made


@pytest.fixture
def quantize(llama: Family, model: CausalLM) -> Callable[[Method], Quantized]:
    """Return a function that quantizes the model by a method."""
    config = model.config

    def act(method: Method) -> Quantized:
        return quantize_by_blocks(
            llama, config, ModelTensors(model), method,
            calibration=rows(config, 4, 0), evaluation=rows(config, 2, 7),
        )  # fmt: skip

    return act


@pytest.fixture
def write(llama: Family, tmp_path: Path) -> Callable[[Quantized, Method], Path]:
    """Return a function that writes a quantized model as a directory."""

    def act(quantized: Quantized, method: Method) -> Path:
        config = quantized.model.config
        stored = dict.fromkeys(ModelTensors(llama.build_model(config)).shapes, "float32")
        parts = ModelParts(
            family=llama, config=config, tensors=QuantizedTensors(quantized.model, stored), tokenizer=None,
            chat_template=None, source="a test",
            packing=ModelPacking(quantized.model, quantization_config(method, quantized.model)),
        )  # fmt: skip
        write_model_directory(parts, tmp_path / "quantized", dtype="keep", max_shard_gb=5.0)
        return tmp_path / "quantized"

    return act


@pytest.fixture(scope="session")
def logits() -> Callable[[CausalLM, np.ndarray], np.ndarray]:
    """Return a function that computes the logits of whole rows."""

    def compute(model: CausalLM, ids_BS: np.ndarray) -> np.ndarray:
        positions = model.config.positions(ids_BS, np.ones_like(ids_BS, dtype=np.int32), None)
        with paddle.no_grad():
            hidden = model(paddle.to_tensor(ids_BS), paddle.to_tensor(positions), AttentionMask())
            return np.asarray(model.head(hidden).numpy())

    return compute


def write_random(llama: Family, size: str, seed: int, tokenizer_files: Path, directory: Path) -> Path:
    """Write a random model of a size with a tokenizer."""
    paddle.seed(seed)
    config = llama.card.sizes[size]
    model, tokenizer = llama.build_model(config), load_tokenizer(llama, config, tokenizer_files)
    save_model_directory(model, llama, config, tokenizer, directory)
    return directory


@pytest.fixture(scope="session")
def model_directory(llama: Family, byte_level_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a tokenizer."""
    return write_random(llama, "tiny", 1, byte_level_files, tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def tied_directory(llama: Family, byte_level_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a model whose head is its embedding."""
    return write_random(llama, "tiny-tied", 2, byte_level_files, tmp_path_factory.mktemp("tied") / "model")


@pytest.fixture(scope="session")
def byte_level_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level ``tokenizer.json``."""
    import tokenizers

    directory = tmp_path_factory.mktemp("tokenizer")
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    built.train_from_iterator(TEXTS, trainer)
    built.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return directory


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration records of several kinds, and evaluation records."""
    folder = tmp_path_factory.mktemp("data")
    records: list[dict[str, Any]] = [{"text": text * 3} for text in TEXTS]
    records += [{"src": text, "tgt": "It is so."} for text in TEXTS]
    records += [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in TEXTS
    ]
    (folder / "quant.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "dev.json").write_text(json.dumps({"src": TEXTS[0], "tgt": TEXTS[1]}) + "\n")
    return folder


@pytest.fixture
def run(model_directory: Path, data: Path, tmp_path: Path, prepared: Callable[..., Any]) -> Callable[..., Path]:
    """Return a function that runs a task and returns its output folder."""

    def act(name: str, **options: Any) -> Path:
        settings = {
            "model_name_or_path": model_directory,
            "dataset_name_or_path": data,
            "output_dir": tmp_path / "out",
            "per_device_train_batch_size": 2,
            "max_length": 64,
            "src_length": 32,
            **options,
        }
        assert task.run(prepared(name, **settings)) == 0
        return Path(settings["output_dir"])

    return act


@pytest.fixture
def prepared() -> Callable[..., Any]:
    """Return a function from a task and its options to the ``Run`` that the task is handed."""
    from llm_run.core.config.flags import parse
    from llm_run.core.config.resolve import resolve
    from llm_run.core.request import prepare

    def make(name: str, **options: Any) -> Any:
        words = ["--task", name]
        for option, value in options.items():
            words += [f"--{option}", str(value)]
        return prepare(resolve(parse(words))[0])[0]

    return make
