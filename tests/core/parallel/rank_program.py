"""Run by two ranks: every collective, differentiable call and exchange once, on inputs that the test knows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from inputs import drawn

from llm_run.core.errors import DistributedError
from llm_run.core.parallel import collectives, differentiable
from llm_run.core.parallel.join import open_mesh
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.plan import ParallelPlan


def plain(mesh: Mesh) -> dict[str, Any]:
    """Call each collective."""
    group, x = mesh.group("pp"), paddle.to_tensor(drawn(mesh.rank))
    bucket = x.clone()
    collectives.all_reduce_in_place(bucket, group)
    turned = x.transpose([2, 0, 1])  # not contiguous
    results = {
        "sum": collectives.all_reduce(x, group),
        "max": collectives.all_reduce(x, group, op="max"),
        "in place": bucket,
        "not contiguous": collectives.all_reduce(turned, group),
        "float16": collectives.all_reduce(x.astype("float16"), group).astype("float32"),
        "bfloat16": collectives.all_reduce(x.astype("bfloat16"), group).astype("float32"),
        "int64": collectives.all_reduce(paddle.to_tensor([mesh.rank + 1]), group),
        "gather 0": collectives.all_gather(x, group, dim=0),
        "gather -1": collectives.all_gather(turned, group, dim=-1),
        "reduce scatter": collectives.reduce_scatter(x, group, dim=1),
        "split": collectives.split(x, group, dim=1),
        "split -1": collectives.split(x, group, dim=-1),
        "broadcast": collectives.broadcast(x, group, source=1),
        "all to all": collectives.all_to_all(x, group, split_dim=1, join_dim=0),
        "input": x,
    }
    return {name: result.numpy().tolist() for name, result in results.items()}


def with_gradients(mesh: Mesh) -> dict[str, Any]:
    """Call each differentiable operation and pull a known gradient back through it."""
    group = mesh.group("pp")
    calls: dict[str, Callable[[paddle.Tensor], paddle.Tensor]] = {
        "copy_then_reduce": lambda x: differentiable.copy_then_reduce(x, group),
        "reduce_then_copy": lambda x: differentiable.reduce_then_copy(x, group),
        "gather_then_split": lambda x: differentiable.gather_then_split(x, group, dim=1),
        "split_then_gather": lambda x: differentiable.split_then_gather(x, group, dim=1),
        "gather_then_scatter": lambda x: differentiable.gather_then_scatter(x, group, dim=1),
        "scatter_then_gather": lambda x: differentiable.scatter_then_gather(x, group, dim=1),
        "exchange": lambda x: differentiable.exchange(x, group, split_dim=0, join_dim=1),
    }
    found = {}
    for name, call in calls.items():
        x = paddle.to_tensor(drawn(mesh.rank), stop_gradient=False)
        y = call(x)
        weight = np.arange(y.size, dtype="float32").reshape(y.shape) + 10 * mesh.rank
        (y * paddle.to_tensor(weight)).sum().backward()
        found[name] = {"y": y.numpy().tolist(), "gradient": x.grad.numpy().tolist()}
    return found


def over_the_edge(mesh: Mesh) -> dict[str, Any]:
    """Send tensors of several shapes and dtypes to the next stage, and swap."""
    found: dict[str, Any] = {}
    sent = [
        paddle.to_tensor(drawn(0)), paddle.to_tensor([1, 2, 3]), paddle.to_tensor(2.5),
        paddle.to_tensor([True, False]), paddle.to_tensor(drawn(0)).astype("bfloat16"), paddle.zeros([0, 3]),
    ]  # fmt: skip
    if mesh.next_stage is not None:
        mesh.next_stage.send(*sent)
        (got,) = mesh.next_stage.swap(paddle.to_tensor(drawn(0, "y")).transpose([1, 0, 2]))
    else:
        assert mesh.previous_stage is not None
        received = mesh.previous_stage.receive()
        found["dtypes"] = [str(x.dtype) for x in received]
        found["received"] = [x.astype("float32").numpy().tolist() for x in received]
        found["carries no gradient"] = all(x.stop_gradient for x in received)
        (got,) = mesh.previous_stage.swap(paddle.to_tensor(drawn(1, "y")))
    found["swapped"] = got.numpy().tolist()
    return found


def plain_values(mesh: Mesh) -> dict[str, Any]:
    """Agree on numbers and share values."""
    return {
        "max": mesh.agree_max(15 * mesh.rank),
        "gathered": mesh.gather({"rank": mesh.rank}, "a test"),
        "shared": mesh.share(["from", mesh.rank], "a test"),
        "stage": [mesh.is_first_stage, mesh.is_last_stage],
        "ends": mesh.ends.ranks,
    }


def mistakes(mesh: Mesh) -> dict[str, str]:
    """Come to one collective with two shapes, and then to two different ones: both must be told, not hang or abort."""
    group, said = mesh.world, {}
    for name, call in {
        "shapes": lambda: collectives.all_reduce(paddle.ones([2 + mesh.rank]), group),
        "calls": lambda: (collectives.all_reduce if mesh.rank else collectives.broadcast)(paddle.ones([2]), group),
    }.items():
        try:
            call()
        except DistributedError as error:
            said[name] = str(error)
    return said


def main(result: Path) -> None:
    """Do everything and write it down."""
    with open_mesh(ParallelPlan(pp=2), timeout_s=60) as mesh:
        found = {
            "collectives": plain(mesh), "differentiable": with_gradients(mesh), "exchange": over_the_edge(mesh),
            "values": plain_values(mesh), "mistakes": mistakes(mesh),
        }  # fmt: skip
        mesh.meet("the end")
    result.write_text(json.dumps(found))


main(Path(sys.argv[1]))
