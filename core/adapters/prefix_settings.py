"""What a tuned prefix is, as the options or the files of PEFT and PaddleNLP say it. Imports no Paddle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, Problem, RefusedError

if TYPE_CHECKING:
    from ..config.adapters import AdapterOptions
    from ..registry.facts import ModelConfig

PEFT_CONFIG, PADDLENLP_CONFIG = "adapter_config.json", "prefix_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSettings:
    """Length and shape of a prefix, and where the tokens after it stand."""

    num_tokens: int
    projection_size: int | None = None
    """Width of the hidden layer that makes the prefix in training; ``None``: it is trained as it is."""
    moves_positions: bool = True
    """Tokens are numbered on from the prefix, as in PEFT; PaddleNLP's begin at 0. Where positions say what a prompt
    is (prefix language models), they never move."""

    def num_positions(self, config: ModelConfig) -> int:
        """Return how many of the model's positions the prefix takes."""
        return self.num_tokens if self.moves_positions and not config.prefix_lm else 0

    @classmethod
    def from_options(cls, options: AdapterOptions, config: ModelConfig) -> PrefixSettings:
        """Read the options; the hidden layer is as wide as the model where nobody says otherwise."""
        size = options.prefix_projection_hidden_size or config.hidden_size
        return cls(num_tokens=options.num_prefix_tokens, projection_size=size if options.prefix_projection else None)


def check_prefix(options: AdapterOptions) -> list[Problem]:
    """Return what is wrong with the options of a new prefix."""
    problems = []
    if options.num_prefix_tokens < 1:
        problems.append(Problem("--num_prefix_tokens", str(options.num_prefix_tokens), "must be 1 or more"))
    size = options.prefix_projection_hidden_size
    if size is not None and size < 1:
        problems.append(Problem("--prefix_projection_hidden_size", str(size), "must be 1 or more"))
    elif size is not None and not options.prefix_projection:
        reason = "has no effect without prefix_projection"
        problems.append(Problem("--prefix_projection_hidden_size", str(size), reason, "Add --prefix_projection."))
    return problems


def read_prefix_settings(directory: Path, config: ModelConfig) -> PrefixSettings:
    """Read the configuration of a prefix, in PEFT's or PaddleNLP's spelling, and hold it against the model.

    Raises:
        DataError: there is none, or it is malformed.
        RefusedError: it is of another kind or was made for another model.
    """
    if not directory.is_dir():
        reason, remedy = "is no folder", "Name the folder of a prefix, as --task prefix_tuning writes it."
        raise RefusedError(Problem("--prefix_path", str(directory), reason, remedy))
    for name, names in ((PEFT_CONFIG, _PEFT_NAMES), (PADDLENLP_CONFIG, _PADDLENLP_NAMES)):
        path = directory / name
        if path.is_file():
            fields = _read_object(path)
            _check_kind(path, fields)
            _check_model(path, {ours: fields.get(theirs) for ours, theirs in names.items()}, config)
            num_tokens = fields.get(names["num_tokens"])
            if type(num_tokens) is not int or num_tokens < 1:
                raise DataError(f"{path}: {names['num_tokens']}: {num_tokens} is no number of tokens.")
            return PrefixSettings(num_tokens=num_tokens, moves_positions=name == PEFT_CONFIG)
    looked = f"Looked for {PEFT_CONFIG} (PEFT) and {PADDLENLP_CONFIG} (PaddleNLP)."
    raise DataError(f"{directory}: holds no prefix. {looked}")


def peft_fields(settings: PrefixSettings, config: ModelConfig, base: str) -> dict[str, Any]:
    """Return ``adapter_config.json``; what a projection made is stored, and the projection is not.

    Args:
        settings: of the prefix.
        config: of the model.
        base: name or path of the model that it was trained on.
    """
    return {
        "peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "num_virtual_tokens": settings.num_tokens, "num_layers": config.num_layers,
        "num_attention_heads": config.num_kv_heads, "token_dim": config.num_kv_heads * config.head_dim,
        "num_transformer_submodules": 1, "prefix_projection": False, "encoder_hidden_size": None,
        "inference_mode": True,
    }  # fmt: skip


_PEFT_NAMES = {"num_tokens": "num_virtual_tokens", "num_layers": "num_layers", "num_kv_heads": "num_attention_heads"}
_PADDLENLP_NAMES = {"num_tokens": "num_prefix_tokens", "num_layers": "num_hidden_layers"}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: is not readable JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise DataError(f"{path}: is not a JSON object.")
    return fields


def _check_kind(path: Path, fields: Mapping[str, Any]) -> None:
    kind = fields.get("peft_type", "PREFIX_TUNING")
    if kind != "PREFIX_TUNING":
        raise RefusedError(Problem(f"{path}: peft_type", f"'{kind}'", "is no prefix", "LoRA goes with --lora_path."))
    ranks = fields.get("tensor_parallel_degree")
    if type(ranks) is int and ranks > 1:
        reason = "cuts the heads of each rank out of another layout"
        remedy = "Save the prefix from one process with PaddleNLP first."
        raise RefusedError(Problem(f"{path}: tensor_parallel_degree", str(ranks), reason, remedy))


def _check_model(path: Path, said: Mapping[str, Any], config: ModelConfig) -> None:
    wrong = [
        Problem(f"{path}: {name}", str(said[name]), f"does not fit the model, which has {expected}")
        for name, expected in (("num_layers", config.num_layers), ("num_kv_heads", config.num_kv_heads))
        if said.get(name) not in (None, expected)
    ]
    if wrong:
        raise RefusedError(*wrong)
