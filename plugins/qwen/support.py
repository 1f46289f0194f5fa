"""What a qwen supports, and the tests that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.facts import Support
from llm_run.core.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import QwenConfig

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
OWN = "tests/plugins/qwen"
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"


@hookimpl
def llm_run_capabilities(config: QwenConfig) -> Mapping[str, Support]:
    """Return what a qwen can do, with the proofs of its generation."""
    tiny = f"[qwen-tiny-v{config.generation}]"
    proofs = {
        "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[qwen]",
        "pretrain": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
        "sft": f"{RUNS}::test_packed_rows_equal_single_rows{tiny}",
        "generate": f"{RUNS}::test_cache_equals_no_cache{tiny}",
        "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[qwen]",
        "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit{tiny}",
        "hf": f"{OWN}/test_model.py::test_logits_equal_those_of_transformers",
        "gguf": f"{OWN}/test_weights.py::test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of",
        "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles{tiny}",
        "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens{tiny}",
        "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step{tiny}",
        "float32": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
    }
    if config.generation == 1:
        proofs |= {
            "hf": f"{OWN}/test_weights.py::test_first_generation_loads_under_its_hugging_face_names",
            "gguf": f"{OWN}/test_weights.py::test_first_generation_gguf_file_gives_the_golden_logits",
            "paddlenlp": f"{OWN}/test_model.py::test_first_generation_equals_paddlenlp",
        }
    elif config.generation == 2:
        proofs["paddlenlp"] = f"{OWN}/test_weights.py::test_paddlenlp_directory_gives_its_logits"
    supports = {feature: Support("yes", proof=proof) for feature, proof in proofs.items()}
    if config.generation == 3:
        supports["paddlenlp"] = Support("no", "PaddleNLP 3.0.0b4 has no Qwen3, so there are no such files")
    return supports | {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
