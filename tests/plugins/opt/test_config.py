"""Reading the config.json of an OPT: two spellings, what is refused, and the table of sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_run.core.convert.load import build_empty
from llm_run.core.errors import RefusedError
from llm_run.core.registry.manager import find_family, load_family
from llm_run.plugins.opt.config import SIZES, OptConfig

SHAPE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 96,
    "max_position_embeddings": 256,
}
PARAMETERS = {
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "opt-1.3b": 1_315_758_080,
    "opt-6.7b": 6_658_473_984,
}
"""As huggingface.co counts them in the published weights."""


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_a_published_size_has_the_published_number_of_parameters(size: str, count: int) -> None:
    model = build_empty(load_family("opt"), SIZES[size])
    assert sum(math.prod(parameter.shape) for parameter in model.parameters()) == count


def test_both_spellings_are_one_config() -> None:
    paddlenlp = {
        "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 256, "word_embed_proj_dim": 32, "hidden_act": "relu",
        "normalize_before": False, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3,
    }  # fmt: skip
    changes = {"word_embed_proj_dim": 32, "do_layer_norm_before": False, "dropout": 0.2, "attention_dropout": 0.3}
    assert OptConfig.from_fields(paddlenlp) == OptConfig.from_fields(SHAPE | changes)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"activation_function": "gelu"}, r"activation_function: 'gelu' is not supported here\. An OPT's"),
    "bias": ({"enable_bias": False}, r"enable_bias: False is not supported here\. An OPT's linear layers have biases"),
    "norm": (
        {"layer_norm_elementwise_affine": False},
        r"layer_norm_elementwise_affine: False is not supported here\. An OPT's norms have scale and offset",
    ),
    "last norm": ({"_remove_final_layer_norm": True}, r"_remove_final_layer_norm: True is not supported here\."),
    "left out": ({"layerdrop": 0.1}, r"layerdrop: 0\.1 is not supported here\. Blocks are not left out in training"),
    "heads": ({"num_attention_heads": 5}, r"num_attention_heads: 5 does not divide hidden_size \(64\)"),
    "order": ({"do_layer_norm_before": "no"}, r"do_layer_norm_before: 'no' is neither true nor false"),
}


@pytest.mark.parametrize(("changes", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_computed_wrongly_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError, match=rf"^config\.json: {text}"):
        OptConfig.from_fields(SHAPE | changes)


@pytest.mark.parametrize("fields", [{"architectures": ["OPTForCausalLM"]}, {"model_type": "opt"}])
def test_an_opt_is_found_by_its_config(fields: dict[str, Any]) -> None:
    assert find_family(fields).card.name == "opt"
