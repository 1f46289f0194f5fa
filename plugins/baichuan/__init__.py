"""The baichuan family: Baichuan 7B and 13B, and Baichuan 2 of both sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import FamilyCard
from llm_run.core.registry.hookspecs import hookimpl

from .chat import llm_run_chat_template as llm_run_chat_template
from .config import SIZES, BaichuanConfig
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
        name="baichuan",
        api_version=(1, 0),
        config_class=BaichuanConfig,
        model_types=("baichuan",),
        architectures=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
        gguf_architectures=("baichuan",),
        sizes=SIZES,
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )


@hookimpl
def llm_run_build_model(config: BaichuanConfig) -> CausalLM:
    from .model import BaichuanForCausalLM  # imports Paddle

    return BaichuanForCausalLM(config)
