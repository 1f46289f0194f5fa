"""The qwen family: Qwen 1, 2, 2.5 and 3, without experts or images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import FamilyCard
from llm_run.core.registry.hookspecs import hookimpl

from .chat import llm_run_chat_template as llm_run_chat_template
from .config import ARCHITECTURES, MODEL_TYPES, SIZES, QwenConfig
from .sharding import llm_run_pipeline_split as llm_run_pipeline_split
from .sharding import llm_run_quantizable_layers as llm_run_quantizable_layers
from .sharding import llm_run_sharding_map as llm_run_sharding_map
from .support import llm_run_capabilities as llm_run_capabilities
from .tokenizer import llm_run_tokenizer as llm_run_tokenizer
from .weights import llm_run_weight_map as llm_run_weight_map

if TYPE_CHECKING:
    from llm_run.core.causal_lm import CausalLM


@hookimpl
def llm_run_family() -> FamilyCard:
    return FamilyCard(
        name="qwen",
        api_version=(1, 0),
        config_class=QwenConfig,
        model_types=tuple(MODEL_TYPES),
        architectures=tuple(name for names in ARCHITECTURES.values() for name in names),
        gguf_architectures=tuple(MODEL_TYPES),
        sizes=SIZES,
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )


@hookimpl
def llm_run_build_model(config: QwenConfig) -> CausalLM:
    from .model import QwenForCausalLM  # imports Paddle

    return QwenForCausalLM(config)
