"""What tasks cannot do under a plan."""

from __future__ import annotations

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.launch.world import find_world
from llm_run.core.parallel.limits import check_limits, check_sharing
from llm_run.core.parallel.plan import ParallelPlan


@pytest.mark.parametrize(
    ("words", "plan", "said"),
    [
        ("--task sft", ParallelPlan(pp=2, mp=2), []),
        ("--task lora", ParallelPlan(mp=2, pp=2), []),
        ("--task dpo", ParallelPlan(pp=2), []),
        ("--task lora --weight_quantize_algo nf4", ParallelPlan(pp=2, dp=2), []),
        (
            "--task lora --weight_quantize_algo nf4",
            ParallelPlan(mp=2),
            ["--weight_quantize_algo: nf4 rounds whole matrices, and each of the 2 ranks of --tensor_parallel_degree "
             "has a part. Leave it out, or use --tensor_parallel_degree 1."],
        ),
        (
            "--task sft --eval_with_do_generation",
            ParallelPlan(mp=2),
            ["--eval_with_do_generation: true needs the whole model on every rank, and each has a part. "
             "Leave it out, or use --tensor_parallel_degree 1 and --pipeline_parallel_degree 1."],
        ),
        ("--task sft --eval_with_do_generation", ParallelPlan(dp=2, sep=2), []),
        (
            "--task sft --eval_with_do_generation",
            ParallelPlan(sharding=2, sharding_stage=3),
            ["--eval_with_do_generation: true needs the whole model on every rank, and sharding stage3 gathers it for "
             "steps that all make alike. Leave it out, or use --sharding stage2."],
        ),
    ],
)  # fmt: skip
def test_what_a_task_has_no_way_to_do_is_named(words: str, plan: ParallelPlan, said: list[str]) -> None:
    config, _ = resolve(parse(words.split()))
    assert [str(problem) for problem in check_limits(plan, config)] == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", []),
        ("--cachekv_int8", []),
        (
            "--quant_type weight_only_int8",
            ["--quant_type: weight_only_int8 rounds whole matrices, and each of the 2 ranks of "
             "--tensor_parallel_degree has a part. Leave it out, or use --tensor_parallel_degree 1."],
        ),
        (
            "--activations_int8",
            ["--activations_int8: true is for integer weights, and the ranks of --tensor_parallel_degree compute with "
             "floats. Leave it out, or use --tensor_parallel_degree 1."],
        ),
        (
            "--mode static",
            ["--mode: static runs a graph that is not split. Use dynamic, or --tensor_parallel_degree 1."],
        ),
    ],
)  # fmt: skip
def test_ranks_that_share_matrices_answer_with_what_can_be_split(words: str, said: list[str]) -> None:
    config, _ = resolve(parse(["--task", "generate", *words.split()]))
    world = find_world(config.launch, {})
    assert [str(problem) for problem in check_sharing(ParallelPlan(mp=2), config, world)] == said
