"""From files and flags to one checked configuration: the last value wins, and every problem is reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_args

from ..errors import Problem, RefusedError
from ..registry.facts import Task
from ..run import RunConfig
from ..tasks import TASKS
from .coerce import coerce
from .files import read_config
from .flags import Arguments
from .option import DECODING, SHARING, TRAINING
from .schema import GROUPS, Option, aliases, options
from .seed_keys import MODES, RETIRED

FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as the user gave it."""

    name: str
    value: Any
    origin: str
    """``flag``, or the file's path."""

    @property
    def key(self) -> str:
        """The key as the user would look for it."""
        return f"--{self.name}" if self.origin == FLAG else f"{self.origin}: {self.name}"


@dataclass(slots=True)
class Resolution:
    """What is known so far: values by option, where they came from, and what is to be said."""

    task: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    given: frozenset[str] = frozenset()
    """Every key that somebody gave, as it was spelt."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Keys by what is to be said about them, so that one line serves all keys with the same note."""

    def note(self, setting: Setting, text: str) -> None:
        """Add a key to the note ``text``."""
        where = "" if setting.origin == FLAG else f"{setting.origin}: "
        name = f"--{setting.name}" if setting.origin == FLAG else setting.name
        self.notes.setdefault(f"{where}{{}}: {text}", []).append(name)


def resolve(arguments: Arguments) -> tuple[RunConfig, list[str]]:
    """Merge defaults, files and flags into a ``RunConfig``, whose ``family`` is empty where nobody says it.

    Returns:
        The configuration, and notes on keys that were renamed, are not needed, or are not read by the task.

    Raises:
        RefusedError: with all problems of all keys.
    """
    config, notes, problems = read_options(arguments)
    if problems:
        raise RefusedError(*problems)
    return config, notes


def read_options(arguments: Arguments) -> tuple[RunConfig, list[str], list[Problem]]:
    """Return what ``resolve`` does, and the problems of all keys: the rest can still be checked for more of them.

    In the configuration a misspelt key counts as the one that it is nearest to, and a wrong value as not given.
    """
    settings = [*_from_files(arguments.config), *_from_flags(arguments)]
    named = {setting.name: setting.value for setting in settings if setting.name in ("family", "task")}
    family, task = arguments.family or named.get("family"), arguments.task or named.get("task")
    found = Resolution(task=str(task or ""), given=frozenset(setting.name for setting in settings))
    found.problems += _check_task(task)
    for setting in settings:
        if setting.name not in ("family", "task"):
            _take(found, setting)
    notes = [text.format(", ".join(names)) for text, names in found.notes.items()]
    return _build(found, str(family or "")), notes, found.problems


def _from_files(paths: tuple[str, ...]) -> Iterator[Setting]:
    for path in paths:
        for name, value in read_config(path).items():
            yield Setting(name.replace("-", "_"), value, path)


def _from_flags(arguments: Arguments) -> Iterator[Setting]:
    known = options()
    for name, times in arguments.values.items():
        option = known.get(aliases().get(name, name))
        words = times[-1]
        if option is not None and option.kind is tuple:
            yield Setting(name, [word for words in times for word in words], FLAG)
        elif name.startswith("no_") and not words and name[3:] in known and known[name[3:]].kind is bool:
            yield Setting(name[3:], False, FLAG)
        else:
            yield Setting(name, words[0] if len(words) == 1 else words or None, FLAG)


def _check_task(task: Any) -> list[Problem]:
    known = get_args(Task)
    if task is None:
        return [Problem("--task", "", "is missing", f"It is one of {', '.join(TASKS)}.")]
    if task in TASKS:
        return []
    if task in known:
        return [Problem("--task", f"'{task}'", "is not in this version", f"Tasks: {', '.join(TASKS)}.")]
    near = get_close_matches(str(task), known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return [Problem("--task", f"'{task}'", "is not a task", f"{hint}Tasks: {', '.join(TASKS)}.")]


def _take(found: Resolution, setting: Setting) -> None:
    """Sort one key: an option, another name of one, a key of the seed, or a mistake."""
    name = setting.name
    if name in aliases():
        found.note(setting, f"is called {aliases()[name]} here")
        _set(found, dataclasses.replace(setting, name=aliases()[name]), setting.key)
    elif name == "max_length" and found.task in DECODING:
        _take_max_length(found, setting)
    elif name in options():
        _set(found, setting, setting.key)
    elif name in MODES:
        _take_mode(found, setting)
    elif name in RETIRED:
        _take_retired(found, setting)
    else:
        _take_unknown(found, setting)


def _take_unknown(found: Resolution, setting: Setting) -> None:
    near = get_close_matches(setting.name, [*options(), *aliases()], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"See llm-run --task {found.task or 'TASK'} --help."
    found.problems.append(Problem(setting.key, "", "is not an option", hint))
    meant = aliases().get(near[0], near[0]) if near else ""
    if found.task in TASKS and meant and meant not in found.values and options()[meant].is_read_by(found.task):
        _set(found, dataclasses.replace(setting, name=meant), setting.key)


def _take_max_length(found: Resolution, setting: Setting) -> None:
    """The seed's predictor calls ``max_new_tokens`` so."""
    if "max_new_tokens" in found.given:
        found.note(setting, f"not read by --task {found.task}, since max_new_tokens is given")
    else:
        found.note(setting, f"is read as max_new_tokens by --task {found.task}")
        _set(found, dataclasses.replace(setting, name="max_new_tokens"), setting.key)


def _set(found: Resolution, setting: Setting, key: str) -> None:
    option = options()[setting.name]
    if found.task in TASKS and not option.is_read_by(found.task):
        _not_read(found, setting, key, option)
        return
    value = setting.value
    if setting.origin == FLAG and value is None:
        if option.kind is not bool:
            found.problems.append(Problem(key, "", "lacks its value"))
            return
        value = True
    typed = coerce(option, value)
    if isinstance(typed, Problem):
        found.problems.append(dataclasses.replace(typed, key=key))
        return
    if setting.origin != FLAG and found.origins.get(setting.name) == setting.origin:
        typed = _settle_twins(found, setting.name, typed, key)
    found.values[setting.name] = typed
    found.origins[setting.name] = setting.origin


def _settle_twins(found: Resolution, name: str, value: Any, key: str) -> Any:
    """Decide between two names of one option in one file: the seed's have ``intokens`` beside ``zero_padding``."""
    other = found.values[name]
    if isinstance(value, bool):
        return value or other
    if value != other:
        reason = f"is another name of {name}, and the file gives both {other!r} and {value!r}"
        found.problems.append(Problem(key, "", reason, "Leave one of them out."))
    return value


def _not_read(found: Resolution, setting: Setting, key: str, option: Option) -> None:
    if setting.origin != FLAG:
        found.note(setting, f"not read by --task {found.task}")
    else:
        remedy = f"It is for {', '.join(option.tasks)}."
        if option.tasks == TRAINING and option.group == "launch" and found.task in SHARING:
            remedy += f" Several processes share --task {found.task} by --tensor_parallel_degree."
        found.problems.append(Problem(key, "", f"is not read by --task {found.task}", remedy))


def _take_mode(found: Resolution, setting: Setting) -> None:
    mode = MODES[setting.name]
    if mode == "lora" and found.task == "dpo":
        found.note(setting, "is called use_lora here")
        _set(found, dataclasses.replace(setting, name="use_lora"), setting.key)
        return
    wanted = setting.value is None or str(setting.value).lower() in ("true", "1", "yes", "t", "y")
    if wanted and found.task != mode:
        remedy = f"Use --task {mode}, or set it to false." if mode in get_args(Task) else "Set it to false."
        reason = "is a task of its own" if mode in get_args(Task) else "is not in this version"
        found.problems.append(Problem(setting.key, "true", reason, remedy))


def _take_retired(found: Resolution, setting: Setting) -> None:
    entry = RETIRED[setting.name]
    plain = setting.value if not isinstance(setting.value, str) else setting.value.lower()
    if not entry.harmless or plain in entry.harmless or _number(plain) in entry.harmless:
        found.note(setting, f"ignored: {entry.note}")
    else:
        remedy = f"Leave it out: {entry.note}."
        found.problems.append(Problem(setting.key, repr(setting.value), "is not supported", remedy))


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _build(found: Resolution, family: str) -> RunConfig:
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    origins: dict[str, str] = {}
    for name, option in options().items():
        groups[option.group][name] = found.values.get(name, option.default)
        origins[name] = found.origins.get(name, "default")
    built: Mapping[str, Any] = {group: GROUPS[group](**values) for group, values in groups.items()}
    return RunConfig(task=found.task, family=family, origins=origins, **built)
