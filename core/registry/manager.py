"""Which family plugins are installed, and loading one of them: read from metadata, imported only when asked for."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..errors import LlmRunError, PluginError, Problem, RefusedError
from .hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .family import Family

OWN_DISTRIBUTION = "llm-run"
"""Its families win over an outsider's that claims the same name."""
BLOCK_VARIABLE = "LLM_RUN_BLOCK_PLUGINS"
"""Environment variable: names of families, with commas between, that are treated as not installed."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Where a family comes from, known without importing it."""

    name: str
    """Of the entry point: what ``--family`` takes."""
    target: str
    """``module`` or ``module:object``."""
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.distribution} {self.version})"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plugin that is installed and cannot be used, with the reason in one line."""

    source: PluginSource
    reason: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What the metadata of all installed packages says; nothing is imported to know it."""

    families: Mapping[str, PluginSource]
    rejected: tuple[Rejected, ...]


@functools.cache
def installed() -> Installed:
    """Return the usable families by name, and the plugins that are refused before they are even imported."""
    claims: dict[str, list[PluginSource]] = {}
    rejected = []
    for distribution in _distributions():
        found, broken = _entry_points(distribution)
        rejected += broken
        for source in found:
            claims.setdefault(source.name, []).append(source)
    blocked = {name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",")}
    families = {}
    for name, sources in sorted(claims.items()):
        winner, losers = _settle(name, sources, blocked)
        rejected += losers
        if winner is not None:
            families[name] = winner
    return Installed(families, tuple(rejected))


def load_family(name: str) -> Family:
    """Import one family, and only that one, and check it against the contract.

    Raises:
        RefusedError: no usable plugin has this name; the text lists what is installed.
        PluginError: the plugin is broken; the text names its package, version and the cause.
    """
    result = _load_once(name)
    if isinstance(result, LlmRunError):
        raise result
    return result


def nearest_family(name: str) -> str | None:
    """Return the installed family that a misspelt name most likely means, if any."""
    return next(iter(get_close_matches(name, installed().families, n=1)), None)


def find_family(fields: Mapping[str, Any]) -> Family:
    """Return the family that answers for a ``config.json``, by ``architectures`` and then by ``model_type``.

    Where several do, the keys that a card says are telling decide.

    Raises:
        RefusedError: no installed family, or more than one, answers for it.
    """
    failures = []
    loaded = []
    for name in installed().families:
        try:
            loaded.append(load_family(name))
        except PluginError as error:
            failures.append(str(error))
    matches, said = _answering(loaded, fields)
    if len(matches) == 1:
        return matches[0]
    raise RefusedError(_no_single_family(said, matches, loaded, failures))


def _answering(loaded: list[Family], fields: Mapping[str, Any]) -> tuple[list[Family], str]:
    """Return the families that answer for ``fields``, and what the fields say of themselves."""
    architectures = fields.get("architectures")
    named = {item for item in architectures if isinstance(item, str)} if isinstance(architectures, list) else set()
    model_type = fields.get("model_type")
    matches = [family for family in loaded if named & set(family.card.architectures)]
    if not matches:
        matches = [
            family for family in loaded if model_type in (*family.card.model_types, *family.card.gguf_architectures)
        ]
    if len(matches) > 1:
        fitting = [family for family in matches if set(family.card.telling_fields) <= fields.keys()]
        matches = [family for family in fitting if family.card.telling_fields] or fitting or matches
    if len(matches) > 1 and not named:
        # What says neither architectures nor a telling key is most likely the header of a GGUF file.
        matches = [family for family in matches if model_type in family.card.gguf_architectures] or matches
    return matches, ", ".join(sorted(named)) or (str(model_type) if model_type else "")


def _no_single_family(said: str, matches: list[Family], loaded: list[Family], failures: list[str]) -> Problem:
    if matches:
        names = " and ".join(family.card.name for family in matches)
        return Problem("config.json", f"'{said}'", f"is claimed by {names}", "Say which with --family.")
    known = ", ".join(family.card.name for family in loaded) or "none"
    broken = "".join(f" Not loaded: {failure}" for failure in failures)
    if not said:
        reason = "neither model_type nor architectures says which family this model is of"
        return Problem("config.json", "", reason, f"Say it with --family. Installed: {known}.{broken}")
    reason = "belongs to no installed family"
    return Problem("config.json", f"'{said}'", reason, f"Installed: {known}.{broken}")


@functools.cache
def _load_once(name: str) -> Family | LlmRunError:
    from .loading import load

    source = installed().families.get(name)
    if source is None:
        return _unknown(name)
    try:
        return load(source)
    except LlmRunError as error:
        return error


def _unknown(name: str) -> LlmRunError:
    rejected = [entry for entry in installed().rejected if entry.source.name == name]
    if rejected:
        return PluginError("\n".join(f"{entry.source} {entry.reason}" for entry in rejected))
    near = nearest_family(name)
    hint = f"Did you mean '{near}'? " if near else ""
    remedy = f"{hint}Installed: {', '.join(installed().families) or 'none'}."
    return RefusedError(Problem("--family", f"'{name}'", "is not installed", remedy))


def _distributions() -> Iterator[tuple[importlib.metadata.Distribution, str]]:
    """Yield every distribution once, by name: the first on ``sys.path`` is the one that would be imported."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = _name(distribution)
        key = name.lower().replace("_", "-").replace(".", "-")
        if key not in seen:
            seen.add(key)
            yield distribution, name


def _name(distribution: importlib.metadata.Distribution) -> str:
    """Return the name in the metadata, or that of the folder where the metadata cannot be read."""
    try:
        name = distribution.metadata["Name"]
    except Exception:
        name = None
    folder = str(getattr(distribution, "_path", "unknown")).replace("\\", "/").rsplit("/", 1)[-1]
    return name or folder.split("-")[0]


def _version(distribution: importlib.metadata.Distribution) -> str:
    try:
        return distribution.version or "unknown version"
    except Exception:
        return "unknown version"


def _entry_points(
    owner: tuple[importlib.metadata.Distribution, str],
) -> tuple[list[PluginSource], list[Rejected]]:
    """Return the families that one distribution declares, and what cannot be read of its declaration."""
    distribution, package = owner
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if ENTRY_POINT_GROUP not in text:
            return [], []
        points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
        version = _version(distribution)
        return [PluginSource(point.name, point.value, package, version) for point in points], []
    except Exception as error:
        source = PluginSource("?", "", package, _version(distribution))
        return [], [Rejected(source, f"has metadata that cannot be read: entry_points.txt: {one_line(error)}")]


def _settle(name: str, sources: list[PluginSource], blocked: set[str]) -> tuple[PluginSource | None, list[Rejected]]:
    """Decide who gets a name: the built-in family, else the only claimant, else nobody."""
    if name in blocked:
        return None, [Rejected(source, f"is blocked by {BLOCK_VARIABLE}") for source in sources]
    own = [source for source in sources if source.distribution == OWN_DISTRIBUTION]
    if own:
        reason = f"claims the name '{name}', which the built-in family has. Uninstall it or rename its family."
        return own[0], [Rejected(source, reason) for source in sources if source not in own]
    if len(sources) == 1:
        return sources[0], []
    rejected = []
    for source in sources:
        others = " and ".join(f"{other.distribution} {other.version}" for other in sources if other is not source)
        reason = f"claims the name '{name}', and so does {others}: neither is loaded. Uninstall one of them."
        rejected.append(Rejected(source, reason))
    return None, rejected


def one_line(error: BaseException) -> str:
    """Return the type and text of an exception in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return said if len(said) <= 300 else said[:297] + "..."
