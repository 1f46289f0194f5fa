"""Rounding the head: in directories that are written, and in models that are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.engine.setup import load_text_model
from llm_run.core.quant.layer import quantized_layers


@pytest.mark.parametrize(
    ("name", "options"),
    [("gptq", {}), ("ptq", {"quant_type": "WINT8"}), ("ptq", {"smooth": True, "smooth_all_linears": True})],
    ids=["gptq", "wint8", "w8a8"],
)
def test_a_model_whose_head_is_its_embedding_gets_a_quantized_head_of_its_own(
    run: Any, prepared: Any, tied_directory: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    out = run(name, model_name_or_path=tied_directory, quantize_lm_head=True, **options)
    fields, report = (json.loads((out / file).read_text()) for file in ("config.json", "report.json"))
    assert not fields["tie_word_embeddings"]
    about = fields["quantization_config"]
    assert about["lm_head"] if "lm_head" in about else about["ignore"] == []
    assert report["quantization"]["layers"][-1]["name"] == "lm_head" and report["round_trip"]["equal_bits"]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"src": "Numbers"}) + "\n")
    generate = prepared("generate", model_name_or_path=out, data_file=asked, output_file=tmp_path / "said.jsonl")
    assert "lm_head" in quantized_layers(load_text_model(generate))


def test_a_head_is_rounded_when_a_float_model_is_asked(
    prepared: Any, model_directory: Path, tied_directory: Path, tmp_path: Path, logits: Any
) -> None:
    asked, ids = tmp_path / "asked.jsonl", np.arange(3, 23)[None]
    asked.write_text("{}\n")
    for directory in (model_directory, tied_directory):
        how = {"model_name_or_path": directory, "data_file": asked, "quant_type": "WINT8"}
        without, model = (
            load_text_model(prepared("generate", **how, quantize_lm_head=with_head)) for with_head in (False, True)
        )
        assert "lm_head" in quantized_layers(model) and "lm_head" not in quantized_layers(without)
        difference = np.abs(logits(model, ids) - logits(without, ids)).max()
        assert 0 < difference < 0.02 * np.abs(logits(without, ids)).max()
