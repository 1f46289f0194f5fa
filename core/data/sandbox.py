"""Jinja templates from model directories: strangers' programs, run in a sandbox with bounds on time and memory."""

from __future__ import annotations

import contextvars
import datetime
import functools
import json
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
from jinja2.exceptions import SecurityError, TemplateError

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_TEMPLATE_CHARS = 1_000_000
"""Longest template; the longest published ones have 20 000 characters."""
MAX_OUTPUT_CHARS = 32_000_000
"""Longest rendered conversation."""
MAX_VALUE = 2**27
"""Bound on any value that a template computes: characters, or a sixteenth of that many items."""
ITEM = 16
"""What one item of a list weighs, in characters."""
MAX_STEPS = 2_000_000
"""Loop passes of one rendering."""

_steps: contextvars.ContextVar[list[int]] = contextvars.ContextVar("template_steps")


class _Generation(jinja2.ext.Extension):
    """``{% generation %} ... {% endgeneration %}``, which marks answers in Hugging Face's templates: its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which bounds what a template may touch, with bounds on how much it may make."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``left operator right`` where the result is not too large."""
        if operator == "+":
            _bound(_weight(left) + _weight(right))
        elif operator == "*":
            _bound_product(left, right)
        elif operator == "**":
            _bound_product(left.bit_length() if isinstance(left, int) else 1, 2**50 * _reach(right))
        elif isinstance(left, str):
            raise SecurityError("formatting with % is not offered to templates")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, where its arguments cannot make something too large."""
        owner = getattr(function, "__self__", "")
        if isinstance(owner, str) and getattr(function, "__name__", "") in ("format", "format_map"):
            raise SecurityError("str.format is not offered to templates")
        _bound_call(owner, args, kwargs)
        return super().call(context, function, *args, **kwargs)

    def _generate(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Compile a parsed template, with every loop counted and every ``~`` bounded."""
        for loop in source.find_all(jinja2.nodes.For):
            loop.iter = jinja2.nodes.Filter(loop.iter, "counted", [], [], None, None, environment=self)
        for parent in source.find_all(jinja2.nodes.Concat):
            parent.nodes = [
                jinja2.nodes.Filter(node, "bounded", [], [], None, None, environment=self) for node in parent.nodes
            ]
        return super()._generate(source, *args, **kwargs)


def _weight(value: Any) -> int:
    """Return the size of a text or collection, in characters."""
    if isinstance(value, str):
        return len(value)
    return ITEM * len(value) if isinstance(value, (list, tuple, dict)) else 1


def _reach(value: Any) -> int:
    """Return how far a value can blow another one up: its size, or the number that it is."""
    return abs(value) if isinstance(value, int) else _weight(value)


def _bound(size: int) -> None:
    if size > MAX_VALUE:
        raise SecurityError("the template makes too large a value")


def _bound_product(left: Any, right: Any) -> None:
    """Refuse a repetition that is too long, and numbers of more than 64 bits."""
    numbers = isinstance(left, int) and isinstance(right, int)
    if _reach(left) * _reach(right) > (2**63 if numbers else MAX_VALUE):
        raise SecurityError("the template makes too large a value")


def _bound_call(owner: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call whose result could be too large: a text times a width, a list times a separator."""
    _bound(_weight(owner) * max((_reach(value) for value in (*args, *kwargs.values())), default=1))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter in the bound that calls have."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        values = [value for value in args if isinstance(value, (str, list, tuple, dict, int))]
        if values:
            _bound_call(values[0], values[1:], kwargs)
        return function(*args, **kwargs)

    return guarded


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    steps = _steps.get()
    for value in values:
        steps[0] += 1
        if steps[0] > MAX_STEPS:
            raise SecurityError(f"the template loops more than {MAX_STEPS} times")
        yield value


def _bounded(value: Any) -> Any:
    _bound(8 * _weight(value))
    return value


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Write JSON as Hugging Face does: unlike Jinja's own filter, without HTML escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


@functools.cache
def _environment() -> _Sandbox:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters.pop("format")
    environment.filters = {name: _guarded(function) for name, function in environment.filters.items()}
    environment.filters.update(tojson=_guarded(_tojson), counted=_counted, bounded=_bounded)
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


def check_template(text: str, source: str) -> None:
    """Compile a template.

    Raises:
        DataError: it is too long or has a syntax error; the text names ``source``.
    """
    if len(text) > MAX_TEMPLATE_CHARS:
        raise DataError(
            f"{source}: the chat template has {len(text)} characters; at most {MAX_TEMPLATE_CHARS} are read."
        )
    try:
        _compiled(text)
    except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise DataError(f"{source}: the chat template is not valid Jinja: {line}{error}.") from error


def render_template(text: str, variables: Mapping[str, Any]) -> str:
    """Return what the template makes of ``variables``.

    Raises:
        DataError: the template refuses the conversation, fails, or goes past a bound.
    """
    _steps.set([0])
    parts, size = [], 0
    try:
        for part in _compiled(text).generate(**variables):
            size += len(part)
            if size > MAX_OUTPUT_CHARS:
                raise SecurityError(f"it makes more than {MAX_OUTPUT_CHARS} characters")
            parts.append(part)
    except SecurityError as error:
        raise DataError(f"chat template: stopped for safety: {_clause(error)}.") from error
    except TemplateError as error:
        raise DataError(f"chat template: it refuses this conversation: {_clause(error)}.") from error
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise DataError(f"chat template: it fails on this conversation: {type(error).__name__}: {error}.") from error
    return "".join(parts)


def _clause(error: Exception) -> str:
    """Return what an error says, without the full stop that some end with."""
    return str(error).rstrip(".")
