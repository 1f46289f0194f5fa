from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.trainer.workspace import LOCK_NAME, Workspace


def test_a_second_run_in_the_same_folder_is_refused_and_a_later_one_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\n"
         "from llm_run.core.trainer.workspace import Workspace\n"
         f"with Workspace(Path({str(tmp_path)!r})):\n    print('locked', flush=True)\n    sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    with pytest.raises(RefusedError) as caught, Workspace(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    assert str(caught.value) == (
        f"--output_dir: {tmp_path} is in use by another run (process {holder.pid}). "
        "Wait for it, or give another directory."
    )
    # A killed run leaves the file and no lock.
    assert (tmp_path / LOCK_NAME).exists()
    with Workspace(tmp_path):
        pass


def test_left_overs_are_cleaned_at_the_start(tmp_path: Path) -> None:
    (tmp_path / (".checkpoint-3.tmp-" + "0a" * 16)).mkdir()
    with Workspace(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with (
        pytest.raises(RefusedError, match=r"--output_dir: .*out cannot be a folder \(File exists\)"),
        Workspace(tmp_path / "out"),
    ):
        pass
