"""Prefixes of PEFT and PaddleNLP, against what they compute with them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import torch
import transformers
from peft import PeftModel, PrefixTuningConfig, get_peft_model

from llm_run.core.adapters.prefix_files import put_prefix, save_prefix
from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.errors import DataError, LlmRunError, RefusedError, WeightError
from llm_run.core.ops import AttentionMask
from llm_run.core.registry.manager import load_family

PREFIX, LAYERS, KV_HEADS, HEAD = 5, 2, 2, 8
SIZE = 2 * LAYERS * KV_HEADS * HEAD


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama with grouped heads, as transformers saves it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=KV_HEADS, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    peer = transformers.LlamaForCausalLM(config)
    for parameter in peer.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0.0, 0.15)
    folder = tmp_path_factory.mktemp("base")
    peer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(base: Path) -> CausalLM:
    family = load_family("llama")
    return load_model(family, family.read_config(read_fields(base)), base)


IDS = np.random.default_rng(0).integers(0, 96, [2, 17])


def logits_of(model: CausalLM) -> np.ndarray:
    positions = model.config.positions(IDS, np.ones_like(IDS, dtype=np.int32), None)
    with paddle.no_grad():
        hidden = model(paddle.to_tensor(IDS), paddle.to_tensor(positions), AttentionMask())
        return np.asarray(model.head(hidden).numpy())


def peer_logits(peer: Any) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(peer(input_ids=torch.tensor(IDS)).logits.numpy())


@pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
def test_a_prefix_of_peft_gives_the_logits_that_peft_computes(
    base: Path, model: CausalLM, tmp_path: Path, projected: bool
) -> None:
    torch.manual_seed(1)
    peer = transformers.LlamaForCausalLM.from_pretrained(base)
    without = peer_logits(peer)
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=PREFIX, prefix_projection=projected, encoder_hidden_size=16
    )
    tuned = get_peft_model(peer, config).eval()
    expected = peer_logits(tuned)
    tuned.save_pretrained(tmp_path)
    found = logits_of(put_prefix(model, tmp_path))
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(without - expected).max() > 1e-2


def test_peft_computes_with_a_prefix_of_ours_what_we_do(base: Path, model: CausalLM, tmp_path: Path) -> None:
    """The round: PaddleNLP's file, read by us, written by us, read by PEFT."""
    write_paddlenlp(tmp_path / "theirs", {"0.weight": drawn(PREFIX, SIZE)})
    put_prefix(model, tmp_path / "theirs")
    save_prefix(model, tmp_path / "ours", base=str(base))
    peer = transformers.LlamaForCausalLM.from_pretrained(base)
    expected = peer_logits(PeftModel.from_pretrained(peer, tmp_path / "ours").eval())
    assert np.abs(logits_of(put_prefix(model, tmp_path / "ours")) - expected).max() < 1e-5


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).normal(size=shape).astype(np.float32)


def write_paddlenlp(folder: Path, weights: dict[str, np.ndarray], **fields: Any) -> Path:
    """Write what PaddleNLP's PrefixModelForCausalLM.save_pretrained does (seed-toolchain reference, section 4.5)."""
    folder.mkdir(exist_ok=True)
    config = {
        "num_prefix_tokens": PREFIX, "num_attention_heads": KV_HEADS, "num_hidden_layers": LAYERS, "hidden_size": 32,
        "prefix_projection": len(weights) > 1, "prefix_dropout": 0.0, "tensor_parallel_degree": -1, "dtype": "float32",
    }  # fmt: skip
    (folder / "prefix_config.json").write_text(json.dumps(config | fields))
    (folder / "prefix_model_state.pdparams").write_bytes(pickle.dumps(weights, protocol=4))
    return folder


def attended(base: Path, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Logits of torch's llama with past keys and values [L, P, K, D], its tokens at positions from 0 on."""
    peer = transformers.LlamaForCausalLM.from_pretrained(base)
    cache = transformers.DynamicCache()
    for layer in range(LAYERS):
        pair = (torch.tensor(side[layer]).transpose(0, 1)[None].repeat(len(IDS), 1, 1, 1) for side in (keys, values))
        cache.update(*pair, layer)
    with torch.no_grad():
        out = peer(
            input_ids=torch.tensor(IDS), past_key_values=cache, position_ids=torch.arange(IDS.shape[1])[None],
            attention_mask=torch.ones(len(IDS), PREFIX + IDS.shape[1], dtype=torch.long),
        )  # fmt: skip
    return np.asarray(out.logits.numpy())


@pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
def test_a_prefix_of_paddlenlp_stands_before_position_0(
    base: Path, model: CausalLM, tmp_path: Path, projected: bool
) -> None:
    """Slot j < L of its last axis holds the keys of layer j, slot L + j the values, as its reshape takes them apart."""
    weights = {"0.weight": drawn(PREFIX, SIZE)}
    flat = weights["0.weight"]
    if projected:
        weights = {
            "0.weight": drawn(PREFIX, 32), "1.weight": drawn(32, 12), "1.bias": drawn(12),
            "3.weight": drawn(12, SIZE), "3.bias": drawn(SIZE),
        }  # fmt: skip
        hidden = np.tanh(weights["0.weight"] @ weights["1.weight"] + weights["1.bias"])
        flat = hidden @ weights["3.weight"] + weights["3.bias"]
    slots = flat.reshape(PREFIX, 2 * LAYERS, KV_HEADS, HEAD).transpose(1, 0, 2, 3)
    put_prefix(model, write_paddlenlp(tmp_path / "prefix", weights))
    assert np.abs(logits_of(model) - attended(base, slots[:LAYERS], slots[LAYERS:])).max() < 1e-4
    assert model.config.max_positions == 64


PLAIN = {"0.weight": drawn(PREFIX, SIZE)}


@pytest.mark.parametrize(
    ("weights", "fields", "kind", "said"),
    [
        (PLAIN, {"num_hidden_layers": 3}, RefusedError, "num_layers: 3 does not fit the model, which has 2"),
        (PLAIN, {"tensor_parallel_degree": 2}, RefusedError, "Save the prefix from one process"),
        (PLAIN, {"num_prefix_tokens": 4}, WeightError, r"holds a prefix of \[5, 64\]; 4 tokens of this model are"),
        (PLAIN, {"num_prefix_tokens": "x"}, DataError, "num_prefix_tokens: x is no number of tokens"),
        ({"0.bias": drawn(3)}, {}, WeightError, "which is no prefix encoder of PaddleNLP"),
        (
            {"0.weight": drawn(PREFIX, 32), "1.weight": drawn(31, 12), "1.bias": drawn(12),
             "3.weight": drawn(12, SIZE), "3.bias": drawn(SIZE)},
            {}, WeightError, "the matrices of the projection do not fit each other",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    model: CausalLM, tmp_path: Path, weights: Any, fields: Any, kind: type[LlmRunError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        put_prefix(model, write_paddlenlp(tmp_path / "prefix", weights, **fields))


def test_a_folder_without_a_prefix_is_refused(model: CausalLM, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"--prefix_path: .*nowhere is no folder"):
        put_prefix(model, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no prefix. Looked for adapter_config.json"):
        put_prefix(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(RefusedError, match="peft_type: 'LORA' is no prefix"):
        put_prefix(model, tmp_path)


def test_a_pickle_that_would_run_code_is_refused(model: CausalLM, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("run",)

    folder = write_paddlenlp(tmp_path / "prefix", {"0.weight": Evil()})  # type: ignore[dict-item]
    with pytest.raises(WeightError):
        put_prefix(model, folder)
