"""Distributions that are generated for a test and put on ``sys.path`` of a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
from dataclasses import dataclass

from llm_run.core.registry.facts import FamilyCard, ModelConfig, Support, WeightMap
from llm_run.core.registry.hookspecs import hookimpl

NAME, API = "{name}", {api}


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    @classmethod
    def from_fields(cls, fields):
        return TINY

    def to_fields(self):
        return {{"model_type": NAME}}


TINY = Config(vocab_size=16, hidden_size=8, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=4, ffn_size=16,
              max_positions=32)


@hookimpl
def llm_run_family():
    return FamilyCard(name=NAME, api_version=API, config_class=Config, model_types=(NAME,), architectures=(),
                      sizes={{"tiny": TINY}}, lora_targets=())


@hookimpl
def llm_run_capabilities(config):
    return {{"sft": Support("yes", proof="tests/x.py::test_y"), "bfloat16": Support("untested", "needs a GPU")}}


@hookimpl
def llm_run_build_model(config):
    raise RuntimeError("no network in this test")


@hookimpl
def llm_run_weight_map(config, layout):
    return WeightMap(rules=()) if layout == "hf" else None


@hookimpl
def llm_run_tokenizer(config, directory):
    raise RuntimeError("no tokenizer in this test")
"""
"""A plugin with nothing wrong, and without optional hooks."""


@dataclass(frozen=True)
class Result:
    """What a process did."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Site:
    """A folder of installed distributions."""

    path: Path

    def install(
        self, package: str, family: str, source: str | None = None, *, version: str = "1.2", api: str = "(1, 0)"
    ) -> str:
        """Write a module and its metadata, as pip would; return the module's name."""
        module = package.replace("-", "_")
        text = PLUGIN.format(name=family, api=api) if source is None else source
        (self.path / f"{module}.py").write_text(text)
        self.metadata(package, f"[llm_run.families]\n{family} = {module}\n", version=version)
        return module

    def metadata(self, package: str, entry_points: str | bytes, *, version: str = "1.2") -> None:
        """Write only the metadata of a distribution."""
        info = self.path / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        data = entry_points.encode() if isinstance(entry_points, str) else entry_points
        (info / "entry_points.txt").write_bytes(data)

    def run(self, *words: str, **environment: str) -> Result:
        """Run ``llm-run`` with these distributions installed beside the real ones."""
        return self.python(
            "import sys; from llm_run.core.cli import main; sys.exit(main(sys.argv[1:]))", *words, **environment
        )

    def python(self, code: str, *words: str, **environment: str) -> Result:
        """Run Python code with these distributions installed."""
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *words],
            env={**os.environ, "PYTHONPATH": str(self.path), **environment},
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty folder for generated distributions."""
    return Site(tmp_path)


@pytest.fixture(scope="module")
def crowded_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same, for all tests of a file together."""
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def plugin_source() -> str:
    """The text of a good plugin of the family ``quokka``."""
    return PLUGIN.format(name="quokka", api="(1, 0)")
