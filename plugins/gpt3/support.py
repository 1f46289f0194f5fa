"""What a gpt3 supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import GptConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/gpt3"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"
PROOFS = {
    "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[gpt3]",
    "pretrain": f"{RUNS}::test_loss_falls_in_20_steps[gpt3-tiny]",
    "sft": f"{RUNS}::test_packed_rows_equal_single_rows[gpt3-tiny]",
    "generate": f"{OWN}/test_model.py::test_generating_from_padded_prompts_equals_transformers",
    "chat": f"{OWN}/test_tokenizer.py::test_a_given_chat_format_is_learnt_as_it_is_served",
    "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit[gpt3-tiny]",
    "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
    "paddlenlp": f"{OWN}/test_weights.py::test_logits_equal_those_of_paddlenlp",
    "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
    "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles[gpt3-tiny]",
    "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens[gpt3-tiny]",
    "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step[gpt3-tiny]",
    "float32": f"{RUNS}::test_loss_falls_in_20_steps[gpt3-tiny]",
}


@hookimpl
def llm_run_capabilities(config: GptConfig) -> Mapping[str, Support]:
    """Return what every gpt3 can do. A chat needs a ``--chat_template``: no published GPT brings one."""
    proven = {feature: Support("yes", proof=proof) for feature, proof in PROOFS.items()}
    return proven | {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
