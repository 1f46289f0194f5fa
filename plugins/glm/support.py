"""What a glm supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import GlmConfig

OWN = "tests/plugins/glm"
PROOFS = proven_by_every_family("glm") | {
    "hf": f"{OWN}/test_weights.py::test_hugging_face_directory_comes_back_to_the_bit",
    "paddlenlp": f"{OWN}/test_model.py::test_logits_equal_those_of_paddlenlp",
}
IMPOSSIBLE = {
    "chat": "GLM fills blanks and has no chat format: give it a prompt with a blank by --task generate",
    "gguf": "llama.cpp has no GLM of this kind, so there is no such file",
}


@hookimpl
def llm_run_capabilities(config: GlmConfig) -> Mapping[str, Support]:
    """Return what every glm can do: nothing depends on the variant."""
    return declare(PROOFS, IMPOSSIBLE)
