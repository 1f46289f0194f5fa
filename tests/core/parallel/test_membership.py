"""Who this process is, by the variables of launchers, Slurm and Kubernetes."""

from __future__ import annotations

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.parallel.membership import (
    Membership,
    find_membership,
    first_host,
    membership_of_slurm,
    parse_address,
    tasks_on_node,
)

KUBERNETES = {"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "2", "PADDLE_MASTER": "train-0.train:36000"}
SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "40012", "SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_STEP_TASKS_PER_NODE": "4(x1),3",
}  # fmt: skip


def test_a_process_that_was_started_alone_is_no_member() -> None:
    assert find_membership({}) is None
    assert find_membership({"PADDLE_TRAINERS_NUM": "1"}) is None
    assert membership_of_slurm({}) is None


def test_paddles_variables_are_enough() -> None:
    assert find_membership(KUBERNETES) == Membership(1, 2, 0, 1, ("train-0.train", 36000), "PADDLE_TRAINERS_NUM")


def test_the_launchers_variables_say_how_many_share_the_machine() -> None:
    found = find_membership(KUBERNETES | {"PADDLE_LOCAL_RANK": "1", "PADDLE_LOCAL_SIZE": "2"})
    assert found is not None
    assert (found.local_rank, found.local_size) == (1, 2)


def test_the_first_endpoint_serves_where_no_master_is_named_and_master_addr_wins() -> None:
    endpoints = {"PADDLE_TRAINER_ID": "0", "PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ENDPOINTS": "a:1,b:2"}
    assert find_membership(endpoints).master == ("a", 1)  # type: ignore[union-attr]
    named = KUBERNETES | {"MASTER_ADDR": "first", "MASTER_PORT": "99"}
    assert find_membership(named).master == ("first", 99)  # type: ignore[union-attr]


def test_a_membership_can_be_handed_on_as_variables() -> None:
    found = membership_of_slurm(SLURM)
    assert found is not None
    again = find_membership(found.variables())
    assert again is not None
    assert (again.rank, again.size, again.local_rank, again.local_size, again.master) == (
        found.rank, found.size, found.local_rank, found.local_size, found.master,
    )  # fmt: skip


def test_a_task_of_srun_is_a_member_and_its_port_follows_the_job() -> None:
    assert membership_of_slurm(SLURM) == Membership(5, 7, 1, 3, ("gpu07", 20012), "SLURM_STEP_NUM_TASKS")


def test_a_batch_script_and_a_single_task_are_not() -> None:
    batch = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NUM_TASKS"} | {"SLURM_NTASKS": "7"}
    assert membership_of_slurm(batch) is None
    assert membership_of_slurm(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[07-09,12],m1", "n07"),
        ("rack[1-2]-eth", "rack1-eth"),
        ("a-b.c[10]", "a-b.c10"),
    ],
)
def test_the_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_tasks_of_a_node_in_slurms_list() -> None:
    assert [tasks_on_node("4(x2),3", node) for node in range(3)] == [4, 4, 3]


@pytest.mark.parametrize(
    ("text", "address"), [("a:1", ("a", 1)), ("a", None), (":1", None), ("a:x", None), ("a:0", None), ("a:70000", None)]
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int] | None) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PADDLE_TRAINER_ID": "2"}, "PADDLE_TRAINER_ID: 2 is not below PADDLE_TRAINERS_NUM (2). Count from 0."),
        (
            {"PADDLE_TRAINER_ID": ""},
            "PADDLE_TRAINER_ID: must be a number from 0. Whoever starts the processes sets it.",
        ),
        ({"PADDLE_TRAINERS_NUM": "two"}, "PADDLE_TRAINERS_NUM: 'two' must be a number from 0. Whoever starts the"),
        ({"PADDLE_MASTER": ""}, "PADDLE_MASTER: is needed to join the other processes. Set it to host:port of rank 0."),
        ({"PADDLE_MASTER": "train-0"}, "PADDLE_MASTER: 'train-0' is not host:port. Set it to host:port of rank 0."),
    ],
)
def test_variables_that_say_too_little_are_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        find_membership(KUBERNETES | changed)
    assert str(caught.value).startswith(said)
