"""Configurations by name, as ``llama/sft``: the task's recipe with the family's own lines in it. Imports no Paddle.

A plugin that is a package states its lines in ``configs/<task>.yaml``, in the form of the recipes.
"""

from __future__ import annotations

import importlib.util
from difflib import get_close_matches
from pathlib import Path

from ..errors import LlmRunError, Problem, RefusedError
from ..registry.capability import row
from ..registry.manager import PluginSource, installed, load_family
from ..tasks import TASKS

RECIPES = Path(__file__).parent / "tasks"
FAMILY = "FAMILY"
"""Stands for the family's name in a recipe."""


def names(family: str) -> list[str]:
    """Return the names of the configurations for a family: those of the tasks that one of its variants can do."""
    loaded = load_family(family)
    rows = [row(loaded, config) for config in loaded.card.sizes.values()]
    return [
        f"{family}/{task}"
        for task in TASKS
        if (RECIPES / f"{task}.yaml").is_file() and any(cells[task].support != "no" for cells in rows)
    ]


def all_names() -> list[str]:
    """Return the names of all configurations; a broken plugin has none."""
    found = []
    for family in installed().families:
        try:
            found += names(family)
        except LlmRunError:
            continue
    return found


def ready_made(name: str) -> str:
    """Return the text of a configuration.

    Raises:
        RefusedError: there is no such configuration; the text names the nearest one.
        PluginError: the family's plugin is broken.
    """
    family, slash, _ = name.partition("/")
    if not slash or family not in installed().families or name not in names(family):
        near = get_close_matches(name, all_names(), n=1)
        remedy = f"{f'Did you mean {near[0]}? ' if near else ''}llm-run configs ls prints all."
        raise RefusedError(Problem("configuration", f"'{name}'", "does not exist", remedy))
    return _compose(name)


def find_ready_made(name: str) -> str | None:
    """Return the text of a configuration, or ``None`` where the name is none of one."""
    family, slash, task = name.partition("/")
    is_known = bool(slash) and family in installed().families and (RECIPES / f"{task}.yaml").is_file()
    return _compose(name) if is_known and "/" not in task else None


def _compose(name: str) -> str:
    family, _, task = name.partition("/")
    recipe = (RECIPES / f"{task}.yaml").read_text(encoding="utf-8").replace(FAMILY, family)
    own = _folder(installed().families[family]) / f"{task}.yaml"
    lines = recipe.splitlines()
    for key, block in _blocks(own.read_text(encoding="utf-8") if own.is_file() else ""):
        place = next((place for place, line in enumerate(lines) if _key(line) == key), len(lines))
        lines[place : place + 1] = block
    return "\n".join(lines) + "\n"


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """Return each key of a family's file with its line, and the comments that stand before it."""
    found: list[tuple[str, list[str]]] = []
    waiting: list[str] = []
    for line in text.splitlines():
        waiting.append(line)
        if _key(line):
            found.append((_key(line), waiting))
            waiting = []
    return found


def _key(line: str) -> str:
    """Return the key of a line; empty for a comment."""
    return "" if line.startswith("#") else line.partition(":")[0].strip()


def _folder(source: PluginSource) -> Path:
    """Return where a plugin keeps its lines, whether or not there are any."""
    spec = importlib.util.find_spec(source.target.partition(":")[0])
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0] if places else "/nonexistent") / "configs"
