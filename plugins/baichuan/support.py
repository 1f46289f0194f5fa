"""What a baichuan supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import BaichuanConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/baichuan"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"


@hookimpl
def llm_run_capabilities(config: BaichuanConfig) -> Mapping[str, Support]:
    """Return what a baichuan can do, with the proofs of its kind of positions."""
    kind = "7b" if config.rotary else "13b"
    tiny = "[baichuan-tiny]" if config.rotary else "[baichuan-tiny-13b]"
    proofs = {
        "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[baichuan]",
        "pretrain": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
        "sft": f"{RUNS}::test_packed_rows_equal_single_rows{tiny}",
        "generate": f"{RUNS}::test_cache_equals_no_cache{tiny}",
        "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[baichuan]",
        "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit{tiny}",
        "hf": f"{OWN}/test_model.py::test_{kind}_equals_a_llama_of_transformers",
        "paddlenlp": f"{OWN}/test_weights.py::test_paddlenlp_file_gives_its_logits[{kind}]",
        "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of[{kind}]",
        "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles{tiny}",
        "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens{tiny}",
        "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step{tiny}",
        "float32": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
    }
    supports = {feature: Support("yes", proof=proof) for feature, proof in proofs.items()}
    return supports | {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
