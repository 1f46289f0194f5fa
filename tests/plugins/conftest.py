"""The families that are installed, and running them beside the implementations that others wrote."""

from __future__ import annotations

import json
import pickle
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import fill, load_model
from llm_run.core.convert.save import save_model_directory
from llm_run.core.engine.runner import BatchRunner
from llm_run.core.ops import AttentionMask
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import find_family, installed, load_family

Logits = Callable[[CausalLM, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Variant:
    """A family and one of its sizes."""

    family: Family
    config: ModelConfig


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``family`` or ``variant`` with each installed family, or each tiny size of each."""
    families = [load_family(name) for name in installed().families]
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", families, ids=[family.card.name for family in families])
    if "variant" in metafunc.fixturenames:
        variants = {
            f"{family.card.name}-{name}": Variant(family, config)
            for family in families
            for name, config in family.card.sizes.items()
            if name.startswith("tiny")
        }
        metafunc.parametrize("variant", variants.values(), ids=variants.keys())


def redraw(model: CausalLM) -> None:
    """Give the matrices of a model large random values."""
    generator = np.random.default_rng(11)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            fill(parameter, generator.normal(0, 0.3, parameter.shape).astype(np.float32))


@pytest.fixture
def model(variant: Variant) -> CausalLM:
    """The variant's model with random weights, always the same ones, ready for inference.

    They are large enough for every token of a text to matter: with those that training begins with, many models repeat
    the last token whatever came before it. Vectors stay as they are built: norms at 1, biases at 0.
    """
    built = variant.family.build_model(variant.config)
    redraw(built)
    built.eval()
    return built


@pytest.fixture
def new_model(variant: Variant) -> CausalLM:
    """The variant's model with the weights that training begins with, always the same ones."""
    paddle.seed(11)
    return variant.family.build_model(variant.config)


@pytest.fixture
def held_to(model: CausalLM, new_model: CausalLM) -> list[tuple[CausalLM, float]]:
    """Models, and by how much the logits of one may differ that are computed in another order.

    Logits are around 10 with large weights, and around 1 with those that training begins with.
    """
    new_model.eval()
    return [(model, 1e-4), (new_model, 1e-5)]


@pytest.fixture(scope="session")
def logits() -> Logits:
    """Return a function that computes the logits of whole rows without padding."""

    def compute(model: CausalLM, ids_BS: np.ndarray) -> np.ndarray:
        positions = model.config.positions(ids_BS, np.ones_like(ids_BS, dtype=np.int32), None)
        with paddle.no_grad():
            hidden = model(paddle.to_tensor(ids_BS), paddle.to_tensor(positions), AttentionMask())
            return np.asarray(model.head(hidden).numpy())

    return compute


@pytest.fixture(scope="session")
def load() -> Callable[[Path], CausalLM]:
    """Return a function that loads a model directory or GGUF file as a run does, ready for inference."""

    def from_path(path: Path) -> CausalLM:
        fields = read_fields(path)
        family = find_family(fields)
        model = load_model(family, family.card.config_class.from_fields(fields), path)
        model.eval()
        return model

    return from_path


@pytest.fixture
def random_peer(tmp_path: Path) -> Callable[[Any], Any]:
    """Return a function that makes a transformers model with random weights and saves it in ``tmp_path``."""

    def make(peer_config: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(1)
        peer = AutoModelForCausalLM.from_config(peer_config).eval()
        for name, parameter in peer.named_parameters():
            # Norms around 1, biases around 0, matrices large enough for attention to be far from uniform.
            centre = 1.0 if parameter.ndim == 1 and not name.endswith("bias") else 0.0
            parameter.data.normal_(centre, 0.15)
        peer.save_pretrained(tmp_path)
        return peer

    return make


@pytest.fixture
def difference_to_transformers(
    tmp_path: Path, logits: Logits, load: Callable[[Path], CausalLM], random_peer: Callable[[Any], Any]
) -> Callable[..., float]:
    """Return a function that has a model written by transformers and read by ours, then written by ours and read by
    transformers; it returns the largest difference of logits."""

    def compare(peer_config: Any, *, length: int = 96, **changed_fields: Any) -> float:
        import torch
        from transformers import AutoModelForCausalLM

        peer = random_peer(peer_config)
        file = tmp_path / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed_fields}))
        ids = np.random.default_rng(0).integers(0, peer_config.vocab_size, [2, length])
        model = load(tmp_path)
        save_model_directory(model, find_family(model.config.to_fields()), model.config, None, tmp_path / "again")
        with torch.no_grad():
            expected = peer(torch.tensor(ids)).logits.numpy()
            again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()(torch.tensor(ids)).logits.numpy()
        read, written = (float(np.abs(one - expected).max()) for one in (logits(model, ids), again))
        print(f"read {read:.1e}, written {written:.1e}, largest logit {np.abs(expected).max():.1f}")
        assert np.abs(expected).max() > 1.0
        return max(read, written)

    return compare


@pytest.fixture(scope="session")
def difference_when_padded() -> Callable[[Any, CausalLM], float]:
    """Return a function that has both models answer a batch of prompts of unequal length, and compares the logits of
    each step; the peer pads on the left and has the tokens of its choice, which ours are given, too."""

    def compare(peer: Any, model: CausalLM, *, steps: int = 6) -> float:
        import torch

        random = np.random.default_rng(3)
        prompts = [random.integers(3, model.config.vocab_size, [length]).tolist() for length in (4, 11, 7)]
        padded = torch.tensor([[0] * (11 - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (11 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        said = peer.generate(
            padded, attention_mask=mask, max_new_tokens=steps, min_new_tokens=steps, do_sample=False,
            output_logits=True, return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
        tokens = said.sequences[:, 11:].T.tolist()
        with paddle.no_grad():
            runner = BatchRunner(model, prompts)
            ours = [runner.prefill(), *(runner.step(step) for step in tokens[:-1])]
        pairs = zip(ours, said.logits, strict=True)
        return max(float(np.abs(one.numpy() - other.numpy()).max()) for one, other in pairs)

    return compare


@pytest.fixture
def paddlenlp_case(project: Path, tmp_path: Path) -> Callable[[str, str], tuple[Path, np.ndarray, np.ndarray]]:
    """Return a function that makes the directory of one case of a golden file, as PaddleNLP saves it, and returns it
    with the case's token ids and PaddleNLP's logits."""

    def make(file: str, case: str) -> tuple[Path, np.ndarray, np.ndarray]:
        folder = project / "tests" / "golden"
        draw = runpy.run_path(str(folder / "drawn.py"))["draw"]
        with np.load(folder / f"{file}.npz") as golden:
            about, ids, logits = (golden[f"{case}_{part}"] for part in ("about", "ids", "logits"))
        recipe = json.loads(str(about))
        weights = draw(recipe["shapes"], recipe["seed"])
        weights |= {name: weights[original] for name, original in recipe["tied"].items()}
        (tmp_path / "config.json").write_text(json.dumps(recipe["fields"]))
        (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(weights, protocol=4))
        return tmp_path, ids, logits

    return make


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that turns transformers weights into a GGUF file with the names of the ``gguf`` package.

    ``rows`` changes a tensor on its way, given its GGUF name (llama.cpp permutes the rows of a llama's q and k).
    """

    def write(
        peer: Any,
        architecture: str,
        *,
        rows: Callable[[str, np.ndarray], np.ndarray] = lambda name, array: array,
        extra: dict[str, np.ndarray] | None = None,
    ) -> Path:
        import gguf

        config, file = peer.config, tmp_path / "model.gguf"
        writer = gguf.GGUFWriter(file, architecture)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(getattr(config, "num_key_value_heads", config.num_attention_heads))
        writer.add_context_length(getattr(config, "max_position_embeddings", config.hidden_size))
        if hasattr(config, "rms_norm_eps"):
            writer.add_layer_norm_rms_eps(config.rms_norm_eps)
            writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        else:
            writer.add_layer_norm_eps(config.layer_norm_epsilon)
        if getattr(config, "head_dim", None):
            writer.add_key_length(config.head_dim)
        numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        names = gguf.get_tensor_name_map(numbers[architecture], config.num_hidden_layers)
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        for name, tensor in peer.state_dict().items():
            if name not in tied:
                foreign = names.get_name(name, try_suffixes=(".weight", ".bias"))
                writer.add_tensor(foreign, np.ascontiguousarray(rows(foreign, tensor.numpy())))
        for name, array in (extra or {}).items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file

    return write
