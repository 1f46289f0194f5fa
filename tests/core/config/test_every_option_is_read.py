"""Options that do nothing are a defect: each one is looked at somewhere in the core, and by the tasks that it names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from llm_run.core.config.schema import GROUPS, options

FOLDERS = {
    "pretrain": ("trainer", "data"),
    "sft": ("trainer", "data"),
    "lora": ("trainer", "data", "adapters"),
    "merge_lora": ("adapters", "convert"),
    "merge_shards": ("convert",),
    "prefix_tuning": ("trainer", "data", "adapters"),
    "dpo": ("trainer", "data", "adapters"),
    "evaluate": ("evaluation", "engine", "trainer", "data", "quant"),
    "serve": ("serve", "engine", "adapters", "quant"),
    "generate": ("engine", "data", "quant"),
    "chat": ("engine", "data", "quant"),
    "data": ("data",),
    "convert": ("convert",),
    "export": ("engine", "convert", "quant", "adapters"),
    "ptq": ("quant",),
    "gptq": ("quant",),
}
"""Where the code of a task is, besides what all tasks share."""
SHARED = ("launch", "parallel", "registry", "")
"""What runs before any task: the check of the plan, and the start."""
HOLDERS = {"options", *GROUPS}
"""What a group of options is called where one of them is read."""


def accessed(path: Path) -> set[str]:
    """Return the options that a module reads, as ``options.name`` or ``run.config.data.name``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            holder = node.value
            name = (
                holder.attr if isinstance(holder, ast.Attribute) else holder.id if isinstance(holder, ast.Name) else ""
            )
            found |= {node.attr} if name in HOLDERS else set()
    return found


@pytest.fixture(scope="module")
def reads(project: Path) -> dict[str, set[str]]:
    """Attributes read, by folder of the core; "" is the core itself."""
    found: dict[str, set[str]] = {}
    for path in (project / "core").rglob("*.py"):
        folder = path.relative_to(project / "core").parts[0] if path.parent != project / "core" else ""
        found.setdefault(folder, set()).update(accessed(path))
    return found


@pytest.mark.parametrize("name", options())
def test_the_option_is_read_by_each_task_that_it_names(reads: dict[str, set[str]], name: str) -> None:
    tasks = options()[name].tasks
    for task in FOLDERS if tasks == ("*",) else tasks:
        # The task that computes nothing starts no Paddle: what only the launcher looks at is not read by it.
        folders = (*FOLDERS[task], *(folder for folder in SHARED if task != "data" or folder != "launch"))
        assert any(name in reads.get(folder, set()) for folder in folders), f"{name} is not read by {task}"


def test_groups_of_options_do_not_share_a_name() -> None:
    names = [name for group in GROUPS.values() for name in group.__dataclass_fields__]
    assert len(names) == len(set(names))
