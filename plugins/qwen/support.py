"""What a qwen supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import QwenConfig

OWN = "tests/plugins/qwen"
FIRST = {
    "hf": f"{OWN}/test_weights.py::test_first_generation_loads_under_its_hugging_face_names",
    "gguf": f"{OWN}/test_weights.py::test_first_generation_gguf_file_gives_the_golden_logits",
    "paddlenlp": f"{OWN}/test_model.py::test_first_generation_equals_paddlenlp",
}
THIRD = {
    "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
    "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
}
SECOND = THIRD | {"paddlenlp": f"{OWN}/test_weights.py::test_paddlenlp_directory_gives_its_logits"}
IMPOSSIBLE_IN_THIRD = {"paddlenlp": "PaddleNLP 3.0.0b4 has no Qwen3, so there are no such files"}


@hookimpl
def llm_run_capabilities(config: QwenConfig) -> Mapping[str, Support]:
    """Return what a qwen can do, with the proofs of its generation."""
    own = {1: FIRST, 2: SECOND, 3: THIRD}[config.generation]
    proofs = proven_by_every_family("qwen", f"tiny-v{config.generation}") | own
    return declare(proofs, IMPOSSIBLE_IN_THIRD if config.generation == 3 else None)
