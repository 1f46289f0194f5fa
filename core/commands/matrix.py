"""``llm-run matrix``: what works for each family, with the reason for what does not."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import LlmRunError
from ..registry.capability import Row, matrix
from ..registry.facts import Support
from ..registry.family import Family
from ..registry.features import BY_NAME, FEATURES, GROUP_TITLES, Feature
from ..registry.manager import installed, load_family
from .table import aligned, markdown, terminal_width, width, wrapped
from .versions import own_version

SIGNS = {"yes": "✅", "no": "❌", "untested": "➖"}
GAP = 3
LEGEND = "✅ a test proves it   ➖ written, to be proven on a GPU   ❌ no, for the reason given below"


@dataclass(frozen=True, slots=True)
class Column:
    """Variants of one family that support the same things."""

    title: str
    rows: dict[str, Row]
    """By variant: they differ in their proofs at most."""

    @property
    def row(self) -> Row:
        """What all variants of the column support."""
        return next(iter(self.rows.values()))


def print_matrix(name: str | None, form: str) -> int:
    """Print the matrix of all families that can be loaded, or of one.

    Raises:
        LlmRunError: the one family that is asked for cannot be loaded.
    """
    families = [load_family(name)] if name is not None else list(_usable())
    if form == "json":
        print(json.dumps(_as_data(families), indent=2, ensure_ascii=False))
        return 0
    columns = [column for family in families for column in _columns(family)]
    lines = _markdown(columns) if form == "markdown" else _table(columns, single=name is not None)
    print("\n".join(lines))
    return 0


def _usable() -> Iterator[Family]:
    for name in installed().families:
        try:
            family = load_family(name)
            matrix([family])
        except LlmRunError as error:
            print(f"llm-run: warning: {error}", file=sys.stderr)
        else:
            yield family


def _as_data(families: list[Family]) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    return {
        family: {
            variant: {feature: dataclasses.asdict(support) for feature, support in row.items()}
            for variant, row in rows.items()
        }
        for family, rows in matrix(families).items()
    }


def _columns(family: Family) -> Iterator[Column]:
    """Yield one column for each set of variants that support the same things, for the same reasons."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, Row]] = {}
    for variant, row in matrix([family])[family.card.name].items():
        groups.setdefault(tuple((cell.support, cell.reason) for cell in row.values()), {})[variant] = row
    for number, rows in enumerate(groups.values(), 1):
        title = family.card.name if len(groups) == 1 else f"{family.card.name} ({number})"
        yield Column(title, rows)


def _table(columns: list[Column], *, single: bool) -> list[str]:
    """Return rows of features under headings, families side by side, and the reasons beneath."""
    reasons: list[str] = []
    lines = [f"What works in llm-run {own_version()}", "", LEGEND]
    for block in _blocks(columns):
        lines += ["", *_block(block, reasons)]
    lines.append("")
    for number, reason in enumerate(reasons, 1):
        lines += wrapped(reason, first=f"{number:>3} ")
    lines.append("")
    for column in columns:
        lines += wrapped(", ".join(column.rows), first=f"{column.title}: ", then="  ")
    return lines + (_proofs(columns) if single else ["", "Tests behind each ✅: llm-run matrix --family FAMILY"])


def _blocks(columns: list[Column]) -> Iterator[list[Column]]:
    """Cut the columns so that each block fits the terminal."""
    label = max(width(feature.name) for feature in FEATURES) + 2
    block: list[Column] = []
    for column in columns:
        if label + sum(GAP + max(width(other.title), 4) for other in [*block, column]) > terminal_width() and block:
            yield block
            block = []
        block.append(column)
    yield block


def _block(columns: list[Column], reasons: list[str]) -> list[str]:
    rows: list[list[str]] = [["", *(column.title for column in columns)]]
    for feature in FEATURES:
        rows.append([f"  {feature.name}", *(_cell(column.row[feature.name], reasons) for column in columns)])
    heading, *body = aligned(rows, gap=GAP)
    lines, group = [heading], ""
    for feature, line in zip(FEATURES, body, strict=True):
        if feature.group != group:
            group = feature.group
            lines.append(GROUP_TITLES[feature.group])
        lines.append(line)
    return lines


def _cell(support: Support, reasons: list[str]) -> str:
    """Return the sign, with the number of its reason."""
    if support.support == "yes":
        return SIGNS["yes"]
    if support.reason not in reasons:
        reasons.append(support.reason)
    return f"{SIGNS[support.support]} {reasons.index(support.reason) + 1}"


def _proofs(columns: list[Column]) -> list[str]:
    """Return the tests behind each yes; variants may have tests of their own."""
    lines = []
    for column in columns:
        lines += ["", f"Tests behind each ✅ of {column.title}"]
        for feature in FEATURES:
            proofs = {row[feature.name].proof: None for row in column.rows.values() if row[feature.name].proof}
            lines += [f"  {feature.name}: {proof}" for proof in proofs]
    return lines


def _markdown(columns: list[Column]) -> list[str]:
    """Return a table of all features for the docs."""
    reasons: list[str] = []
    rows = [["", *(column.title for column in columns)]]
    for feature in FEATURES:
        cells = [_cell(column.row[feature.name], reasons) for column in columns]
        rows.append([_label(feature), *cells])
    return [*markdown(rows), "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]


def _label(feature: Feature) -> str:
    return f"{GROUP_TITLES[BY_NAME[feature.name].group].split(' (')[0]}: `{feature.name}`"
