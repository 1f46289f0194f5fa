"""The command with a task that only talks to the other ranks; training runs in one process in this version."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from llm_run.core import request, tasks
from llm_run.core.cli import main
from llm_run.core.launch import processes
from llm_run.core.run import Run


def run(run: Run) -> int:
    """Sum the ranks over the mesh and write down what this rank saw."""
    import paddle

    from llm_run.core.parallel.collectives import all_reduce
    from llm_run.core.parallel.join import mesh_of

    with mesh_of(run.config.launch) as mesh:
        total = all_reduce(paddle.to_tensor([float(mesh.rank + 1)]), mesh.group("dp")).item()
        seen = {"total": total, "plan": repr(mesh.plan), "threads": os.environ["OMP_NUM_THREADS"], "argv": sys.argv[1:]}
        folder = Path(str(run.config.training.output_dir))
        (folder / f"seen.{mesh.rank}.json").write_text(json.dumps(seen))
        mesh.meet("the end")
    return 0


if __name__ == "__main__":
    sys.modules["cli_program"] = sys.modules["__main__"]
    tasks.TASKS["pretrain"] = "cli_program:run"
    request.check = lambda *arguments: []  # type: ignore[assignment]
    processes.rank_command = lambda words: [sys.executable, "-u", __file__, *words]
    sys.exit(main())
