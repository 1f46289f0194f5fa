"""The environment of a run: what is set, by whom, and how it gets into the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from llm_run.core.launch import environment
from llm_run.core.launch.environment import missing, wanted

OURS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GLOG_minloglevel", "MKL_DEBUG_CPU_TYPE", environment.MARK)


def clean() -> dict[str, str]:
    """Return this process's environment without what llm-run or a test runner has set."""
    return {name: value for name, value in os.environ.items() if name not in OURS and not name.startswith("MALLOC_")}


def names(**arguments: Any) -> set[str]:
    return {setting.name for setting in wanted(**{"threads": 2, "training": False, "vendor": ""} | arguments)}


def test_only_amd_processors_get_the_mkl_switch() -> None:
    assert "MKL_DEBUG_CPU_TYPE" in names(vendor="AuthenticAMD")
    assert "MKL_DEBUG_CPU_TYPE" not in names(vendor="GenuineIntel")


def test_only_training_keeps_the_heap() -> None:
    heap = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"}
    assert heap <= names(training=True)
    assert not heap & names(training=False)


def test_what_the_user_has_set_stays() -> None:
    settings = wanted(threads=2, training=False, vendor="")
    new = missing(settings, {"OMP_NUM_THREADS": "7"}, forced=frozenset())
    assert set(new) == {"OMP_WAIT_POLICY", "GLOG_minloglevel"}


def test_the_flag_threads_wins_over_the_environment() -> None:
    settings = wanted(threads=2, training=False, vendor="")
    assert missing(settings, {"OMP_NUM_THREADS": "7"}, forced=frozenset({"OMP_NUM_THREADS"}))["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in missing(settings, {"OMP_NUM_THREADS": "2"}, forced=frozenset({"OMP_NUM_THREADS"}))


def test_a_call_from_a_program_sets_what_it_can_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    environment.settle(threads=3, processes=1, training=False, may_restart=False)
    try:
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert "OMP_WAIT_POLICY" in os.environ[environment.MARK].split(",")
    finally:
        for name in OURS:
            os.environ.pop(name, None)


RESTART = """
import json, os, sys
from llm_run.core.launch.environment import MARK, settle
print("start", file=sys.stderr)
settle(threads=None, processes=2, training=True, may_restart=True)
print(json.dumps([sys.argv, sys.flags.utf8_mode, os.environ["OMP_NUM_THREADS"], os.environ[MARK].split(",")]))
"""


def test_the_process_starts_anew_once_with_the_same_arguments() -> None:
    words = [sys.executable, "-X", "utf8", "-c", RESTART, "a b", "--c", ""]
    done = subprocess.run(words, env=clean(), capture_output=True, text=True, check=True)
    assert done.stderr == "start\nstart\n"
    argv, utf8_mode, threads, ours = json.loads(done.stdout)
    assert argv == ["-c", "a b", "--c", ""]
    assert utf8_mode == 1
    assert threads == str(max(1, environment.cores() // 2))
    assert "MALLOC_TOP_PAD_" in ours


def test_nothing_starts_anew_where_everything_is_set() -> None:
    settings = wanted(threads=5, training=True, vendor=environment.cpu_vendor())
    env = clean() | {setting.name: setting.value for setting in settings} | {environment.MARK: "x"}
    done = subprocess.run([sys.executable, "-c", RESTART], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == "start\n"
    assert json.loads(done.stdout)[2] == "5"


def described(**variables: str) -> dict[str, Any]:
    """Return what ``llm-run env`` says in a process of its own."""
    words = [sys.executable, "-m", "llm_run.core", "env", "--format", "json"]
    done = subprocess.run(words, env=clean() | variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_env_says_who_set_what_and_which_kernels_run() -> None:
    facts = described(OMP_NUM_THREADS="1")
    assert facts["environment"]["OMP_NUM_THREADS"] == {
        "value": "1",
        "set_by": "user",
        "reason": "one thread a core; Paddle's default is one",
    }
    assert facts["environment"]["OMP_WAIT_POLICY"]["set_by"] == "llm-run"
    assert facts["machine"]["device"] in ("cpu", "gpu")
    assert facts["versions"]["llm-run"] and facts["versions"]["python"]
    assert all(kernel["variant"] and kernel["reason"] for kernel in facts["kernels"].values())
    assert {"llama", "qwen"} <= {plugin["name"] for plugin in facts["plugins"]}


def test_env_as_text_has_its_sections() -> None:
    words = [sys.executable, "-m", "llm_run.core", "env"]
    done = subprocess.run(words, env=clean(), capture_output=True, text=True, check=True)
    for heading in ("Versions", "Machine", "Environment of a training run", "Kernels", "Plugins"):
        assert f"{heading}\n" in done.stdout
