"""Make docs/layouts.md out of what ``layouts.py`` has printed, in one run or in several.

python benchmarks/layout_page.py rows more-rows
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
HEAD = """# Layouts of ranks

<!-- made by benchmarks/layout_page.py out of what benchmarks/layouts.py printed -->

Training is the same, whatever the layout: here every family's tiny model was trained for {steps} steps in float32 under
each of them, on a CPU over gloo, and held against one process. That took {minutes} minutes of CPU time. `make test-all`
does it again; `make test` tries most of them for every family, with a few steps.

A cell has two numbers: the largest relative difference of the loss over all steps, and the largest difference of any
parameter after the last one. At most 1e-5 is accepted of either. `0` is equal to the last bit that is stored. Models
have 4 layers, and 8 where each of 4 stages holds two pieces.

"""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "layouts.md"
PAIRS = """
## Resumed under another layout

A {family} was trained under the layout on the left, and its checkpoint of the middle resumed under the one above. In
{same} of {count} pairs the state that the ranks went on from is the checkpoint's, every tensor to the bit, and they
took the same samples as one process. The numbers are those of the rest of the run.

"""


def page(printed: Sequence[Row]) -> str:
    """Return the text of the page: one table of families and layouts, one of pairs of layouts."""
    ends = [row for row in printed if "seconds" in row]
    rows = [row for row in printed if "layout" in row and "source" not in row]
    pairs = [row for row in printed if "source" in row]
    minutes = f"{sum(row['cpu_seconds'] for row in ends) / 60:.0f}"
    text = HEAD.format(steps=ends[0]["steps"], minutes=minutes)
    names = list(dict.fromkeys(row["family"] for row in rows))
    layouts = [name for name in dict.fromkeys(row["layout"] for row in rows) if name != "one"]
    cells = {(row["layout"], row["family"]): row for row in rows}
    reasons = list(dict.fromkeys(row["refused"] for row in rows if "refused" in row))
    body = [[layout, *(cell(cells.get((layout, name)), reasons) for name in names)] for layout in layouts]
    text += table(["layout", *names], body)
    text += "".join(f"\n[{number}] {reason}\n" for number, reason in enumerate(reasons, 1))
    text += "".join(kinked(name, rows) for name in names)
    text += worst("\nThe worst of all", [row for row in rows if "refused" not in row])
    if pairs:
        same = sum(row["same"] and row["samples"] for row in pairs)
        text += PAIRS.format(family=pairs[0]["family"], same=same, count=len(pairs))
        targets = list(dict.fromkeys(row["layout"] for row in pairs))
        found = {(row["source"], row["layout"]): row for row in pairs}
        sources = dict.fromkeys(row["source"] for row in pairs)
        body = [[source, *(cell(found.get((source, target)), ()) for target in targets)] for source in sources]
        text += table(["from / to", *targets], body) + worst("\nThe worst of all pairs", pairs)
    return text


def kinked(family: str, rows: Sequence[Row]) -> str:
    """Say what is left out of a family's numbers, if anything is."""
    found = [row["kinked"] for row in rows if row["family"] == family and "kinked" in row]
    if not found:
        return ""
    return (
        f"\nOf {family}, the parameters that make the inputs of ReLU are left out: they differ by up to "
        f"{short(max(found))}.\nThe derivative of ReLU jumps at 0: a unit whose input for one token is within "
        "rounding of 0\nlearns from that token under one layout and not under another. Neither is wrong.\n"
    )


def cell(row: Row | None, reasons: Sequence[str]) -> str:
    """Return the two numbers of a run, or the number of the reason why there is none; empty where it was not made."""
    if row is None:
        return ""
    if "refused" in row:
        return f"[{reasons.index(row['refused']) + 1}]"
    said = f"{short(row['loss'])} / {short(row['weights'])}"
    return said if row["good"] else f"**{said}**"


def short(value: float) -> str:
    """Return a small number in few characters."""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")


def worst(what: str, rows: Sequence[Row]) -> str:
    """Return the largest numbers of some rows as a sentence."""
    loss, weights = (max(row[kind] for row in rows) for kind in ("loss", "weights"))
    good = sum(row["good"] for row in rows)
    return f"{what}: {loss:.1e} and {weights:.1e}; {good} of {len(rows)} are within the bounds.\n"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(paths: Sequence[str]) -> None:
    """Write the page."""
    lines = [line for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
    PAGE.write_text(page([json.loads(line) for line in lines if line.startswith("{")]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
