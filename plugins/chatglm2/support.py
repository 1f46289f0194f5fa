"""What a chatglm2 supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/chatglm2"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"
PROOFS = {
    "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[chatglm2]",
    "pretrain": f"{RUNS}::test_loss_falls_in_20_steps[chatglm2-tiny]",
    "sft": f"{RUNS}::test_packed_rows_equal_single_rows[chatglm2-tiny]",
    "generate": f"{RUNS}::test_cache_equals_no_cache[chatglm2-tiny]",
    "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[chatglm2]",
    "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit[chatglm2-tiny]",
    "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_a_glm_of_transformers",
    "paddlenlp": f"{OWN}/test_weights.py::test_paddlenlp_file_gives_its_logits",
    "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
    "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles[chatglm2-tiny]",
    "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens[chatglm2-tiny]",
    "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step[chatglm2-tiny]",
    "float32": f"{RUNS}::test_loss_falls_in_20_steps[chatglm2-tiny]",
}


@hookimpl
def llm_run_capabilities() -> Mapping[str, Support]:
    """Return what every chatglm2 can do: nothing depends on the variant."""
    proven = {feature: Support("yes", proof=proof) for feature, proof in PROOFS.items()}
    return proven | {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
