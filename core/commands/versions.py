"""Versions of what is installed, read from metadata: nothing is imported to know them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

from ..launch.framework import installed_paddle

PACKAGES = ("numpy", "safetensors", "tokenizers", "sentencepiece", "tiktoken", "jinja2", "pluggy", "gguf")


def own_version() -> str:
    """Return the version of llm-run."""
    return importlib.metadata.version("llm-run")


def versions() -> dict[str, str]:
    """Return versions by package; what is not installed says so."""
    paddle = installed_paddle()
    found = {"llm-run": own_version(), "python": platform.python_version()}
    found[paddle[0] if paddle else "paddlepaddle"] = paddle[1] if paddle else "not installed"
    for name in PACKAGES:
        found[name] = "not installed"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def print_version() -> int:
    """Print one line."""
    paddle = installed_paddle()
    print(f"llm-run {own_version()} ({' '.join(paddle) if paddle else 'Paddle is not installed'})")
    return 0
