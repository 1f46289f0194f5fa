"""Which rotary embedding a model uses, read from and written to ``config.json``. Imports no Paddle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..errors import Problem, RefusedError

Style = Literal["half", "interleaved"]
Kind = Literal["linear", "ntk", "dynamic", "dynamic_pow2", "llama3", "yarn"]

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "ntk": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_YARN_KEYS = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", "finetuned")
_KEYS_OF_ALL = ("type", "rope_type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryScaling:
    """How the frequencies are stretched beyond the positions that the model was trained on."""

    kind: Kind
    """``linear``: positions divided by ``factor``. ``ntk``: base raised once, by ``factor``. ``dynamic``: base raised
    with the length. ``dynamic_pow2``: the same in steps of powers of two. ``llama3``, ``yarn``: long waves only."""
    factor: float = 1.0
    original_max_positions: int = 0
    """Tokens of the first training; used by all kinds but ``linear`` and ``ntk``."""
    low_freq_factor: float = 1.0
    """``llama3``: waves longer than ``original_max_positions`` / this are divided by ``factor``."""
    high_freq_factor: float = 4.0
    """``llama3``: waves shorter than ``original_max_positions`` / this stay."""
    beta_fast: float = 32.0
    """``yarn``: dimensions that turn more often than this stay."""
    beta_slow: float = 1.0
    """``yarn``: dimensions that turn less often than this are divided by ``factor``."""
    attention_factor: float = 1.0
    """``yarn``: factor on cosine and sine."""
    truncate: bool = True
    """``yarn``: round the borders of the ramp to whole dimensions."""


@dataclass(frozen=True, slots=True)
class RotarySpec:
    """One rotary embedding.

    Source: Su et al. 2021, arXiv:2104.09864, section 3.4.2.
    """

    dim: int
    """Entries of a head that are rotated; the first ones."""
    base: float = 10000.0
    style: Style = "half"
    """Entry i turns together with entry i + dim/2 (``half``) or 2i with 2i + 1 (``interleaved``)."""
    scaling: RotaryScaling | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], dim: int, *, style: Style = "half") -> RotarySpec:
        """Read the rotary fields of a ``config.json``.

        Understands ``rope_theta`` with ``rope_scaling`` (transformers 4), ``rope_parameters`` (transformers 5) and
        ``rope_scaling_type`` with ``rope_scaling_factor`` (PaddleNLP).

        Args:
            fields: the whole ``config.json``.
            dim: size of a head; a ``partial_rotary_factor`` among the fields shortens it.
            style: which entries turn together; no ``config.json`` says so.

        Raises:
            RefusedError: the kind of scaling is unknown, or a value is missing, not a number, or unknown.
        """
        key, values = _scaling_fields(fields)
        theta = values.get("rope_theta", fields.get("rope_theta", 10000.0))
        part = values.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
        base = _number("rope_theta", 10000.0 if theta is None else theta)
        rotated = int(dim * _number("partial_rotary_factor", 1.0 if part is None else part))
        return cls(rotated, base, style, _read_scaling(key, values, fields))

    def to_fields(self) -> dict[str, Any]:
        """Return ``rope_theta`` and ``rope_scaling``, which transformers 4 and 5 both read.

        ``ntk`` is a larger base and nothing else, so it is written as that.

        Raises:
            ValueError: ``dynamic_pow2``, which has no such spelling: its family has fields of its own for it.
        """
        scaling = self.scaling
        if scaling is None:
            return {"rope_theta": self.base, "rope_scaling": None}
        if scaling.kind == "ntk":
            return {"rope_theta": self.base * scaling.factor ** ntk_exponent(self.dim), "rope_scaling": None}
        if scaling.kind == "dynamic_pow2":
            raise ValueError("dynamic_pow2 cannot be written as rope_scaling")
        return {"rope_theta": self.base, "rope_scaling": _scaling_to_fields(scaling)}

    @property
    def depends_on_length(self) -> bool:
        """The angles change with the length of the sequence."""
        return self.scaling is not None and self.scaling.kind in ("dynamic", "dynamic_pow2")

    def inverse_wavelengths(self, num_tokens: int) -> tuple[list[float], float]:
        """Return the angle per position of each of the dim/2 pairs in radians, and the factor on cosine and sine.

        Args:
            num_tokens: longest sequence so far; the dynamic kinds depend on it.

        Source: linear Chen et al. 2023, arXiv:2306.15595; ntk and dynamic bloc97 and emozilla 2023; llama3
        Llama 3.1's reference code; yarn Peng et al. 2023, arXiv:2309.00071, section 3.2.
        """
        scaling, base = self.scaling, self.base
        if scaling is not None and scaling.kind in ("ntk", "dynamic", "dynamic_pow2"):
            base *= _ntk_growth(scaling, num_tokens) ** ntk_exponent(self.dim)
        angles = [base ** (-2.0 * pair / self.dim) for pair in range(self.dim // 2)]
        if scaling is None:
            return angles, 1.0
        if scaling.kind == "linear":
            return [angle / scaling.factor for angle in angles], 1.0
        if scaling.kind == "llama3":
            return [_llama3(angle, scaling) for angle in angles], 1.0
        if scaling.kind == "yarn":
            return _yarn(angles, base, self.dim, scaling), scaling.attention_factor
        return angles, 1.0


def ntk_exponent(dim: int) -> float:
    """Return the power of the growth of the base that leaves the slowest pair where ``linear`` puts it."""
    return dim / (dim - 2)


def _ntk_growth(scaling: RotaryScaling, num_tokens: int) -> float:
    if scaling.kind == "ntk":
        return scaling.factor
    stretch = num_tokens / scaling.original_max_positions
    if scaling.kind == "dynamic_pow2":
        return max(2.0 ** math.ceil(math.log2(stretch) + 1) - 1, 1.0)
    return scaling.factor * max(stretch, 1.0) - (scaling.factor - 1)


def _llama3(angle: float, scaling: RotaryScaling) -> float:
    turns = scaling.original_max_positions * angle / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return angle / scaling.factor
    if turns > scaling.high_freq_factor:
        return angle
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return (1 - smooth) * angle / scaling.factor + smooth * angle


def _yarn(angles: list[float], base: float, dim: int, scaling: RotaryScaling) -> list[float]:
    def pair_that_turns(turns: float) -> float:
        return dim * math.log(scaling.original_max_positions / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001
    ramps = [min(max((pair - low) / width, 0.0), 1.0) for pair in range(len(angles))]
    return [angle * (1 - ramp) + angle / scaling.factor * ramp for angle, ramp in zip(angles, ramps, strict=True)]


def _scaling_fields(fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name of the field that holds the scaling, and its values in one spelling."""
    for key in ("rope_parameters", "rope_scaling"):
        value = fields.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping) or any(isinstance(inner, Mapping) for inner in value.values()):
            raise RefusedError(_problem(key, value, "is not one set of rotary parameters"))
        return key, value
    kind = fields.get("rope_scaling_type")
    if kind is None:
        return "rope_scaling_type", {}
    kind = "dynamic" if kind == "dynamic_ntk" else kind
    return "rope_scaling_type", {"rope_type": kind, "factor": fields.get("rope_scaling_factor", 1.0)}


def _read_scaling(key: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> RotaryScaling | None:
    kind = values.get("rope_type", values.get("type"))
    if kind in (None, "default"):
        return None
    if kind not in _REQUIRED:
        remedy = f"Known kinds: {', '.join(_REQUIRED)}."
        raise RefusedError(_problem(key, kind, "is a rotary scaling that llm-run does not have", remedy))
    missing = [name for name in _REQUIRED[kind] if values.get(name) is None]
    known = {*_REQUIRED[kind], *_KEYS_OF_ALL, *(_YARN_KEYS if kind == "yarn" else ())}
    unknown = sorted(set(values) - known)
    if missing or unknown:
        faults = [_problem(f"{key}.{name}", "", f"is missing, and {kind} needs it") for name in missing]
        faults += [_problem(f"{key}.{name}", values[name], f"is not a parameter of {kind}") for name in unknown]
        raise RefusedError(*faults)
    numbers = {
        name: _number(f"{key}.{name}", values[name])
        for name in (*_REQUIRED[kind], "beta_fast", "beta_slow")
        if values.get(name) is not None
    }
    if kind == "yarn":
        numbers["attention_factor"] = _attention_factor(key, values, numbers["factor"])
    return RotaryScaling(
        kind=cast(Kind, kind),
        original_max_positions=_original_max_positions(key, kind, values, fields),
        truncate=bool(values.get("truncate", True)),
        **numbers,
    )


def _original_max_positions(key: str, kind: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> int:
    if kind in ("linear", "ntk"):
        return 0
    name, value = "max_position_embeddings", fields.get("max_position_embeddings")
    # Dynamic NTK grows from the model's own length, whatever the scaling says of an earlier one.
    if kind != "dynamic" and values.get("original_max_position_embeddings") is not None:
        name, value = f"{key}.original_max_position_embeddings", values["original_max_position_embeddings"]
    if value is None:
        raise RefusedError(_problem(name, "", f"is missing, and {kind} needs it"))
    return int(_number(name, value))


def _attention_factor(key: str, values: Mapping[str, Any], factor: float) -> float:
    if values.get("attention_factor") is not None:
        return _number(f"{key}.attention_factor", values["attention_factor"])

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if values.get("mscale") and values.get("mscale_all_dim"):
        over, under = (_number(f"{key}.{name}", values[name]) for name in ("mscale", "mscale_all_dim"))
        return magnitude(over) / magnitude(under)
    return magnitude(1.0)


def _scaling_to_fields(scaling: RotaryScaling) -> dict[str, Any]:
    written: dict[str, Any] = {"rope_type": scaling.kind, "type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("llama3", "yarn"):
        written["original_max_position_embeddings"] = scaling.original_max_positions
    if scaling.kind == "llama3":
        written |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.kind == "yarn":
        written |= {name: getattr(scaling, name) for name in ("beta_fast", "beta_slow", "attention_factor", "truncate")}
    return written


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise RefusedError(_problem(key, value, "is not a number above 0"))
    return float(value)


def _problem(key: str, value: object, reason: str, remedy: str = "") -> Problem:
    return Problem(f"config.json: {key}", "" if value == "" else repr(value), reason, remedy)
