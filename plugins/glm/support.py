"""What a glm supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import GlmConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/glm"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"
PROOFS = {
    "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[glm]",
    "pretrain": f"{RUNS}::test_loss_falls_in_20_steps[glm-tiny]",
    "sft": f"{RUNS}::test_packed_rows_equal_single_rows[glm-tiny]",
    "generate": f"{RUNS}::test_cache_equals_no_cache[glm-tiny]",
    "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit[glm-tiny]",
    "hf": f"{OWN}/test_weights.py::test_hugging_face_directory_comes_back_to_the_bit",
    "paddlenlp": f"{OWN}/test_model.py::test_logits_equal_those_of_paddlenlp",
    "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles[glm-tiny]",
    "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens[glm-tiny]",
    "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step[glm-tiny]",
    "float32": f"{RUNS}::test_loss_falls_in_20_steps[glm-tiny]",
}
IMPOSSIBLE = {
    "chat": "GLM fills blanks and has no chat format: give it a prompt with a blank by --task generate",
    "gguf": "llama.cpp has no GLM of this kind, so there is no such file",
}


@hookimpl
def llm_run_capabilities(config: GlmConfig) -> Mapping[str, Support]:
    """Return what every glm can do: nothing depends on the variant."""
    proven = {feature: Support("yes", proof=proof) for feature, proof in PROOFS.items()}
    untested = {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
    return proven | untested | {feature: Support("no", reason) for feature, reason in IMPOSSIBLE.items()}
