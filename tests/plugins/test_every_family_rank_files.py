"""What PaddleNLP's ranks save, for every installed family: cut by PaddleNLP's own rules, and joined by ours."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import open_logical, parameters
from llm_run.core.convert.rank_files import open_rank_files
from llm_run.core.convert.rank_tensors import open_ranks
from llm_run.core.convert.save import ModelParts, write_model_directory
from llm_run.core.convert.source import open_tensors
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand

COLUMNS = r"(q_proj|k_proj|v_proj|qkv_proj|gate_proj|up_proj|linear1|w1|w2|dense_h_to_4h)\.(weight|bias)"
HEADS = r"(lm_head|output_layer)\.weight"
ROWS = r"(o_proj|out_proj|down_proj|linear2|c_proj|dense|dense_4h_to_h)\.weight"
EMBEDDINGS = r"(embed_tokens|word_embeddings|wte)\.weight|lm_head\.decoder_weight"


def cut(name: str, whole: np.ndarray, fields: Mapping[str, Any], model: str, degree: int) -> list[np.ndarray]:
    """Cut one tensor as PaddleNLP's ``_get_tensor_parallel_mappings`` of the model says.

    Source: paddlenlp/transformers/conversion_utils.py (normal, 2-fused and 3-fused splits, the old order of queries,
    keys and values) and the mappings in the models' ``modeling.py``.
    """
    heads, groups = fields["num_heads"], fields["num_kv_heads"]
    if re.search(r"\.(query_key_value|c_attn)\.", name):
        if model == "chatglm2":
            size = whole.shape[-1] // (heads + 2 * groups)
            query, key, value = np.split(whole, [heads * size, (heads + groups) * size], axis=-1)
            shared = [np.split(part, degree, -1) if groups % degree == 0 else [part] * degree for part in (key, value)]
            return [np.concatenate(parts, -1) for parts in zip(np.split(query, degree, -1), *shared, strict=True)]
        if model == "qwen":
            return fused(whole, 3, degree)
        if model == "glm" and degree > 1:
            lanes = whole.reshape(*whole.shape[:-1], 3, heads, -1)
            whole = np.swapaxes(lanes, -3, -2).reshape(whole.shape)
        return np.split(whole, degree, axis=-1)
    if model == "chatglm2" and "dense_h_to_4h" in name:
        return fused(whole, 2, degree)
    if re.search(r"\.(k_proj|v_proj)\.", name) and groups % degree:
        return [whole] * degree
    if model == "gpt3" and name == "lm_head.weight":  # [V, H], as the embedding
        return np.split(whole, degree, axis=0)
    if re.search(rf"\.{COLUMNS}$", name) or re.search(rf"(^|\.){HEADS}$", name):
        return np.split(whole, degree, axis=-1)
    if re.search(rf"\.{ROWS}$", name) or re.search(rf"(^|\.)({EMBEDDINGS})$", name):
        return np.split(whole, degree, axis=0) if whole.shape[0] % degree == 0 else [whole] * degree
    return [whole] * degree


def fused(whole: np.ndarray, parts: int, degree: int) -> list[np.ndarray]:
    """Cut [A1, A2, B1, B2] to [A1, B1], [A2, B2]."""
    blocks = np.split(whole, parts * degree, axis=-1)
    return [np.concatenate(blocks[rank::degree], axis=-1) for rank in range(degree)]


def stages_of(name: str, num_layers: int, stages: int) -> set[int]:
    """The embeddings are on the first stage, a tied one on the last as well, the head and last norm on the last."""
    layer = re.search(r"\.(?:layers|h)\.(\d+)\.", name)
    if layer:
        return {int(layer[1]) * stages // num_layers}
    if re.search(EMBEDDINGS, name):
        return {0, stages - 1}
    return {0} if "embed" in name or "project_in" in name else {stages - 1}


def as_paddlenlp(variant: Any, model: CausalLM, weight_map: Any) -> dict[str, np.ndarray]:
    """The model's tensors as one file of PaddleNLP has them, with the copies of tied ones that such a file may have."""
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    found = {}
    for step in expand(weight_map, variant.config.num_layers):
        arrays = to_theirs(step.rule, [ours[name] for name in step.ours])
        found.update(zip(step.theirs, map(np.ascontiguousarray, arrays), strict=True))
    copies = {copy: found[name] for copy, name in weight_map.tied.items() if copy.endswith("decoder_weight")}
    return found | copies


@pytest.mark.parametrize(("degree", "stages"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_files_of_ranks_become_the_model_again(
    variant: Any, model: CausalLM, degree: int, stages: int, tmp_path: Path
) -> None:
    family, config = variant.family, variant.config
    weight_map = family.weight_map(config, "paddlenlp")
    if weight_map is None:
        pytest.skip("PaddleNLP has no such model")
    if config.num_heads % degree:
        pytest.skip("the heads do not divide")
    fields = {"num_heads": config.num_heads, "num_kv_heads": config.num_kv_heads}
    files: dict[str, dict[str, np.ndarray]] = {}
    for name, whole in as_paddlenlp(variant, model, weight_map).items():
        for rank, part in enumerate(cut(name, whole, fields, family.card.name, degree)):
            for stage in stages_of(name, config.num_layers, stages):
                said = [f"tp{rank:02d}"] * (degree > 1) + [f"pp{stage:02d}"] * (stages > 1)
                files.setdefault(f"model_state.{'_'.join(said)}.pdparams", {})[name] = part
    for name, tensors in files.items():
        (tmp_path / name).write_bytes(pickle.dumps(tensors, protocol=4))
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters(model).items()}
    joined = open_ranks(family, config, open_rank_files(tmp_path, {}), shapes)
    parts = ModelParts(
        family=family, config=config, tensors=joined, tokenizer=None, chat_template=None, source=str(tmp_path)
    )
    report = write_model_directory(parts, tmp_path / "whole", dtype="keep", max_shard_gb=1.0)
    assert report["round_trip"] == {"tensors": len(shapes), "unchanged": len(shapes), "equal_bits": True}
    written = open_logical(family, config, open_tensors(tmp_path / "whole"), shapes)
    for name, parameter in parameters(model).items():
        assert written.read(name).tobytes() == parameter.numpy().tobytes(), name
