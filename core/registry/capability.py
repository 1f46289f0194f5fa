"""What works: the matrix of every family, variant and feature, and the check of one request against it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import PluginError, Problem
from .facts import ModelConfig, Support
from .features import BY_NAME, FEATURES, NOT_IN_THIS_VERSION, Feature

if TYPE_CHECKING:
    from ..run import RunConfig
    from .family import Family

LATER = "not in this version"
DEGREES = {
    "--tensor_parallel_degree": "1",
    "--pipeline_parallel_degree": "1",
    "--sep_parallel_degree": "1",
    "--nproc_per_node": "1",
    "--nnodes": "1",
    "--node_rank": "0",
    "--master": "one machine",
    "--devices": "one of them",
}
INSTEAD = {
    "--sharding": "no sharding",
    "--sequence_parallel": "false",
    "--bf16": "false, which computes in float32",
    "--fp16": "false, which computes in float32",
    "--decode_strategy": "sampling or greedy_search",
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


def check(family: Family, model: ModelConfig, config: RunConfig) -> list[Problem]:
    """Return everything in a request that the variant does not support, each with the nearest plan that works.

    ``untested`` is not refused: it is what a person with a GPU may try.
    """
    supports = row(family, model)
    problems = [
        _refusal(name, key, value, supports[name]) for name, key, value in _asked(config) if _is_no(supports[name])
    ]
    refused = {problem.key for problem in problems}
    if refused & DEGREES.keys():
        return problems
    return problems + _arithmetic(model, config)


def _cell(family: Family, feature: Feature, declared: Support | None) -> Support:
    if feature.name in NOT_IN_THIS_VERSION:
        return Support("no", LATER)
    if feature.hook and not family.has_hook(feature.hook):
        return Support("no", f"the plugin lacks the hook {feature.hook}")
    return declared or Support("no", "the family does not declare it")


def _is_no(support: Support) -> bool:
    return support.support == "no"


def _refusal(feature: str, key: str, value: str, support: Support) -> Problem:
    if key == "--task":
        reason = f"is {LATER}" if support.reason == LATER else f"is not supported: {support.reason}"
        return Problem(key, value, reason, "See llm-run matrix.")
    because = f"which is {LATER}" if support.reason == LATER else f"which is not supported: {support.reason}"
    return Problem(key, value, f"asks for {feature}, {because}", f"Use {(DEGREES | INSTEAD)[key]}.")


def _asked(config: RunConfig) -> list[tuple[str, str, str]]:
    """Return the features that a request needs, with the option and value that ask for each."""
    launch, training = config.launch, config.training
    asked = [(config.task, "--task", f"'{config.task}'")]
    for feature, key, degree in (
        ("tensor_parallel", "--tensor_parallel_degree", launch.tensor_parallel_degree),
        ("pipeline_parallel", "--pipeline_parallel_degree", launch.pipeline_parallel_degree),
        ("sep_parallel", "--sep_parallel_degree", launch.sep_parallel_degree),
        ("data_parallel", "--nproc_per_node", launch.nproc_per_node),
        ("data_parallel", "--nnodes", launch.nnodes),
        ("data_parallel", "--node_rank", launch.node_rank + 1),
    ):
        if degree > 1:
            asked.append((feature, key, str(degree)))
    if launch.master is not None:
        asked.append(("data_parallel", "--master", launch.master))
    if launch.devices is not None and len(launch.devices.split(",")) > 1:
        asked.append(("data_parallel", "--devices", launch.devices))
    for feature, key, is_asked in (
        ("sequence_parallel", "--sequence_parallel", launch.sequence_parallel and launch.tensor_parallel_degree > 1),
        ("bfloat16", "--bf16", training.bf16),
        ("float16", "--fp16", training.fp16),
    ):
        if is_asked:
            asked.append((feature, key, "true"))
    if config.task == "generate" and config.decoding.decode_strategy == "beam_search":
        asked.append(("beam_search", "--decode_strategy", "beam_search"))
    if launch.sharding and _world(config) > 1:
        asked.append((f"sharding_{launch.sharding.split()[0]}", "--sharding", launch.sharding))
    return asked


def _world(config: RunConfig) -> int:
    return config.launch.nproc_per_node * config.launch.nnodes


def _arithmetic(model: ModelConfig, config: RunConfig) -> list[Problem]:
    """Return what follows from numbers alone: how heads, layers and ranks divide."""
    launch, problems = config.launch, []
    tensor, stages = max(launch.tensor_parallel_degree, 1), max(launch.pipeline_parallel_degree, 1)
    if model.num_heads % tensor:
        nearest = max(degree for degree in range(1, tensor) if model.num_heads % degree == 0)
        reason = f"does not divide the {model.num_heads} attention heads of the model"
        problems.append(Problem("--tensor_parallel_degree", str(tensor), reason, f"Use {nearest}."))
    if stages > model.num_layers:
        reason = f"is more than the {model.num_layers} layers of the model"
        problems.append(Problem("--pipeline_parallel_degree", str(stages), reason, f"Use at most {model.num_layers}."))
    ranks = tensor * stages * max(launch.sep_parallel_degree, 1) * max(launch.sharding_parallel_degree, 1)
    if _world(config) % ranks:
        reason = f"is no multiple of {ranks}, the product of the parallel degrees"
        remedy = f"Start {ranks} processes, or lower a degree."
        problems.append(Problem("--nproc_per_node", f"{_world(config)} processes in all", reason, remedy))
    return problems
