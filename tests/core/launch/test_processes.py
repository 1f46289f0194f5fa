"""The launcher's command and environment, and what is known of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_run.core.config.groups import LaunchOptions
from llm_run.core.errors import RefusedError
from llm_run.core.launch import processes
from llm_run.core.launch.record import FOLDER
from llm_run.core.launch.world import find_world
from llm_run.core.parallel.membership import JOB


def flags(launch: LaunchOptions) -> list[str]:
    found = processes.launcher_command(["program", "--x"], launch, find_world(launch, {}), Path("/logs"))
    assert found[:3] == [sys.executable, "-m", "paddle.distributed.launch"]
    assert found[-2:] == ["program", "--x"]
    return found[3:-2]


def test_one_machine_needs_no_master() -> None:
    assert flags(LaunchOptions(nproc_per_node=4)) == [
        "--nproc_per_node", "4", "--log_dir", "/logs", "--job_id", "llm-run",
    ]  # fmt: skip


def test_gpus_get_one_process_each() -> None:
    found = flags(LaunchOptions(devices="0,2"))
    assert found[:2] == ["--nproc_per_node", "2"]
    assert found[-2:] == ["--devices", "0,2"]


@pytest.mark.parametrize(("node_rank", "master"), [(0, "127.0.0.1:5000"), (1, "127.0.0.1:5000")])
def test_several_machines_meet_at_the_first_whose_name_is_looked_up(node_rank: int, master: str) -> None:
    found = flags(LaunchOptions(nnodes=2, node_rank=node_rank, master="localhost:5000"))
    assert found[-6:] == ["--nnodes", "2", "--rank", str(node_rank), "--master", master]


def test_a_machine_that_nobody_knows_is_refused() -> None:
    with pytest.raises(
        RefusedError, match=r"--master: no\.such\.host\.invalid cannot be found: .*\. Give an address\."
    ):
        flags(LaunchOptions(nnodes=2, node_rank=1, master="no.such.host.invalid:5000"))


def test_ranks_of_all_machines_get_the_same_meeting_point_and_mark() -> None:
    launch = LaunchOptions(nnodes=2, node_rank=1, master="first:5000")
    found = processes.launcher_environment({"A": "b"}, launch, {"OMP_NUM_THREADS": "2"}, Path("/logs"))
    assert found == {
        "A": "b", "OMP_NUM_THREADS": "2", "MASTER_ADDR": "first", "MASTER_PORT": "5001", JOB: "first:5000",
        FOLDER: "/logs",
    }  # fmt: skip


@pytest.mark.parametrize("variable", ["PADDLE_NNODES", "PADDLE_MASTER", "PADDLE_TRAINER_ID"])
def test_variables_of_an_outer_job_do_not_disturb_the_launcher(variable: str) -> None:
    found = processes.launcher_environment({variable: "7"}, LaunchOptions(nproc_per_node=2), {}, Path("/logs"))
    assert variable not in found


def test_two_runs_on_one_machine_have_different_marks() -> None:
    one, two = (processes.launcher_environment({}, LaunchOptions(nproc_per_node=2), {}, Path("/l")) for _ in range(2))
    assert one[JOB] != two[JOB]
    assert one["MASTER_ADDR"] == "127.0.0.1"


def test_the_log_folder_is_for_the_user_alone_and_one_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    launch = LaunchOptions(nproc_per_node=2)
    folder = processes.log_directory(str(tmp_path / "out"), launch)
    assert folder == tmp_path / "out" / "logs"
    assert folder.stat().st_mode & 0o77 == 0
    (tmp_path / "file").touch()
    with pytest.raises(
        RefusedError, match=r"--output_dir: .*/file cannot be a folder \(.*\)\. Give another directory\."
    ):
        processes.log_directory(str(tmp_path / "file"), launch)


def test_machines_that_share_a_folder_write_their_logs_apart(tmp_path: Path) -> None:
    folders = [processes.log_directory(str(tmp_path), LaunchOptions(nnodes=2, node_rank=node)) for node in range(2)]
    assert folders == [tmp_path / "logs" / "node-0", tmp_path / "logs" / "node-1"]


def test_copies_of_the_environment_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("envlog.0", "backup_env.1.json", "llm-run.abcdef.log", "workerlog.0", "launcher.log"):
        (tmp_path / name).touch()
    processes.remove_environment_copies(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["launcher.log", "workerlog.0"]


def test_a_process_is_running_stopped_or_over() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert processes.is_running(child.pid) and not processes.is_stopped(child.pid)
        assert child.pid in processes.children(os.getpid())
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: processes.is_stopped(child.pid))
        child.kill()
        wait_for(lambda: not processes.is_running(child.pid))  # though nobody has looked at its status yet
    finally:
        child.kill()
        child.communicate()
    assert not processes.is_running(child.pid)
    assert processes.children(child.pid) == []


ORPHAN = """
import subprocess, sys, time
from llm_run.core.launch.processes import die_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=die_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_dies_with_its_parent_however_that_dies() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert processes.is_running(child)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not processes.is_running(child))


def wait_for(is_so) -> None:  # type: ignore[no-untyped-def]
    """Wait until something is so; far longer than it takes."""
    give_up = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)
