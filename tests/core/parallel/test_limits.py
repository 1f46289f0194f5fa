"""What tasks cannot do under a plan."""

from __future__ import annotations

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.parallel.limits import check_limits
from llm_run.core.parallel.plan import ParallelPlan


@pytest.mark.parametrize(
    ("words", "plan", "said"),
    [
        ("--task sft", ParallelPlan(pp=2, mp=2), []),
        ("--task lora", ParallelPlan(mp=2), []),
        (
            "--task lora",
            ParallelPlan(pp=2),
            ["--pipeline_parallel_degree: 2 is for --task pretrain and sft, not for lora. "
             "Use 1, or --tensor_parallel_degree."],
        ),
        (
            "--task sft --eval_with_do_generation",
            ParallelPlan(mp=2),
            ["--eval_with_do_generation: true needs the whole model on every rank, and each has a part. "
             "Leave it out, or use --tensor_parallel_degree 1 and --pipeline_parallel_degree 1."],
        ),
        ("--task sft --eval_with_do_generation", ParallelPlan(dp=2), []),
    ],
)  # fmt: skip
def test_what_a_task_has_no_way_to_do_is_named(words: str, plan: ParallelPlan, said: list[str]) -> None:
    config, _ = resolve(parse(words.split()))
    assert [str(problem) for problem in check_limits(plan, config)] == said
