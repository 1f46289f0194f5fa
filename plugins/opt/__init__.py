"""The opt family: OPT 125m to 175b (Meta), OPT-IML and what was tuned from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import FamilyCard
from llm_run.core.registry.hookspecs import hookimpl

from .config import SIZES, OptConfig
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
        name="opt",
        api_version=(1, 0),
        config_class=OptConfig,
        model_types=("opt",),
        architectures=("OPTForCausalLM", "OPTModel", "OPTForConditionalGeneration"),
        sizes=SIZES,
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "project_in", "project_out"),
    )


@hookimpl
def llm_run_build_model(config: OptConfig) -> CausalLM:
    from .model import OptForCausalLM  # imports Paddle

    return OptForCausalLM(config)
