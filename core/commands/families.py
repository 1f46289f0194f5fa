"""``llm-run families``: the installed plugins, where they come from, and what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

from ..errors import LlmRunError
from ..registry.manager import PluginSource, installed, load_family
from .table import aligned, wrapped


def describe_families() -> list[dict[str, Any]]:
    """Return one record for each plugin, usable or not."""
    records = [_describe(source) for source in installed().families.values()]
    for entry in installed().rejected:
        records.append(_record(entry.source) | {"error": f"{entry.source} {entry.reason}"})
    return records


def print_families(form: str) -> int:
    """Print all plugins; a broken one does not fail the command."""
    records = describe_families()
    if form == "json":
        print(json.dumps(records, indent=2))
        return 0
    if not records:
        print("No family plugin is installed. Install llm-run anew, or a package that brings one.")
        return 0
    rows = [("FAMILY", "PACKAGE", "VERSION", "API", "VARIANTS")]
    for record in records:
        api = ".".join(map(str, record["api_version"] or ())) or "-"
        variants = f"{len(record['variants'])}" if not record["error"] else "not usable"
        rows.append((record["name"], record["package"], record["version"], api, variants))
    print("\n".join(aligned(rows)))
    for record in records:
        if record["variants"]:
            print()
            print("\n".join(wrapped(", ".join(record["variants"]), first=f"{record['name']}: ")))
    for text in [f"warning: {text}" for record in records for text in record["warnings"]]:
        print(f"\n{text}")
    for text in [record["error"] for record in records if record["error"]]:
        print(f"\nerror: {text}")
    return 0


def _record(source: PluginSource) -> dict[str, Any]:
    return {
        "name": source.name,
        "package": source.distribution,
        "version": source.version,
        "module": source.target,
        "api_version": None,
        "variants": [],
        "model_types": [],
        "architectures": [],
        "warnings": [],
        "error": "",
    }


def _describe(source: PluginSource) -> dict[str, Any]:
    try:
        family = load_family(source.name)
    except LlmRunError as error:
        return _record(source) | {"error": str(error)}
    card = family.card
    return _record(source) | {
        "api_version": list(card.api_version),
        "variants": list(card.sizes),
        "model_types": list(card.model_types),
        "architectures": list(card.architectures),
        "warnings": list(family.warnings),
    }
