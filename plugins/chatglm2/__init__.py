"""The chatglm2 family: ChatGLM2-6B and ChatGLM3-6B, which are one network with two chat formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import FamilyCard
from llm_run.core.registry.hookspecs import hookimpl

from .chat import llm_run_chat_template as llm_run_chat_template
from .config import SIZES, ChatGlm2Config
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
        name="chatglm2",
        api_version=(1, 0),
        config_class=ChatGlm2Config,
        model_types=("chatglm", "chatglm_v2"),
        architectures=("ChatGLMModel", "ChatGLMForConditionalGeneration", "ChatGLMv2Model", "ChatGLMv2ForCausalLM"),
        gguf_architectures=("chatglm",),
        telling_fields=("multi_query_group_num",),
        sizes=SIZES,
        lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    )


@hookimpl
def llm_run_build_model(config: ChatGlm2Config) -> CausalLM:
    from .model import ChatGlm2ForCausalLM  # imports Paddle

    return ChatGlm2ForCausalLM(config)
