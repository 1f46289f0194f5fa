"""The features of the matrix: what a family may support, which hook it takes, and what this version still lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .facts import Task

Group = Literal["task", "layout", "decoding", "precision", "parallel", "quantization"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix."""

    name: str
    """What ``llm_run_capabilities`` calls it."""
    group: Group
    title: str
    """Heading of the printed matrix, at most ten characters."""
    hook: str = ""
    """The optional hook without which the answer is "no"."""


TASK_TITLES = {"prefix_tuning": "prefix", "merge_lora": "merge lora", "merge_shards": "merge tp"}
TASK_HOOKS = {"ptq": "llm_run_quantizable_layers", "gptq": "llm_run_quantizable_layers"}

FEATURES = (
    *(Feature(task, "task", TASK_TITLES.get(task, task), TASK_HOOKS.get(task, "")) for task in get_args(Task)),
    Feature("hf", "layout", "HF"),
    Feature("paddlenlp", "layout", "PaddleNLP"),
    Feature("gguf", "layout", "GGUF"),
    Feature("batched_decoding", "decoding", "batched"),
    Feature("beam_search", "decoding", "beams"),
    Feature("streaming", "decoding", "streaming"),
    Feature("tensor_parallel_serving", "decoding", "tp", "llm_run_sharding_map"),
    Feature("paged_cache", "decoding", "paged KV"),
    Feature("float32", "precision", "float32"),
    Feature("bfloat16", "precision", "bfloat16"),
    Feature("float16", "precision", "float16"),
    Feature("gpu_kernels", "precision", "GPU ops"),
    Feature("data_parallel", "parallel", "dp"),
    Feature("sharding_stage1", "parallel", "stage1"),
    Feature("sharding_stage2", "parallel", "stage2"),
    Feature("sharding_stage3", "parallel", "stage3"),
    Feature("tensor_parallel", "parallel", "tp", "llm_run_sharding_map"),
    Feature("sequence_parallel", "parallel", "sp", "llm_run_sharding_map"),
    Feature("pipeline_parallel", "parallel", "pp", "llm_run_pipeline_split"),
    Feature("sep_parallel", "parallel", "sep"),
    Feature("weight_only_int8", "quantization", "WINT8", "llm_run_quantizable_layers"),
    Feature("weight_only_int4", "quantization", "WINT4", "llm_run_quantizable_layers"),
    Feature("a8w8", "quantization", "A8W8", "llm_run_quantizable_layers"),
    Feature("tensor_parallel_quantizing", "quantization", "tp", "llm_run_quantizable_layers"),
    Feature("cachekv_int8", "quantization", "int8 KV"),
)
BY_NAME = {feature.name: feature for feature in FEATURES}

GROUP_TITLES: dict[Group, str] = {
    "task": "Tasks (--task)",
    "layout": "Weights that are read",
    "decoding": "Decoding",
    "precision": "Training precision (16-bit needs a GPU), fused kernels of a GPU",
    "parallel": "Parallel axes",
    "quantization": "Quantization",
}
