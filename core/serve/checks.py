"""What can be said against the options of a server before anything is imported. Imports neither Paddle nor Flask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Problem, RefusedError
from .access import check_bind

if TYPE_CHECKING:
    from ..config.serving import ServeOptions

AT_LEAST_ONE = ("max_streams", "max_queue", "cache_tokens", "step_tokens", "max_running")
ABOVE_ZERO = ("request_timeout", "max_body_mb")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


def check_serving(options: ServeOptions) -> list[Problem]:
    """Return every problem."""
    problems = []
    for name in AT_LEAST_ONE:
        if getattr(options, name) < 1:
            problems.append(Problem(f"--{name}", str(getattr(options, name)), "must be 1 or more"))
    for name in ABOVE_ZERO:
        if not getattr(options, name) > 0:
            problems.append(Problem(f"--{name}", str(getattr(options, name)), "must be above 0"))
    for name in ("port", "ui_port"):
        if not 1 <= getattr(options, name) <= 65535:
            problems.append(Problem(f"--{name}", str(getattr(options, name)), "must be 1 to 65535"))
    if options.ui and options.port == options.ui_port:
        problems.append(Problem("--ui_port", str(options.ui_port), "is the port of the API", "Give another one."))
    if options.served_model_name is not None and not MODEL_NAME.fullmatch(options.served_model_name):
        remedy = "Use letters, digits, and . _ - / between them."
        problems.append(Problem("--served_model_name", repr(options.served_model_name), "is no name", remedy))
    try:
        problems += check_bind(options.host, read_keys(options))
    except RefusedError as error:
        problems += error.problems
    for text in options.lora_modules:
        name, _, path = text.partition("=")
        if not MODEL_NAME.fullmatch(name) or not path:
            problems.append(Problem("--lora_modules", f"'{text}'", "is not name=folder"))
        elif not Path(path).is_dir():
            problems.append(Problem("--lora_modules", path, "is no folder", "Name the folder of an adapter."))
    return problems


def read_keys(options: ServeOptions) -> list[str]:
    """Return the API keys of the file, without blank lines and comments.

    Raises:
        RefusedError: there is no such file, or it holds no key.
    """
    if options.api_key_file is None:
        return []
    try:
        lines = Path(options.api_key_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RefusedError(Problem("--api_key_file", options.api_key_file, f"cannot be read ({said})")) from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise RefusedError(Problem("--api_key_file", options.api_key_file, "holds no key", "Write one a line."))
    return keys
