"""The built distribution holds exactly what the tree holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from setuptools import find_packages

SUFFIXES = (".py", ".yaml")
"""Of code, and of ready-made configurations."""
RECIPE = "core/configs/tasks/sft.yaml"


def test_every_folder_with_code_is_a_package(project: Path) -> None:
    found = set(find_packages(str(project), include=["core*", "plugins*"]))
    folders = {
        ".".join(path.parent.relative_to(project).parts)
        for top in ("core", "plugins")
        for path in (project / top).rglob("*.py")
    }
    assert found == folders


def test_the_wheel_contains_every_source_file(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=project, capture_output=True, text=True
    )
    names = tracked.stdout.split("\n") if tracked.returncode == 0 else []
    for name in filter(None, names):
        source = project / name
        if source.is_file() and name.split("/")[0] in (
            "core",
            "plugins",
            "pyproject.toml",
            "setup.py",
            "README.md",
            "LICENSE",
        ):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(source.read_bytes())
    assert copy.is_dir(), "this test needs a git checkout"
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(copy),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(SUFFIXES)}
    held = [path for top in ("core", "plugins") for path in (copy / top).rglob("*") if path.name.endswith(SUFFIXES)]
    wanted = {f"llm_run/{path.relative_to(copy)}" for path in held}
    assert f"llm_run/{RECIPE}" in wanted
    assert packed == wanted
