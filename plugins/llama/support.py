"""What a llama supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import LlamaConfig

OWN = "tests/plugins/llama"
PROOFS = proven_by_every_family("llama") | {
    "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
    "paddlenlp": f"{OWN}/test_weights.py::test_paddlenlp_directory_gives_its_logits",
    "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
}


@hookimpl
def llm_run_capabilities(config: LlamaConfig) -> Mapping[str, Support]:
    """Return what every llama can do: nothing depends on the variant."""
    return declare(PROOFS)
