"""Pickles read as descriptions: nothing that they name is imported, called or built.

The machine below keeps the data opcodes that weight files use and turns every reference and call into a node that
says what the file asked for. Whether that is a tensor is decided by the reader of the format. Large byte strings stay
in the file: their place is kept. Anything else is refused, so a hostile file can at most be a wrong description.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import WeightError


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that the file names."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class Call:
    """A call that the file asks for, with what it would set on the result."""

    function: Global
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Persistent:
    """A reference to something outside the pickle (a storage of torch)."""

    key: Any


@dataclass(frozen=True, slots=True)
class Blob:
    """A byte string in the file, or a text that stands for one (protocol 2, latin-1)."""

    position: int
    stored: int
    """Bytes in the file."""
    size: int
    """Bytes that it stands for."""


_PREFIX = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BINUNICODE": 5, "BINUNICODE8": 9, "SHORT_BINUNICODE": 2}
_LONG_TEXT = 4096
"""Characters; names and dtypes are shorter, latin-1 data of a tensor is longer."""


def read_description(file: IO[bytes], allowed: frozenset[tuple[str, str]], where: str) -> Any:
    """Return what a pickle describes: plain values, ``Call``, ``Persistent`` and ``Blob`` nodes.

    Args:
        file: positioned at 0; ``read`` must not allocate more than the file holds (``mmap``, ``BytesIO``).
        allowed: the (module, name) pairs that the format needs.
        where: the file's name for messages.

    Raises:
        WeightError: the file names anything else, uses an opcode that weight files do not need, or is damaged.
    """
    machine = _Machine(allowed, where)
    try:
        for opcode, argument, position in pickletools.genops(file):
            machine.step(opcode.name, argument, position or 0)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise WeightError(f"{where}: the pickle is damaged: {str(error)[:200]}.") from error


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, allowed: frozenset[tuple[str, str]], where: str) -> None:
        self.allowed = allowed
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError("it ends with more than one value")
        return self.stack[0]

    def step(self, name: str, argument: Any, position: int) -> None:
        """Carry out one opcode."""
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _PREFIX:
            self.stack.append(_string(name, argument, position))
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise WeightError(f"{self.where}: {_refusal(f'the pickle opcode {name}')}")
            action(self, argument)

    def pop_to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def pop(self, count: int) -> list[Any]:
        """Take values off the stack, never below the last mark."""
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more values than there are")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def refer(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("it names a class by what is not text")
        if (module, name) not in self.allowed:
            raise WeightError(f"{self.where}: {_refusal(f'{module}.{name}')}")
        self.stack.append(Global(module, name))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is not a function")
        self.stack.append(Call(function, arguments))

    def build(self) -> None:
        target, state = self.pop(2)
        if not isinstance(target, Call):
            raise ValueError("it sets the state of what is not an object")
        target.state = state
        self.stack.append(target)

    def set_items(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Call) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise ValueError("it sets items of what is not a dictionary")
        # Hashing a deeply nested tuple would overflow the C stack.
        if not all(isinstance(key, str) for key in flat[::2]):
            raise ValueError("a key is not text")
        items.update(zip(flat[::2], flat[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to what is not a list")
        self.stack[-1].extend(values)


def _refusal(what: str) -> str:
    return f"asks for {what}, which no weight file needs and which could run code; refused. Re-save it as safetensors."


def _string(name: str, argument: Any, position: int) -> Any:
    """Keep short texts; of bytes and long texts keep the place."""
    is_text = "UNICODE" in name
    if is_text and len(argument) <= _LONG_TEXT:
        return argument
    stored = len(argument.encode("utf-8", "surrogatepass")) if is_text else len(argument)
    return Blob(position + _PREFIX[name], stored, len(argument))


_VALUES = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"))
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ACTIONS: dict[str, Any] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "APPEND": lambda m, _: m.append(m.pop(1)),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "BINPUT": lambda m, index: m.memo.__setitem__(index, m.stack[-1]),
    "LONG_BINPUT": lambda m, index: m.memo.__setitem__(index, m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, pair: m.refer(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.refer(*m.pop(2)),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stack.append(Persistent(m.pop(1)[0])),
}
