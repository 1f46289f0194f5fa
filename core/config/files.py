"""Read a configuration file: flat keys in JSON (as the seed's) or YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import Problem, RefusedError


def read_config(name: str) -> dict[str, Any]:
    """Return the keys and values of a file, or of a ready-made configuration (``family/sft``) where there is no file.

    Raises:
        RefusedError: as of ``read_config_file``.
    """
    from ..configs.ready_made import find_ready_made

    path = Path(name)
    text = None if path.exists() else find_ready_made(name)
    return read_config_file(path) if text is None else dict(_parse_yaml(path, text))


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the keys and values of one file, with nothing checked but its form.

    Raises:
        RefusedError: the file cannot be read, is malformed, gives a key twice, or is not a table of keys.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _refused(path, "cannot be read: it is not text in UTF-8") from error
    values = _parse_json(path, text) if path.suffix == ".json" else _parse_yaml(path, text)
    if not isinstance(values, dict):
        raise _refused(path, "does not hold keys and values at its top level")
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise _refused(path, f"has a key that is not a text: {odd[0]!r}")
    return values


def _refused(path: Path, reason: str) -> RefusedError:
    return RefusedError(Problem("--config", str(path), reason))


def _parse_json(path: Path, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                raise _refused(path, f"gives the key '{name}' twice")
            seen[name] = value
        return seen

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _refused(path, f"is not JSON: {error.msg} in {where}") from error


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml

    class StrictLoader(yaml.SafeLoader):
        """Plain data only, and each key once."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise _refused(path, f"gives the key '{twice}' twice")
            return super().construct_mapping(node, deep)

    try:
        values = StrictLoader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it is malformed"
        raise _refused(path, f"is not YAML: {reason}{where}") from error
    return {} if values is None else values
