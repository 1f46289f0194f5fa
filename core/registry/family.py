"""A loaded family: the only way by which the core asks a plugin anything. Every answer is checked for its type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LlmRunError, PluginError
from .facts import FamilyCard, Layout, ModelConfig, Piece, QuantGroup, ShardingRule, Support, WeightMap
from .manager import PluginSource, one_line

if TYPE_CHECKING:
    import pluggy

    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a plugin states and builds. Every ``config`` is an instance of ``card.config_class``.

    All methods raise ``PluginError`` where the hook fails or answers with the wrong type; ``LlmRunError`` that the
    hook raises itself (a missing tokenizer file) passes through.
    """

    source: PluginSource
    card: FamilyCard
    hooks: pluggy.HookRelay
    warnings: tuple[str, ...] = ()

    @property
    def distribution(self) -> str:
        """The package that the plugin came in."""
        return self.source.distribution

    @property
    def version(self) -> str:
        """Of that package."""
        return self.source.version

    def has_hook(self, name: str) -> bool:
        """Whether the plugin implements an optional hook."""
        return bool(getattr(self.hooks, name).get_hookimpls())

    def read_config(self, fields: Mapping[str, Any]) -> ModelConfig:
        """Return the shape that a ``config.json`` describes.

        Raises:
            RefusedError: the plugin refuses a field.
            PluginError: the plugin fails on it.
        """
        try:
            return self.card.config_class.from_fields(fields)
        except LlmRunError:
            raise
        except Exception as error:
            name = self.card.config_class.__name__
            raise PluginError(f"{self.source} fails in {name}.from_fields: {one_line(error)}") from error

    def capabilities(self, config: ModelConfig) -> Mapping[str, Support]:
        """Return what the family itself says of a variant, by feature; see ``core/registry/capability.py``."""
        answer = self._call("llm_run_capabilities", config=config)
        if not isinstance(answer, Mapping):
            raise self._wrong("llm_run_capabilities", answer, "a mapping of Support")
        for feature, support in answer.items():
            if not isinstance(support, Support):
                raise self._wrong(f"llm_run_capabilities[{feature!r}]", support, "Support")
        return answer

    def build_model(self, config: ModelConfig) -> CausalLM:
        """Build the single-device network with random weights; imports Paddle."""
        from ..causal_lm import CausalLM

        answer = self._call("llm_run_build_model", config=config)
        if not isinstance(answer, CausalLM):
            raise self._wrong("llm_run_build_model", answer, "CausalLM")
        return answer

    def sharding_map(self, config: ModelConfig) -> tuple[ShardingRule, ...] | None:
        """Return how each parameter splits over tensor-parallel ranks; ``None`` without the hook."""
        return self._tuple_of(ShardingRule, "llm_run_sharding_map", config)

    def pipeline_split(self, config: ModelConfig) -> tuple[Piece, ...] | None:
        """Return the pieces of the model in forward order; ``None`` without the hook."""
        return self._tuple_of(Piece, "llm_run_pipeline_split", config)

    def quantizable_layers(self, config: ModelConfig) -> tuple[QuantGroup, ...] | None:
        """Return the groups of linear layers that may be quantized; ``None`` without the hook."""
        return self._tuple_of(QuantGroup, "llm_run_quantizable_layers", config)

    def chat_template(self, config: ModelConfig) -> ChatTemplate | None:
        """Return the family's own chat format; ``None`` where the variant has none."""
        from ..data.chat import ChatTemplate

        answer = self._call("llm_run_chat_template", config=config)
        if answer is not None and not isinstance(answer, ChatTemplate):
            raise self._wrong("llm_run_chat_template", answer, "ChatTemplate or None")
        return answer

    def weight_map(self, config: ModelConfig, layout: Layout) -> WeightMap | None:
        """Return our names and the foreign ones; ``None`` where the family has no map for ``layout``."""
        answer = self._call("llm_run_weight_map", config=config, layout=layout)
        if answer is None and layout != "hf":
            return None
        if not isinstance(answer, WeightMap):
            raise self._wrong(f"llm_run_weight_map for '{layout}'", answer, "WeightMap")
        return answer

    def tokenizer(self, config: ModelConfig, directory: Path) -> Tokenizer:
        """Load the tokenizer from the family's original files."""
        answer = self._call("llm_run_tokenizer", config=config, directory=directory)
        if not all(hasattr(answer, name) for name in ("encode", "decode", "vocab_size")):
            raise self._wrong("llm_run_tokenizer", answer, "a Tokenizer")
        tokenizer: Tokenizer = answer
        return tokenizer

    def _tuple_of(self, kind: type, hook: str, config: ModelConfig) -> tuple[Any, ...] | None:
        if not self.has_hook(hook):
            return None
        answer = self._call(hook, config=config)
        if not (isinstance(answer, tuple) and all(isinstance(item, kind) for item in answer)):
            raise self._wrong(hook, answer, f"a tuple of {kind.__name__}")
        return answer

    def _call(self, hook: str, **arguments: Any) -> Any:
        try:
            return getattr(self.hooks, hook)(**arguments)
        except LlmRunError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self.source} fails in {hook}: {one_line(error)}") from error

    def _wrong(self, what: str, answer: Any, wanted: str) -> PluginError:
        return PluginError(f"{self.source} returns {type(answer).__name__} from {what}, not {wanted}.")
