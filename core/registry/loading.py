"""Import one plugin and hold it to the contract: every way to break it becomes one line that names the package."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import pluggy

from ..errors import PluginError
from . import hookspecs
from .facts import API_VERSION, FamilyCard, ModelConfig
from .family import Family
from .manager import PluginSource, one_line

REQUIRED = (
    "llm_run_family",
    "llm_run_capabilities",
    "llm_run_build_model",
    "llm_run_weight_map",
    "llm_run_tokenizer",
)


def load(source: PluginSource) -> Family:
    """Import the plugin, read its card, register its hooks, and return the family.

    Raises:
        PluginError: naming the package, its version and the cause.
    """
    plugin, printed = _import(source)
    card = _card(source, plugin)
    warnings = _check_version(source, card)
    if printed:
        warnings.append(f"{source} printed {printed} bytes to standard output while it was imported; they are left out")
    _check_card(source, card)
    hooks = _register(source, plugin)
    return Family(source=source, card=card, hooks=hooks, warnings=tuple(warnings))


def _import(source: PluginSource) -> tuple[Any, int]:
    """Return the module or object that the entry point names, and how many bytes it printed."""
    module_name, _, attributes = source.target.partition(":")
    try:
        with _stdout_counted() as printed:
            plugin = importlib.import_module(module_name.strip())
            for attribute in filter(None, attributes.split(".")):
                plugin = getattr(plugin, attribute.strip())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        remedy = "Upgrade or uninstall it."
        raise PluginError(f"{source} cannot be imported: {one_line(error)}. {remedy}") from error
    return plugin, printed[0]


@contextlib.contextmanager
def _stdout_counted() -> Iterator[list[int]]:
    """Keep a plugin's chatter out of standard output, which may be JSON for a script; yield the count of bytes."""
    printed = [0]
    with os.fdopen(os.memfd_create("plugin-output"), "w", errors="replace") as sink, _descriptor_1_is(sink.fileno()):
        try:
            with contextlib.redirect_stdout(sink):
                yield printed
        finally:
            sink.flush()
            printed[0] = os.fstat(sink.fileno()).st_size


@contextlib.contextmanager
def _descriptor_1_is(other: int) -> Iterator[None]:
    """Send what is written past Python to another file as well."""
    try:
        saved = os.dup(1)
    except OSError:  # standard output is closed: nothing can be written to it
        yield
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    os.dup2(other, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _card(source: PluginSource, plugin: Any) -> FamilyCard:
    """Call the first hook by hand: a plugin of another API version could not even be registered."""
    hook = getattr(plugin, "llm_run_family", None)
    if not callable(hook):
        raise PluginError(f"{source} lacks the required hook llm_run_family. Upgrade or uninstall it.")
    try:
        with _stdout_counted():
            card = hook()
    except (Exception, SystemExit) as error:
        version = f"This llm-run has plugin API {_dotted(API_VERSION)}."
        raise PluginError(f"{source} fails in llm_run_family: {one_line(error)}. {version}") from error
    if not isinstance(card, FamilyCard):
        raise PluginError(f"{source} returns {type(card).__name__} from llm_run_family, not FamilyCard.")
    return card


def _check_version(source: PluginSource, card: FamilyCard) -> list[str]:
    version = card.api_version
    if not (isinstance(version, tuple) and len(version) == 2 and all(isinstance(part, int) for part in version)):
        raise PluginError(f"{source} gives the API version {version!r}, not two numbers such as {API_VERSION}.")
    if version[0] != API_VERSION[0]:
        older = "the plugin" if version[0] < API_VERSION[0] else "llm-run"
        raise PluginError(
            f"{source} is written for plugin API {_dotted(version)}, and this llm-run has {_dotted(API_VERSION)}. "
            f"Upgrade {older}."
        )
    if version[1] > API_VERSION[1]:
        return [
            f"{source} is written for plugin API {_dotted(version)}, newer than {_dotted(API_VERSION)} here: "
            "what is new in it is not used"
        ]
    return []


def _check_card(source: PluginSource, card: FamilyCard) -> None:
    """Report everything that is wrong with the card at once."""
    wrong = []
    if card.name != source.name:
        wrong.append(f"calls itself '{card.name}', but its entry point is '{source.name}'")
    if not (isinstance(card.config_class, type) and issubclass(card.config_class, ModelConfig)):
        wrong.append("config_class is not derived from ModelConfig")
    elif not all(isinstance(config, card.config_class) for config in card.sizes.values()):
        wrong.append(f"sizes holds something else than {card.config_class.__name__}")
    if "tiny" not in card.sizes:
        wrong.append("sizes lacks 'tiny', which every family has")
    for name in ("model_types", "architectures", "gguf_architectures", "lora_targets"):
        value = getattr(card, name)
        if not (isinstance(value, tuple) and all(isinstance(item, str) for item in value)):
            wrong.append(f"{name} is not a tuple of strings")
    if wrong:
        raise PluginError(f"{source} has a wrong name card: {'; '.join(wrong)}.")


def _register(source: PluginSource, plugin: Any) -> pluggy.HookRelay:
    """Give the plugin a manager of its own, and check names and signatures of its hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, source.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{source} breaks the hook contract: {_cause(error)}") from error
    except Exception as error:
        raise PluginError(f"{source} cannot be registered: {one_line(error)}") from error
    missing = [name for name in REQUIRED if not getattr(manager.hook, name).get_hookimpls()]
    if missing:
        unmarked = [name for name in missing if callable(getattr(plugin, name, None))]
        hint = f" ({', '.join(unmarked)}: defined, but not marked with @hookimpl)" if unmarked else ""
        raise PluginError(f"{source} lacks the required hook {' and '.join(missing)}{hint}.")
    return manager.hook


def _cause(error: pluggy.PluginValidationError) -> str:
    """Return pluggy's text in one line, with the nearest hook where the name is unknown."""
    text = " ".join(str(error).split())
    known = [name for name in vars(hookspecs) if name.startswith("llm_run_")]
    unknown = [word.strip("'") for word in text.split() if word.startswith("'llm_run_")]
    near = get_close_matches(unknown[0], known, n=1) if unknown else []
    hint = f" Did you mean {near[0]}?" if near and near[0] != unknown[0] else ""
    return f"{text}.{hint}"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
