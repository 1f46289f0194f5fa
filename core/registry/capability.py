"""What works: the matrix of every family, variant and feature, and the check of one request against it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..config.option import DECODING, QUANTIZING, SHARING, TRAINING
from ..errors import PluginError, Problem
from ..parallel.degrees import Shape, check_plan, fill_plan
from ..parallel.limits import check_limits, check_quantizing, check_sharing
from ..quant.settings import asked_quantization
from .facts import ModelConfig, Support
from .features import BY_NAME, FEATURES, Feature

if TYPE_CHECKING:
    from ..launch.world import World
    from ..parallel.plan import ParallelPlan
    from ..run import RunConfig
    from .family import Family

DEGREES = {
    "--tensor_parallel_degree": "1",
    "--pipeline_parallel_degree": "1",
    "--sep_parallel_degree": "1",
    "--nproc_per_node": "1",
    "--nnodes": "1",
    "--devices": "one of them",
    "PADDLE_TRAINERS_NUM": "one process",
    "SLURM_STEP_NUM_TASKS": "one task",
}
INSTEAD = {
    "--sharding": "no sharding",
    "--sequence_parallel": "false",
    "--bf16": "false, which computes in float32",
    "--fp16": "false, which computes in float32",
    "--decode_strategy": "sampling or greedy_search",
    "--quant_type": "another one, or leave it out",
    "--cachekv_int8": "false",
}
"""What to use where an option asks for a feature that the variant lacks; of degrees, the neutral one."""
Row = dict[str, Support]
"""Support by feature name, for one variant."""


def row(family: Family, config: ModelConfig) -> Row:
    """Return what one variant supports, for every feature, each with a reason or a proof.

    Raises:
        PluginError: the family declares a feature that does not exist, or gives no reason or proof.
    """
    declared = family.capabilities(config)
    wrong = [f"'{name}' is not a feature" for name in declared if name not in BY_NAME]
    for name, support in declared.items():
        if support.support not in ("yes", "no", "untested"):
            wrong.append(f"'{name}': {support.support!r} is not yes, no or untested")
        elif support.support == "yes" and not support.proof:
            wrong.append(f"'{name}' is a yes without a proof")
        elif support.support != "yes" and not support.reason:
            wrong.append(f"'{name}' is a {support.support} without a reason")
    if wrong:
        raise PluginError(f"{family.source} breaks the contract of llm_run_capabilities: {'; '.join(wrong)}.")
    return {feature.name: _cell(family, feature, declared.get(feature.name)) for feature in FEATURES}


def matrix(families: Iterable[Family]) -> dict[str, dict[str, Row]]:
    """Return the rows of all variants of all families, by family and variant name."""
    return {
        family.card.name: {variant: row(family, config) for variant, config in family.card.sizes.items()}
        for family in families
    }


def check(family: Family, model: ModelConfig, config: RunConfig, world: World) -> list[Problem]:
    """Return everything in a request that the variant does not support, each with the nearest plan that works.

    ``untested`` is not refused: it is what a person with a GPU may try.
    """
    supports = row(family, model)
    plan = fill_plan(config.launch, world.size)
    problems = [
        _refusal(name, key, value, supports[name])
        for name, key, value in _asked(config, plan, world)
        if _is_no(supports[name])
    ]
    if {problem.key for problem in problems} & DEGREES.keys():
        return problems
    if world.size > 1 and config.task not in SHARING:
        key, value = world.asked_by
        reason = f"is not for --task {config.task}, which runs in one process"
        return [*problems, Problem(key, value, reason, f"Use {DEGREES[key]}.")]
    if config.task not in SHARING:
        return problems
    if config.task in QUANTIZING:
        return [*problems, *check_quantizing(plan, config, world)]
    limits = check_limits(plan, config) if config.task in TRAINING else check_sharing(plan, config, world)
    return [*problems, *limits, *check_plan(plan, world.size, world.asked_by, Shape.of(model, config))]


def _cell(family: Family, feature: Feature, declared: Support | None) -> Support:
    if feature.hook and not family.has_hook(feature.hook):
        return Support("no", f"the plugin lacks the hook {feature.hook}")
    return declared or Support("no", "the family does not declare it")


def _is_no(support: Support) -> bool:
    return support.support == "no"


def _refusal(feature: str, key: str, value: str, support: Support) -> Problem:
    if key == "--task":
        return Problem(key, value, f"is not supported: {support.reason}", "See llm-run matrix.")
    reason = f"asks for {feature}, which is not supported: {support.reason}"
    return Problem(key, value, reason, f"Use {(DEGREES | INSTEAD)[key]}.")


def _sharing_feature(task: str) -> str:
    """Return what it takes to share matrices between ranks."""
    if task in QUANTIZING:
        return "tensor_parallel_quantizing"
    return "tensor_parallel" if task in TRAINING else "tensor_parallel_serving"


def _asked(config: RunConfig, plan: ParallelPlan, world: World) -> list[tuple[str, str, str]]:
    """Return the features that a request needs, with the option and value that ask for each."""
    launch, training = config.launch, config.training
    asked = [(config.task, "--task", f"'{config.task}'")]
    for feature, key, degree in (
        (_sharing_feature(config.task), "--tensor_parallel_degree", plan.mp),
        ("pipeline_parallel", "--pipeline_parallel_degree", plan.pp),
        ("sep_parallel", "--sep_parallel_degree", plan.sep),
    ):
        if degree > 1:
            asked.append((feature, key, str(degree)))
    if plan.dp > 1 and config.task in TRAINING:
        asked.append(("data_parallel", *world.asked_by))
    for feature, key, is_asked in (
        ("sequence_parallel", "--sequence_parallel", plan.sequence_parallel),
        ("bfloat16", "--bf16", training.bf16),
        ("float16", "--fp16", training.fp16),
    ):
        if is_asked:
            asked.append((feature, key, "true"))
    if config.task == "generate" and config.decoding.decode_strategy == "beam_search":
        asked.append(("beam_search", "--decode_strategy", "beam_search"))
    if config.task in (*DECODING, "serve") and config.decoding.cachekv_int8:
        asked.append(("cachekv_int8", "--cachekv_int8", "true"))
    quantization = asked_quantization(config)
    if quantization:
        asked.append((quantization, "--quant_type", str(config.quant.quant_type)))
    if plan.sharding_stage:
        asked.append((f"sharding_stage{plan.sharding_stage}", "--sharding", launch.sharding))
    return asked
