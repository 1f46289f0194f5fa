"""What a family states in ``llm_run_capabilities``: the tests that prove it, and the reasons where nothing can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import Support

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS, CHATS = "tests/plugins/test_every_family.py", "tests/plugins/test_every_family_chat.py"
MEASURES = "tests/plugins/test_every_family_evaluation.py"
PREFIXES = "tests/plugins/test_every_family_prefix.py"
PREFERS = "tests/plugins/test_every_family_preference.py"
ADAPTS = "tests/plugins/test_every_family_adapters.py"
ANSWERS = "tests/plugins/test_every_family_engine.py"
EXPORTS = "tests/plugins/test_every_family_export.py"
QUANTIZED = "tests/plugins/test_every_family_quantized.py"
TOGETHER = "tests/core/parallel/data/test_every_family.py"
MERGES = "tests/core/parallel/data/test_merge.py"
SHARES = "tests/core/parallel/engine/test_answers.py"
CALIBRATES = "tests/core/parallel/quant/test_every_family.py"
"""Tests of llm-run that run for every installed family."""
GPU_KERNELS = "written without a GPU: the calls were tested with functions that compute what Paddle documents"
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
        "prefix_tuning": f"{PREFIXES}::test_a_prefix_learns_and_the_model_stays_as_it_is{tiny}",
        "dpo": f"{PREFERS}::test_preference_loss_falls_in_10_steps{tiny}",
        "evaluate": f"{MEASURES}::test_likelihoods_do_not_depend_on_batch_and_padding{tiny}",
        "generate": f"{RUNS}::test_cache_equals_no_cache{tiny}",
        "chat": f"{CHATS}::test_training_and_serving_render_the_same_chat[{name}]",
        "lora": f"{ADAPTS}::test_a_lora_adapter_learns_and_the_model_stays_as_it_is{tiny}",
        "merge_lora": f"{ADAPTS}::test_a_saved_adapter_loads_and_merges_to_the_same_logits{tiny}",
        "merge_shards": f"{MERGES}::test_checkpoints_of_every_layout_become_the_model_again[{name}]",
        "serve": f"{ANSWERS}::test_a_server_answers_with_the_tokens_of_the_model[{name}]",
        "paged_cache": f"{ANSWERS}::test_answers_out_of_a_paged_cache_are_those_of_one_request_alone{tiny}",
        "export": f"{EXPORTS}::test_an_exported_graph_answers_with_the_tokens_of_the_model{tiny}",
        "convert": f"{RUNS}::test_saved_and_loaded_is_equal_to_the_bit{tiny}",
        "batched_decoding": f"{RUNS}::test_left_padded_batch_equals_singles{tiny}",
        "beam_search": f"{RUNS}::test_beam_search_finds_the_likeliest_pair_of_tokens{tiny}",
        "streaming": f"{RUNS}::test_streamed_tokens_are_those_of_recomputing_every_step{tiny}",
        "ptq": f"{QUANTIZED}::test_ptq_directory_gives_the_logits_of_the_quantized_model[{name}-{variant}-w8a8-all]",
        "gptq": f"{QUANTIZED}::test_gptq_directory_gives_the_logits_of_the_quantized_model{tiny}",
        "weight_only_int8": f"{QUANTIZED}::test_weights_are_rounded_when_a_model_is_loaded[{name}-{variant}-8]",
        "weight_only_int4": f"{QUANTIZED}::test_weights_are_rounded_when_a_model_is_loaded[{name}-{variant}-4]",
        "a8w8": f"{QUANTIZED}::test_ptq_directory_gives_the_logits_of_the_quantized_model[{name}-{variant}-w8a8]",
        "tensor_parallel_quantizing": f"{CALIBRATES}::test_ranks_quantize_as_one_process[{name}]",
        "cachekv_int8": f"{ANSWERS}::test_an_8_bit_cache_gives_one_answer_in_any_company{tiny}",
        "float32": f"{RUNS}::test_loss_falls_in_20_steps{tiny}",
        "data_parallel": f"{TOGETHER}::test_data_parallel_ranks_train_as_one_process[{name}]",
        "sharding_stage1": f"{TOGETHER}::test_ranks_that_share_optimizer_state_train_as_one_process[{name}]",
        "sharding_stage2": f"{TOGETHER}::test_ranks_that_share_gradients_train_as_one_process[{name}]",
        "sharding_stage3": f"{TOGETHER}::test_ranks_that_share_parameters_train_as_one_process[{name}]",
        "tensor_parallel_serving": f"{SHARES}::test_ranks_that_share_matrices_answer_as_one_process[{name}]",
        "tensor_parallel": f"{TOGETHER}::test_ranks_that_share_matrices_train_as_one_process[{name}]",
        "sequence_parallel": f"{TOGETHER}::test_ranks_that_share_matrices_and_rows_train_as_one_process[{name}]",
        "pipeline_parallel": f"{TOGETHER}::test_stages_train_as_one_process[{name}]",
        "sep_parallel": f"{TOGETHER}::test_ranks_that_share_rows_train_as_one_process[{name}]",
    }


def declare(proofs: Mapping[str, str], impossible: Mapping[str, str] | None = None) -> dict[str, Support]:
    """Return the answer to ``llm_run_capabilities``; what needs a GPU is untested.

    Args:
        proofs: by feature, the test that proves it.
        impossible: by feature, what stands in the way; it counts where there is a proof as well.
    """
    proven = {feature: Support("yes", proof=proof) for feature, proof in proofs.items()}
    untested = {feature: Support("untested", NEEDS_GPU) for feature in ("bfloat16", "float16")}
    untested["gpu_kernels"] = Support("untested", GPU_KERNELS)
    return proven | untested | {feature: Support("no", reason) for feature, reason in (impossible or {}).items()}
