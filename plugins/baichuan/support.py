"""What a baichuan supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.hookspecs import hookimpl
from llm_run.core.registry.proofs import declare, proven_by_every_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_run.core.registry.facts import Support

    from .config import BaichuanConfig

OWN = "tests/plugins/baichuan"


@hookimpl
def llm_run_capabilities(config: BaichuanConfig) -> Mapping[str, Support]:
    """Return what a baichuan can do, with the proofs of its kind of positions."""
    kind = "7b" if config.rotary else "13b"
    proofs = proven_by_every_family("baichuan", "tiny" if config.rotary else "tiny-13b") | {
        "hf": f"{OWN}/test_model.py::test_{kind}_equals_a_llama_of_transformers",
        "paddlenlp": f"{OWN}/test_weights.py::test_paddlenlp_file_gives_its_logits[{kind}]",
        "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of[{kind}]",
    }
    return declare(proofs)
