"""The house rules that no linter knows: who may import whom, and what nobody may call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

FAMILIES = sorted(point.name for point in entry_points(group="llm_run.families") if point.value.startswith("llm_run."))
UNSAFE_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "marshal.loads",
    "paddle.load", "torch.load", "yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system",
}  # fmt: skip
FORMAT_WORDS = {
    # Values that foreign files hold, each the name of a file format's detail and not of our family.
    "core/convert/gguf_fields.py": "kinds of rotary scaling",
    "core/convert/gguf_metadata.py": "kinds of rotary scaling",
    "core/convert/gguf_vocabulary.py": "kinds of tokenizer and of pre-tokenizer in a GGUF header",
    "core/ops/rotary_spec.py": "kinds of rotary scaling in a config.json",
}


def sources(project: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (project / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield absolute module names (a relative one as its dots and name) with their line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno


def test_core_imports_no_plugin(project: Path) -> None:
    wrong = [
        f"{path}:{line}"
        for path in sources(project, "core")
        for name, line in imports(path)
        if name.startswith("llm_run.plugins") or re.fullmatch(r"\.+plugins.*", name)
    ]
    assert not wrong


def test_core_names_no_family(project: Path) -> None:
    names = "|".join(map(re.escape, FAMILIES))
    wrong = [
        f"{path}:{node.lineno}: {node.value!r}"
        for path in sources(project, "core")
        if str(path.relative_to(project)) not in FORMAT_WORDS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        # A family's name as a whole word of a short string is a decision by name; prose may mention models.
        and len(node.value) < 40 and re.search(rf"\b({names})\d*\b", node.value, re.IGNORECASE)
    ]  # fmt: skip
    assert FAMILIES and not wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_imports_core_by_full_name_and_no_other_family(project: Path, family: str) -> None:
    for path in sources(project, f"plugins/{family}"):
        for name, line in imports(path):
            place = f"{path}:{line} imports {name}"
            assert not name.startswith(".."), f"{place}: write llm_run.core..., as an outside plugin must"
            if name.startswith("llm_run."):
                assert name.startswith("llm_run.core"), place


def test_nobody_imports_the_folders_by_path(project: Path) -> None:
    wrong = [
        f"{path}:{line}"
        for path in sources(project, "core", "plugins", "tests", "examples", "benchmarks")
        for name, line in imports(path)
        if name.split(".")[0] in ("core", "plugins")
    ]
    assert not wrong


def test_nothing_unpickles_or_evaluates(project: Path) -> None:
    wrong = []
    for path in sources(project, "core", "plugins"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                pickled = any(
                    word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords
                )
                if called in UNSAFE_CALLS or pickled:
                    wrong.append(f"{path}:{node.lineno}: {called}")
    assert not wrong


def test_files_and_functions_fit_the_budget(project: Path) -> None:
    wrong = []
    for path in sources(project, "core", "plugins"):
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > 300:
            wrong.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > 60:
                wrong.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
    assert not wrong


def test_the_type_checkers_see_the_real_folders(project: Path) -> None:
    # mypy passes emptily when these links are broken.
    for folder in ("core", "plugins"):
        assert (project / ".typing" / "llm_run" / folder).resolve() == project / folder
