from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import torch

from llm_run.core.convert import save
from llm_run.core.convert.dtypes import cast, to_float32
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.source import open_tensors
from llm_run.core.data.chat import ChatTemplate
from llm_run.core.errors import WeightError
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family


class Words:
    """A tokenizer of three words."""

    vocab_size, bos_id, eos_id, pad_id, stop_ids = 3, 1, 2, 0, (2,)

    def token_id(self, token: str) -> int | None:
        return {"<|end|>": 5}.get(token)

    def save(self, directory: Path) -> None:
        (directory / "words.txt").write_text("a b c")


def _save(directory: Path, family: Family, config: ModelConfig, **options: Any) -> Any:
    paddle.seed(3)
    model = family.build_model(config)
    save_model_directory(model, family, config, Words(), directory, **options)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("size", ["tiny", "tiny-tied", "tiny-bias"])
def test_transformers_loads_the_directory_with_equal_weights(size: str, llama: Family, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = llama.card.sizes[size]
    model = _save(tmp_path / "out", llama, config)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    ours = parameters(model)
    state = theirs.state_dict()
    query = ours["blocks.2.attention.q_proj.weight"].numpy()
    assert np.array_equal(state["model.layers.2.self_attn.q_proj.weight"].numpy(), query.T)
    assert np.array_equal(state["model.embed_tokens.weight"].numpy(), ours["embed_tokens.weight"].numpy())
    assert theirs.dtype == torch.float32


def test_every_family_comes_back_to_the_bit(tmp_path: Path) -> None:
    for name in ("llama", "qwen"):
        family = load_family(name)
        for size, config in family.card.sizes.items():
            if size.startswith("tiny"):
                model = _save(tmp_path / f"{name}-{size}", family, config)
                again = parameters(load_model(family, config, tmp_path / f"{name}-{size}"))
                for key, parameter in parameters(model).items():
                    assert np.array_equal(parameter.numpy(), again[key].numpy()), (name, size, key)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_weights_are_rounded_once(dtype: str, llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    model = _save(tmp_path / "out", llama, tiny, dtype=dtype)
    assert {entry.dtype for entry in open_tensors(tmp_path / "out").entries.values()} == {dtype}
    again = parameters(load_model(llama, tiny, tmp_path / "out"))
    for name, parameter in parameters(model).items():
        expected = to_float32(cast(parameter.numpy(), "float32", dtype), dtype)
        assert np.array_equal(again[name].numpy(), expected)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["dtype"] == fields["torch_dtype"] == dtype


def test_shards_stay_below_the_limit_and_transformers_reads_them(
    llama: Family, tiny: ModelConfig, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    _save(tmp_path / "out", llama, tiny, max_shard_gb=2e-4)
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) >= 3 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(shard.stat().st_size < 210_000 for shard in shards)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert index["metadata"]["total_parameters"] == sum(p.numel() for p in model.parameters())
    assert index["metadata"]["total_size"] == 4 * index["metadata"]["total_parameters"]


def test_the_files_are_the_ones_that_the_formats_library_would_write(
    llama: Family, tiny: ModelConfig, tmp_path: Path
) -> None:
    from safetensors import safe_open

    _save(tmp_path / "out", llama, tiny)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(open_tensors(tmp_path / "out").entries)


def test_token_ids_and_the_template_are_written(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    template = ChatTemplate(jinja="{{ messages }}", stop=("<|end|>", "<|absent|>"))
    _save(tmp_path / "out", llama, tiny, chat_template=template)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (fields["bos_token_id"], fields["eos_token_id"], fields["pad_token_id"]) == (1, 2, 0)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0}
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "out" / "words.txt").read_text() == "a b c"


def test_the_report_proves_each_file(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    _save(tmp_path / "out", llama, tiny)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["family"] == "llama" and report["versions"]["paddle"] == paddle.__version__
    assert report["round_trip"] == {"tensors": 39, "unchanged": 39, "equal_bits": True}
    assert {"config.json", "model.safetensors", "words.txt"} <= set(report["files"])
    for name, fact in report["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert fact == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_weights_that_do_not_read_back_are_not_published(
    llama: Family, tiny: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that flips a bit: the written file is harmed before it is read back."""
    write = save.write_shards

    def harmed(directory: Path, *arguments: Any, **options: Any) -> None:
        write(directory, *arguments, **options)
        content = bytearray((directory / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (directory / "model.safetensors").write_bytes(content)

    monkeypatch.setattr(save, "write_shards", harmed)
    with pytest.raises(WeightError, match=r"lm_head\.weight: does not read back as it was written"):
        _save(tmp_path / "out", llama, tiny)
    assert list(tmp_path.iterdir()) == []


def test_without_a_tokenizer_only_the_model_is_written(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    save_model_directory(llama.build_model(tiny), llama, tiny, None, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "report.json"}


def test_values_that_float16_cannot_hold_are_refused(llama: Family, tiny: ModelConfig, tmp_path: Path) -> None:
    model = llama.build_model(tiny)
    weight = parameters(model)["norm.weight"]
    weight.set_value(paddle.full(weight.shape, 7e4))
    with pytest.raises(WeightError, match=r"norm\.weight: has values beyond 65504, .* Use --save_dtype bfloat16"):
        save_model_directory(model, llama, tiny, None, tmp_path / "out", dtype="float16")
    assert list(tmp_path.iterdir()) == []
