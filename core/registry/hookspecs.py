# mypy: disable-error-code="empty-body"
# A hook specification has a contract and no body.
"""The hooks of a family plugin.

A plugin is a module (or object) whose functions carry ``@hookimpl``; its entry point in the group
``llm_run.families`` is named after the family. Each family has a plugin manager of its own, so a hook is called on
the plugin that was asked for and on no other. Importing a plugin must not import Paddle: only ``build_model`` may.
Every ``config`` is an instance of the card's ``config_class``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from .facts import FamilyCard, Layout, ModelConfig, Piece, QuantGroup, ShardingRule, Support, WeightMap

PROJECT = "llm_run"
ENTRY_POINT_GROUP = "llm_run.families"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def llm_run_family() -> FamilyCard:
    """Say who the family is. Called first, once a process, by ``core/registry/manager.py``. Required."""


@hookspec(firstresult=True)
def llm_run_capabilities(config: ModelConfig) -> Mapping[str, Support]:
    """Say what a variant supports, by feature name (``core/registry/capability.py`` lists them). Required.

    A feature that is left out is a "no" with the reason that the family does not declare it. What follows from
    arithmetic (heads divisible by the tensor degree) the core adds itself.
    """


@hookspec(firstresult=True)
def llm_run_build_model(config: ModelConfig) -> CausalLM:
    """Build the single-device network, with random weights. Required.

    Parameters are created in float32 on the current device, drawn from Paddle's global generator.
    """


@hookspec(firstresult=True)
def llm_run_sharding_map(config: ModelConfig) -> tuple[ShardingRule, ...]:
    """State how each parameter splits over tensor-parallel ranks. Without it tensor parallelism is a "no"."""


@hookspec(firstresult=True)
def llm_run_pipeline_split(config: ModelConfig) -> tuple[Piece, ...]:
    """State the pieces of the model in forward order. Without it pipeline parallelism is a "no"."""


@hookspec(firstresult=True)
def llm_run_chat_template(config: ModelConfig) -> ChatTemplate | None:
    """Return the family's own chat format, for model directories that bring none.

    ``None``: the variant has no chat format; chat and message data then need ``--chat_template``.
    """


@hookspec(firstresult=True)
def llm_run_quantizable_layers(config: ModelConfig) -> tuple[QuantGroup, ...]:
    """State which linear layers may be quantized, grouped by their common input. Without it quantization is a "no"."""


@hookspec(firstresult=True)
def llm_run_weight_map(config: ModelConfig, layout: Layout) -> WeightMap | None:
    """State our names and the foreign ones. Required for ``hf``; ``None``: the family has no map for that layout."""


@hookspec(firstresult=True)
def llm_run_tokenizer(config: ModelConfig, directory: Path) -> Tokenizer:
    """Load the tokenizer from the family's original files in ``directory``. Required.

    Raises:
        DataError: a file is missing or malformed; the text names it and says which files the family reads.
    """
