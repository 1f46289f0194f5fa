"""docs/families.md is taken apart and run: the family that it builds is found, and passes the tests it brings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def plugin(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, with the metadata that an installation writes."""
    root = tmp_path_factory.mktemp("llm-run-gemma")
    for name, content in FILE.findall((project / "docs" / "families.md").read_text(encoding="utf-8")):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    metadata = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    name, version = metadata["name"], metadata["version"]
    information = root / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = metadata["entry-points"]["llm_run.families"]
    lines = [f"{family} = {module}\n" for family, module in points.items()]
    (information / "entry_points.txt").write_text("[llm_run.families]\n" + "".join(lines))
    return root


def run(plugin: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(plugin), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=plugin, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_family_is_listed_with_its_package(plugin: Path) -> None:
    listed = json.loads(run(plugin, "-m", "llm_run.core", "families", "--format", "json"))
    (gemma,) = [entry for entry in listed if entry["name"] == "gemma"]
    assert (gemma["package"], gemma["version"], gemma["error"]) == ("llm-run-gemma", "0.1.0", "")


def test_it_passes_its_own_tests_and_the_runner_of_all_families(plugin: Path, project: Path) -> None:
    runner = [
        str(project / "tests" / "plugins" / name) for name in ("test_every_family.py", "test_every_family_facts.py")
    ]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(project), "-k", "gemma"]
    said = run(plugin, "-m", "pytest", *options, "tests", *runner)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None and int(passed[1]) > 25
