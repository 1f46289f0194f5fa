"""A GPT's weights out of the files of OpenAI, PaddleNLP and llama.cpp."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.registry.manager import load_family

PEER = transformers.GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=128)
Case = Callable[[str, str], tuple[Path, np.ndarray, np.ndarray]]


@pytest.mark.parametrize("case", ["split", "fused"])
def test_logits_equal_those_of_paddlenlp(
    case: str, paddlenlp_case: Case, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray]
) -> None:
    directory, ids, expected = paddlenlp_case("gpt3", case)
    assert np.abs(logits(load(directory), ids) - expected).max() < 1e-4


@pytest.mark.parametrize("case", ["split", "fused"])
def test_paddlenlp_file_comes_back_to_the_bit(
    case: str, paddlenlp_case: Case, load: Callable[[Path], CausalLM]
) -> None:
    directory = paddlenlp_case("gpt3", case)[0]
    theirs = pickle.loads((directory / "model_state.pdparams").read_bytes())
    model = load(directory)
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    weight_map = load_family("gpt3").weight_map(model.config, "paddlenlp")
    assert weight_map is not None
    again = {}
    for step in expand(weight_map, model.config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys() - {"lm_head.weight"}
    assert all(np.array_equal(again[name], theirs[name]) for name in again)


@pytest.mark.parametrize("is_published", [True, False])
def test_hugging_face_directory_comes_back_to_the_bit(
    is_published: bool, random_peer: Callable[[Any], Any], load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    random_peer(PEER)
    theirs = load_file(tmp_path / "model.safetensors")
    if is_published:
        # OpenAI's files: saved from the model without its head, and with the causal masks.
        names = {name: name.removeprefix("transformer.") for name in theirs}
        masks = {f"h.{block}.attn.bias": np.tril(np.ones([1, 1, 128, 128], np.float32)) for block in range(2)}
        save_file({names[name]: value for name, value in theirs.items()} | masks, tmp_path / "model.safetensors")
    model = load(tmp_path)
    save_model_directory(model, load_family("gpt3"), model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("has_copy", [True, False])
def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    has_copy: bool,
    random_peer: Callable[[Any], Any],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    """llama.cpp transposes the matrices, and writes the embedding once more as the head."""

    def transposed(name: str, array: np.ndarray) -> np.ndarray:
        return array.T if name.startswith("blk.") and array.ndim == 2 else array

    peer = random_peer(PEER)
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(tmp_path), ids)
    copy = {"output.weight": peer.transformer.wte.weight.detach().numpy()} if has_copy else {}
    model = load(write_gguf(peer, "gpt2", rows=transposed, extra=copy))
    assert np.abs(logits(model, ids) - expected).max() < 1e-5
    assert model.config.tie_embeddings == (not has_copy)


def test_config_of_paddlenlps_oldest_files_is_read(paddlenlp_case: Case, load: Callable[[Path], CausalLM]) -> None:
    directory = paddlenlp_case("gpt3", "split")[0]
    fields = json.loads((directory / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    inner = {name: fields[name] for name in (*kept, "max_position_embeddings")} | {"init_class": "GPTModel"}
    (directory / "config.json").unlink()
    legacy = {"init_args": [inner], "init_class": "GPTForPretraining"}
    (directory / "model_config.json").write_text(json.dumps(legacy))
    assert load(directory).config.ffn_size == fields["intermediate_size"]
