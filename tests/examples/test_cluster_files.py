"""The example files for clusters: they parse, and hold what a rank needs to find the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.parallel.membership import find_membership
from llm_run.core.run import RunConfig


def config(words: list[str]) -> RunConfig:
    return resolve(parse(words))[0]


def test_the_slurm_script_is_valid_and_its_options_exist(project: Path) -> None:
    path = project / "examples" / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith("srun"))
    words = re.sub(r'"\$\{\w+:[^}]*\}"', "folder", line.split(" llm-run ")[1]).split()
    assert config(words).launch.tensor_parallel_degree == 4


@pytest.fixture
def kubernetes(project: Path) -> list[dict]:  # type: ignore[type-arg]
    return list(yaml.safe_load_all((project / "examples" / "kubernetes-job.yaml").read_text(encoding="utf-8")))


def test_the_kubernetes_job_gives_each_pod_its_rank(kubernetes: list[dict]) -> None:  # type: ignore[type-arg]
    service, job = kubernetes
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry.get("value", "1") for entry in container["env"]}
    found = find_membership(environment)
    assert found is not None
    assert found.size == spec["completions"] == spec["parallelism"]
    assert spec["completionMode"] == "Indexed"
    assert found.master[0] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert config(container["args"]).launch.sharding == "stage1"
