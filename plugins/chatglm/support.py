"""What a chatglm supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import ChatGlmConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/chatglm"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"
PROOFS = {
    "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[chatglm]",
    "pretrain": f"{RUNS}::test_loss_falls_in_20_steps[chatglm-tiny]",
    "sft": f"{RUNS}::test_packed_rows_equal_single_rows[chatglm-tiny]",
    "generate": f"{RUNS}::test_cache_equals_no_cache[chatglm-tiny]",
    "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[chatglm]",
    "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit[chatglm-tiny]",
    "hf": f"{OWN}/test_weights.py::test_hugging_face_directory_comes_back_to_the_bit",
    "paddlenlp": f"{OWN}/test_model.py::test_logits_equal_those_of_paddlenlp",
    "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles[chatglm-tiny]",
    "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens[chatglm-tiny]",
    "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step[chatglm-tiny]",
    "float32": f"{RUNS}::test_loss_falls_in_20_steps[chatglm-tiny]",
}
IMPOSSIBLE = {
    "gguf": "llama.cpp has no ChatGLM of the first generation, so there is no such file",
}


@hookimpl
def llm_run_capabilities(config: ChatGlmConfig) -> Mapping[str, Support]:
    """Return what every chatglm can do: nothing depends on the variant."""
    proven = {feature: Support("yes", proof=proof) for feature, proof in PROOFS.items()}
    untested = {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
    return proven | untested | {feature: Support("no", reason) for feature, reason in IMPOSSIBLE.items()}
