"""Fixtures that many tests share, and the check that a whole run has proven the capability matrix."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return PROJECT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real corpora, tokenizers and weights beside the project; the test is skipped where they are absent."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the shared test data in {folder}, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def script(project: Path) -> ModuleType:
    """benchmarks/configurations.py, which measures at length what tests try."""
    spec = importlib.util.spec_from_file_location("configurations", project / "benchmarks" / "configurations.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def material(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers of every kind, a corpus, records, pairs and prompts: what a model's life needs."""
    folder = tmp_path_factory.mktemp("material")
    script.write_tokenizers(folder / "tokenizer")
    script.write_data(folder / "data", records=32)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "fail unless every yes of the capability matrix was proven by a test that passed in this run"
    parser.addoption("--matrix", action="store_true", help=text)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hold the matrix against what has just run: it is executed, not written."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--matrix") or reporter is None or hasattr(session.config, "workerinput"):
        return
    passed = {report.nodeid for report in reporter.stats.get("passed", []) if report.when == "call"}
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    proofs = matrix_proofs()
    missing = sorted(proof for proof in proofs if not proves(proof, passed) and not proves(proof, skipped))
    left = sorted(proof for proof in proofs if not proves(proof, passed) and proves(proof, skipped))
    lines = [f"matrix: {len(proofs) - len(missing) - len(left)} of {len(proofs)} proofs passed"]
    lines += [f"matrix: skipped here, so not proven: {proof}" for proof in left]
    lines += [f"matrix: NOT PROVEN: {proof}" for proof in missing]
    reporter.write_line("\n" + "\n".join(lines))
    if missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def proves(proof: str, tests: set[str]) -> bool:
    """Whether the test that ``proof`` names, or any of its cases where it names none, is among ``tests``."""
    return proof in tests or ("[" not in proof and any(test.startswith(f"{proof}[") for test in tests))


def matrix_proofs() -> set[str]:
    """Return the tests that the families of this project name."""
    from llm_run.core.registry.capability import matrix
    from llm_run.core.registry.manager import installed, load_family

    families = [load_family(name) for name, source in installed().families.items() if source.distribution == "llm-run"]
    rows = (cells for variants in matrix(families).values() for cells in variants.values())
    return {cell.proof for cells in rows for cell in cells.values() if cell.support == "yes"}
