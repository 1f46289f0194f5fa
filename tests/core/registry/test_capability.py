"""The matrix, and the check of a request against it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import PluginError
from llm_run.core.launch.world import find_world
from llm_run.core.registry import capability
from llm_run.core.registry.facts import ModelConfig, Support
from llm_run.core.registry.family import Family
from llm_run.core.registry.features import BY_NAME, FEATURES
from llm_run.core.registry.manager import installed, load_family

UNDECLARED = "which is not supported: the family does not declare it"
YES, UNTESTED = Support("yes", proof="tests/x.py::test_y"), Support("untested", "needs a GPU")


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Config:
        raise NotImplementedError

    def to_fields(self) -> dict[str, Any]:
        return {}


MODEL = Config(
    vocab_size=16, hidden_size=8, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=4, ffn_size=16, max_positions=32
)  # fmt: skip


@dataclass
class Stub:
    """A family as the check sees it."""

    declared: Mapping[str, Support]
    hooks: tuple[str, ...] = ("llm_run_sharding_map", "llm_run_pipeline_split")
    source: str = "plugin stub (stub 1.0)"

    def capabilities(self, config: ModelConfig) -> Mapping[str, Support]:
        return self.declared

    def has_hook(self, name: str) -> bool:
        return name in self.hooks


def row(stub: Stub) -> capability.Row:
    return capability.row(cast(Family, stub), MODEL)


def problems(stub: Stub, command: str) -> list[str]:
    config, _ = resolve(parse(f"--task sft {command}".split()))
    world = find_world(config.launch, {})
    return [str(problem) for problem in capability.check(cast(Family, stub), MODEL, config, world)]


def test_every_feature_has_an_answer_with_a_reason_or_a_proof() -> None:
    cells = row(Stub({"sft": YES, "bfloat16": UNTESTED}))
    assert set(cells) == set(BY_NAME)
    assert all(cell.proof if cell.support == "yes" else cell.reason for cell in cells.values())
    assert cells["sft"] == YES
    assert cells["bfloat16"] == UNTESTED
    assert cells["pretrain"] == Support("no", "the family does not declare it")


def test_a_missing_hook_is_a_no_with_that_reason() -> None:
    cells = row(Stub({"tensor_parallel": YES, "pipeline_parallel": YES}, hooks=("llm_run_pipeline_split",)))
    assert cells["tensor_parallel"] == Support("no", "the plugin lacks the hook llm_run_sharding_map")
    assert cells["pipeline_parallel"] == YES


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"sfft": YES}, "'sfft' is not a feature"),
        ({"sft": Support("yes")}, "'sft' is a yes without a proof"),
        ({"sft": Support("no")}, "'sft' is a no without a reason"),
        ({"sft": Support("untested")}, "'sft' is a untested without a reason"),
        ({"sft": Support(cast(Any, "maybe"))}, "'sft': 'maybe' is not yes, no or untested"),
    ],
)
def test_a_declaration_that_says_too_little_is_refused(declared: dict[str, Support], said: str) -> None:
    with pytest.raises(
        PluginError, match=re.escape(f"plugin stub (stub 1.0) breaks the contract of llm_run_capabilities: {said}")
    ):
        row(Stub(declared))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--bf16", []),
        (
            "--fp16",
            ["--fp16: true asks for float16, which is not supported: no half. Use false, which computes in float32."],
        ),
        (
            "--tensor_parallel_degree 2",
            [f"--tensor_parallel_degree: 2 asks for tensor_parallel, {UNDECLARED}. Use 1."],
        ),
        (
            "--nproc_per_node 2 --sharding stage2",
            [f"--sharding: stage2 asks for sharding_stage2, {UNDECLARED}. Use no sharding."],
        ),
        (
            "--nproc_per_node 4 --sharding stage1 --sharding_parallel_degree 2",
            [
                f"--nproc_per_node: 4 asks for data_parallel, {UNDECLARED}. Use 1.",
                f"--sharding: stage1 asks for sharding_stage1, {UNDECLARED}. Use no sharding.",
            ],
        ),
        ("--sharding stage2", []),
        (
            "--nnodes 2 --master host:1",
            [f"--nnodes: 2 asks for data_parallel, {UNDECLARED}. Use 1."],
        ),
        ("--devices 0,1", [f"--devices: 0,1 asks for data_parallel, {UNDECLARED}. Use one of them."]),
        ("--devices 1", []),
        (
            "--sequence_parallel --tensor_parallel_degree 2 --pipeline_parallel_degree 2 --sep_parallel_degree 2",
            [
                f"--tensor_parallel_degree: 2 asks for tensor_parallel, {UNDECLARED}. Use 1.",
                f"--pipeline_parallel_degree: 2 asks for pipeline_parallel, {UNDECLARED}. Use 1.",
                f"--sep_parallel_degree: 2 asks for sep_parallel, {UNDECLARED}. Use 1.",
                f"--sequence_parallel: true asks for sequence_parallel, {UNDECLARED}. Use false.",
            ],
        ),
    ],
)
def test_all_that_a_request_asks_for_and_does_not_get_is_named(command: str, said: list[str]) -> None:
    stub = Stub({"sft": YES, "bfloat16": UNTESTED, "float16": Support("no", "no half")})
    assert problems(stub, command) == said


def test_a_task_that_the_family_lacks_is_refused_with_its_reason() -> None:
    stub = Stub({"sft": Support("no", "it has no words")})
    assert problems(stub, "") == ["--task: 'sft' is not supported: it has no words. See llm-run matrix."]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--tensor_parallel_degree 2 --nproc_per_node 4", []),
        (
            "--tensor_parallel_degree 4 --nproc_per_node 4",
            ["--tensor_parallel_degree: 4 does not divide the 6 attention heads of the model. "
             "Use --tensor_parallel_degree 2."],
        ),
        (
            "--pipeline_parallel_degree 3 --nproc_per_node 3",
            ["--pipeline_parallel_degree: 3 is more than the 2 layers of the model. Use --pipeline_parallel_degree 1."],
        ),
        (
            "--tensor_parallel_degree 2 --pipeline_parallel_degree 2 --nproc_per_node 2",
            [
                "--nproc_per_node: 2 makes 2 processes in all, which is no multiple of 4, the product of the degrees. "
                "Start 4 processes, or use --pipeline_parallel_degree 1."
            ],
        ),
    ],
)  # fmt: skip
def test_arithmetic_names_the_nearest_plan_that_works(command: str, said: list[str]) -> None:
    names = ("sft", "data_parallel", "tensor_parallel", "pipeline_parallel")
    assert problems(Stub(dict.fromkeys(names, YES)), command) == said


@pytest.mark.parametrize("task", ["generate", "serve"])
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--tensor_parallel_degree 2 --nproc_per_node 2", []),
        (
            "--nproc_per_node 2",
            ["--nproc_per_node: 2 makes 2 processes; --task {task} has work for those of --tensor_parallel_degree (1). "
             "Start 1, or use --tensor_parallel_degree 2."],
        ),
        (
            "--tensor_parallel_degree 4 --nproc_per_node 4",
            ["--tensor_parallel_degree: 4 does not divide the 6 attention heads of the model. "
             "Use --tensor_parallel_degree 2."],
        ),
        (
            "--tensor_parallel_degree 2",
            ["--nproc_per_node: 1 makes 1 processes in all, which is no multiple of 2, the product of the degrees. "
             "Start 2 processes, or use --tensor_parallel_degree 1."],
        ),
    ],
)  # fmt: skip
def test_answering_in_several_processes_is_sharing_matrices(task: str, command: str, said: list[str]) -> None:
    config, _ = resolve(parse(["--task", task, *command.split()]))
    stub = cast(Family, Stub(dict.fromkeys((task, "tensor_parallel_serving"), YES)))
    found = capability.check(stub, MODEL, config, find_world(config.launch, {}))
    assert [str(problem) for problem in found] == [line.format(task=task) for line in said]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--tensor_parallel_degree 3 --nproc_per_node 3", []),
        (
            "--nproc_per_node 2",
            [
                "--nproc_per_node: 2 makes 2 processes; --task gptq has work for those of --tensor_parallel_degree (1)."
                " Start 1, or use --tensor_parallel_degree 2."
            ],
        ),
        (
            "--tensor_parallel_degree 2",
            [
                "--nproc_per_node: 1 makes 1 process; --task gptq has work for those of --tensor_parallel_degree (2). "
                "Start 2, or use --tensor_parallel_degree 1."
            ],
        ),
    ],
)
def test_quantizing_in_several_processes_divides_no_number_of_the_model(command: str, said: list[str]) -> None:
    config, _ = resolve(parse(["--task", "gptq", *command.split()]))
    declared = dict.fromkeys(("gptq", "tensor_parallel_quantizing"), YES)
    stub = cast(Family, Stub(declared, ("llm_run_quantizable_layers",)))
    found = capability.check(stub, MODEL, config, find_world(config.launch, {}))
    assert [str(problem) for problem in found] == said


def test_a_family_that_cannot_share_its_matrices_serves_in_one_process() -> None:
    config, _ = resolve(parse("--task serve --tensor_parallel_degree 2 --nproc_per_node 2".split()))
    stub = cast(Family, Stub({"serve": YES, "tensor_parallel": YES}))
    found = capability.check(stub, MODEL, config, find_world(config.launch, {}))
    asked = f"--tensor_parallel_degree: 2 asks for tensor_parallel_serving, {UNDECLARED}. Use 1."
    assert [str(problem) for problem in found] == [asked]


def test_every_feature_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(FEATURES)


def proofs() -> list[str]:
    """Return the tests that installed families name."""
    families = [load_family(name) for name, source in installed().families.items() if source.distribution == "llm-run"]
    rows = [cells for variants in capability.matrix(families).values() for cells in variants.values()]
    return sorted({cell.proof for cells in rows for cell in cells.values() if cell.proof})


@pytest.mark.parametrize("proof", proofs())
def test_the_test_that_proves_a_yes_exists(project: Path, proof: str) -> None:
    path, _, name = proof.partition("::")
    tree = ast.parse((project / path).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.partition("[")[0] in defined


def test_a_variant_with_other_heads_is_checked_by_its_own_numbers() -> None:
    config, _ = resolve(parse("--task sft --tensor_parallel_degree 4 --nproc_per_node 4".split()))
    stub = cast(Family, Stub(dict.fromkeys(("sft", "data_parallel", "tensor_parallel"), YES)))
    model = replace(MODEL, num_heads=8)
    assert capability.check(stub, model, config, find_world(config.launch, {})) == []


def test_a_task_that_runs_in_one_process_is_refused_several(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = resolve(parse("--task chat --devices 0,1".split()))
    stub = cast(Family, Stub(dict.fromkeys(("chat", "data_parallel"), YES)))
    said = [str(problem) for problem in capability.check(stub, MODEL, config, find_world(config.launch, {}))]
    assert said == ["--devices: 0,1 is not for --task chat, which runs in one process. Use one of them."]
    joined = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ID": "0", "PADDLE_MASTER": "h:1"}
    config, _ = resolve(parse("--task chat".split()))
    said = [str(problem) for problem in capability.check(stub, MODEL, config, find_world(config.launch, joined))]
    assert said == ["PADDLE_TRAINERS_NUM: 2 is not for --task chat, which runs in one process. Use one process."]
