"""What a family states in ``llm_run_capabilities``: the tests that prove it, and the reasons where nothing can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import Support

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
TOGETHER = "tests/core/parallel/data/test_every_family.py"
"""Tests of llm-run that run for every installed family."""
NEEDS_GPU = "needs a GPU: the CPU build of Paddle computes in float32 only"


def proven_by_every_family(name: str, variant: str = "tiny") -> dict[str, str]:
    """Return what the tests of every family prove of one: the test by feature.

    A family adds what tests of its own prove, and leaves out what it cannot do.

    Args:
        name: of the family.
        variant: the size that the tests run, one whose name begins with ``tiny``.
    """
    tiny = f"[{name}-{variant}]"
    return {
        "data": f"{CHATS}::test_text_becomes_tokens_and_text_again[{name}]",
        "pretrain": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
        "sft": f"{RUNS}::test_packed_rows_equal_single_rows{tiny}",
        "generate": f"{RUNS}::test_cache_equals_no_cache{tiny}",
        "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[{name}]",
        "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit{tiny}",
        "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles{tiny}",
        "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens{tiny}",
        "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step{tiny}",
        "float32": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
        "data_parallel": f"{TOGETHER}::test_data_parallel_ranks_train_as_one_process[{name}]",
        "sharding_stage1": f"{TOGETHER}::test_ranks_that_share_optimizer_state_train_as_one_process[{name}]",
        "sharding_stage2": f"{TOGETHER}::test_ranks_that_share_gradients_train_as_one_process[{name}]",
        "sharding_stage3": f"{TOGETHER}::test_ranks_that_share_parameters_train_as_one_process[{name}]",
    }


def declare(proofs: Mapping[str, str], impossible: Mapping[str, str] | None = None) -> dict[str, Support]:
    """Return the answer to ``llm_run_capabilities``; the 16-bit precisions are untested.

    Args:
        proofs: by feature, the test that proves it.
        impossible: by feature, what stands in the way; it counts where there is a proof as well.
    """
    proven = {feature: Support("yes", proof=proof) for feature, proof in proofs.items()}
    untested = {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
    return proven | untested | {feature: Support("no", reason) for feature, reason in (impossible or {}).items()}
