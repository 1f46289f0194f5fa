"""What a opt supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import OptConfig

OWN = "tests/plugins/opt"
IMPOSSIBLE = {"gguf": "llama.cpp has no OPT, so there is no such file"}


@hookimpl
def llm_run_capabilities(config: OptConfig) -> Mapping[str, Support]:
    """Return what an opt can do, with the proofs of its kind. A chat needs a ``--chat_template``: none brings one."""
    proofs = proven_by_every_family("opt", "tiny" if config.is_pre_norm else "tiny-350m") | {
        "generate": f"{OWN}/test_model.py::test_generating_from_padded_prompts_equals_transformers",
        "chat": f"{OWN}/test_tokenizer.py::test_a_given_chat_format_is_learnt_as_it_is_served",
        "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
        "paddlenlp": f"{OWN}/test_weights.py::test_logits_equal_those_of_paddlenlp",
    }
    return declare(proofs, IMPOSSIBLE)
