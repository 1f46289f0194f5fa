"""The command ``llm-run``: the only place that prints errors and decides exit statuses. Imports nothing heavy."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from .config.flags import Arguments, parse
from .errors import LlmRunError, Problem, RefusedError

COMMANDS = ("matrix", "families", "configs", "plan", "env")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 refused, 130 interrupted.

    Args:
        argv: the words after ``llm-run``; ``None`` takes those of the process, which may then be started anew to
            get its environment right.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _log_to_stderr(logging.WARNING if words[:1] and words[0] in COMMANDS else logging.INFO)
    try:
        status = _dispatch(words, may_restart=argv is None)
        sys.stdout.flush()
        return status
    except LlmRunError as error:
        if "--traceback" in words:
            traceback.print_exc()
        for line in str(error).splitlines():
            print(f"llm-run: {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("llm-run: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `llm-run matrix | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.strerror is None:  # raised by a program, not by the system: its place is needed
            raise
        if "--traceback" in words:
            traceback.print_exc()
        print(f"llm-run: {_said_by_system(error)}", file=sys.stderr)
        return 1


def _said_by_system(error: OSError) -> str:
    """Return what the system refused, in one line: a disk that is full, a folder that may not be written."""
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    reason = (error.strerror or str(error)).lower()
    return f"{names}: {reason}." if names else f"{reason} (--traceback shows where)."


def _dispatch(words: list[str], *, may_restart: bool) -> int:
    command = words[0] if words and not words[0].startswith("-") else ""
    if command and command not in COMMANDS:
        raise RefusedError(_unknown_command(command))
    if command == "configs" and not {"-h", "--help"} & set(words):
        from .commands.configs import run_configs

        return run_configs([word for word in words[1:] if word != "--traceback"])
    arguments = parse(["--help"] if command == "configs" else words[1:] if command else words)
    if not words or "help" in arguments.switches:
        from .commands.help import print_help

        return print_help(command, arguments.task)
    if "version" in arguments.switches:
        from .commands.versions import print_version

        return print_version()
    if command and command != "plan":
        return _about(command, arguments, may_restart=may_restart)
    return _run(arguments, words, is_plan=command == "plan", may_restart=may_restart)


def _unknown_command(word: str) -> Problem:
    """Say what a first word most likely means: the seed's scripts take a JSON file there, others a task."""
    from difflib import get_close_matches

    from .tasks import TASKS

    near = get_close_matches(word, [*COMMANDS, *TASKS], n=1)
    meant = f"--config {word}" if word.endswith((".json", ".yaml", ".yml")) else near[0] if near else ""
    meant = f"--task {meant}" if meant in TASKS else meant
    hint = f"Did you mean '{meant}'? " if meant else ""
    remedy = f"{hint}Commands: {', '.join(COMMANDS)}; a task is started with --task."
    return Problem("command", f"'{word}'", "is not known", remedy)


def _about(command: str, arguments: Arguments, *, may_restart: bool) -> int:
    """Run a command that looks at the installation."""
    extra = sorted(
        [*arguments.values, *(["task"] if arguments.task else []), *(["config"] if arguments.config else [])]
    )
    if command != "matrix" and arguments.family is not None:
        extra.append("family")
    formats = ("table", "json", "markdown") if command == "matrix" else ("table", "json")
    problems = [Problem(f"--{name}", "", f"is not an option of llm-run {command}") for name in extra]
    if arguments.format not in formats:
        problems.append(Problem("--format", f"'{arguments.format}'", f"is not one of {', '.join(formats)}"))
    if problems:
        raise RefusedError(*problems)
    if command == "matrix":
        from .commands.matrix import print_matrix

        return print_matrix(arguments.family, arguments.format)
    if command == "families":
        from .commands.families import print_families

        return print_families(arguments.format)
    from .commands.environment import print_environment

    return print_environment(arguments.format, may_restart=may_restart)


def _run(arguments: Arguments, words: list[str], *, is_plan: bool, may_restart: bool) -> int:
    """Resolve a request, and show, plan or run it."""
    from .config.resolve import read_options, resolve
    from .request import prepare

    if "show_config" in arguments.switches:
        from .commands.configuration import print_configuration

        return print_configuration(*resolve(arguments))
    config, notes, problems = read_options(arguments)
    run, more = prepare(config, problems)
    notes += more
    if is_plan:
        from .commands.plan import print_plan

        return print_plan(run, notes, arguments.format, may_restart=may_restart)
    from .launch.start import start

    return start(run, notes, words=words, may_restart=may_restart)


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the moment: progress bars put themselves in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print(self.format(record), file=sys.stderr)


class _LineFormatter(logging.Formatter):
    """Plain lines for news, ``llm-run: warning: ...`` for warnings."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = super().format(record)
        return f"llm-run: {record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def _log_to_stderr(level: int) -> None:
    logger = logging.getLogger("llm_run")
    logger.setLevel(logging.INFO)
    handler = next((handler for handler in logger.handlers if isinstance(handler, _StderrHandler)), None)
    if handler is None:
        handler = _StderrHandler()
        handler.setFormatter(_LineFormatter("%(message)s"))
        logger.addHandler(handler)
    handler.setLevel(level)
