"""Two ranks quantize every installed family to the bits of one process, and none of them holds the whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.registry.manager import installed

from .cases import METHODS, NUM_LAYERS


def files(folder: Path) -> dict[str, Any]:
    """Return configuration and tensors of a directory."""
    return {"config": json.loads((folder / "config.json").read_text()), **load_file(folder / "model.safetensors")}


@pytest.mark.parametrize("name", installed().families)
def test_ranks_quantize_as_one_process(found: Any, name: str) -> None:
    for method in METHODS:
        key = f"{name}-{method}"
        together, alone = files(found.folder / "together" / key), files(found.folder / "alone" / key)
        assert together.keys() == alone.keys() and together.pop("config") == alone.pop("config")
        for tensor, values in alone.items():
            assert values.dtype == together[tensor].dtype
            assert np.array_equal(together[tensor], values), f"{key}: {tensor}"
        expected = next(rank[key]["alone"] for rank in found.ranks if "alone" in rank[key])
        assert all(rank[key]["together"] == expected for rank in found.ranks), "reports differ"
        assert expected["comparison"]["max_logit_difference"] > 0


@pytest.mark.parametrize("name", installed().families)
def test_each_rank_keeps_its_blocks_and_no_embedding(found: Any, name: str) -> None:
    for method in METHODS:
        kept = [rank[f"{name}-{method}"]["kept"] for rank in found.ranks]
        blocks = [
            {int(layer.split(".")[1]) for layer in each["integers"] if layer.startswith("blocks.")} for each in kept
        ]
        assert blocks == [set(range(0, NUM_LAYERS, 2)), set(range(1, NUM_LAYERS, 2))]


def test_embeddings_are_there_only_while_they_are_used(found: Any) -> None:
    for rank in found.ranks:
        assert "embed_tokens.weight" not in rank["llama-wint8"]["kept"]["values"]
        assert "lm_head.weight" in rank["llama-wint8"]["kept"]["values"], "the head is still needed to compare"


def test_a_rank_without_a_batch_goes_along(found: Any) -> None:
    for rank in found.ranks:
        assert rank["one batch"] == rank["one batch alone"]
