"""What a gpt3 supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import GptConfig

OWN = "tests/plugins/gpt3"
PROOFS = proven_by_every_family("gpt3") | {
    "generate": f"{OWN}/test_model.py::test_generating_from_padded_prompts_equals_transformers",
    "chat": f"{OWN}/test_tokenizer.py::test_a_given_chat_format_is_learnt_as_it_is_served",
    "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
    "paddlenlp": f"{OWN}/test_weights.py::test_logits_equal_those_of_paddlenlp",
    "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
}


@hookimpl
def llm_run_capabilities(config: GptConfig) -> Mapping[str, Support]:
    """Return what every gpt3 can do. A chat needs a ``--chat_template``: no published GPT brings one."""
    return declare(PROOFS)
