"""What a opt supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import OptConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/opt"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"
IMPOSSIBLE = {"gguf": "llama.cpp has no OPT, so there is no such file"}


@hookimpl
def llm_run_capabilities(config: OptConfig) -> Mapping[str, Support]:
    """Return what an opt can do, with the proofs of its kind. A chat needs a ``--chat_template``: none brings one."""
    tiny = "opt-tiny" if config.is_pre_norm else "opt-tiny-350m"
    proofs = {
        "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[opt]",
        "pretrain": f"{RUNS}::test_loss_falls_in_20_steps[{tiny}]",
        "sft": f"{RUNS}::test_packed_rows_equal_single_rows[{tiny}]",
        "generate": f"{OWN}/test_model.py::test_generating_from_padded_prompts_equals_transformers",
        "chat": f"{OWN}/test_tokenizer.py::test_a_given_chat_format_is_learnt_as_it_is_served",
        "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit[{tiny}]",
        "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
        "paddlenlp": f"{OWN}/test_weights.py::test_logits_equal_those_of_paddlenlp",
        "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles[{tiny}]",
        "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens[{tiny}]",
        "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step[{tiny}]",
        "float32": f"{RUNS}::test_loss_falls_in_20_steps[{tiny}]",
    }
    proven = {feature: Support("yes", proof=proof) for feature, proof in proofs.items()}
    untested = {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
    return proven | untested | {feature: Support("no", reason) for feature, reason in IMPOSSIBLE.items()}
