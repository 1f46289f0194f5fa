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
each of them, on a CPU over gloo, and held against one process. This page took {minutes} minutes of CPU time.
`make test-all` does it again; `make test` tries most of them for every family, with a few steps.

A cell has two numbers: the largest relative difference of the loss over all steps, and the largest difference of any
parameter after the last one. At most 1e-5 is accepted of either. `0` is equal to the last bit that is stored. Models
have 4 layers, and 8 where each of 4 stages holds two pieces. An empty cell was not tried.

The optimizer is AdamW with a learning rate of 1e-3 and an epsilon of 0.1, for all families alike. With an epsilon
near 0, a parameter moves by about the learning rate however small its gradient is, and rounding grows as large as that:
where the input of a ReLU is within rounding of 0, two right programs end up to 2e-4 apart (opt; with GELU in the place
of ReLU 1e-6). With this epsilon parameters move in proportion to their gradients, so what differs was computed so.

"""
PAGE = Path(__file__).resolve().parent.parent / "docs" / "layouts.md"
PAIRS = """
## Resumed under another layout

A {family} was trained under the layout on the left, and its checkpoint of the middle resumed under the one above. In
{same} of {count} pairs the state that the ranks went on from is the checkpoint's, every tensor to the bit, and they
took the same samples as one process. The numbers are those of the rest of the run.

"""
DEFECTS = """
## Would a mistake be seen?

Here {family} was trained with a known mistake, under a layout in which it matters. Each should be far above 1e-5.

"""


def page(printed: Sequence[Row]) -> str:
    """Return the text of the page: tables of families and layouts, of pairs of layouts, and of mistakes."""
    ends = [row for row in printed if "seconds" in row]
    rows = [row for row in printed if "layout" in row and not {"source", "defect"} & row.keys()]
    minutes = f"{sum(row['cpu_seconds'] for row in ends) / 60:.0f}"
    text = HEAD.format(steps=ends[0]["steps"], minutes=minutes)
    names = list(dict.fromkeys(row["family"] for row in rows))
    layouts = [name for name in dict.fromkeys(row["layout"] for row in rows) if name != "one"]
    cells = {(row["layout"], row["family"]): row for row in rows if row["layout"] != "one"}
    reasons = list(dict.fromkeys(row["refused"] for row in rows if "refused" in row))
    body = [[layout, *(cell(cells.get((layout, name)), reasons) for name in names)] for layout in layouts]
    text += table(["layout", *names], body)
    text += "".join(f"\n[{number}] {reason}\n" for number, reason in enumerate(reasons, 1))
    text += worst("\nThe worst of all", [row for row in cells.values() if "refused" not in row])
    return text + resumed(printed) + mistaken(printed)


def resumed(printed: Sequence[Row]) -> str:
    """Return the table of layouts that were resumed from each other, if any were."""
    pairs = [row for row in printed if "source" in row]
    if not pairs:
        return ""
    same = sum(row["same"] and row["samples"] for row in pairs)
    targets = list(dict.fromkeys(row["layout"] for row in pairs))
    found = {(row["source"], row["layout"]): row for row in pairs}
    sources = dict.fromkeys(row["source"] for row in pairs)
    body = [[source, *(cell(found.get((source, target)), ()) for target in targets)] for source in sources]
    text = PAIRS.format(family=pairs[0]["family"], same=same, count=len(pairs))
    return text + table(["from / to", *targets], body) + worst("\nThe worst of all pairs", pairs)


def mistaken(printed: Sequence[Row]) -> str:
    """Return the table of mistakes, if any were made."""
    rows = [row for row in printed if "defect" in row]
    if not rows:
        return ""
    body = [[row["defect"], row["layout"], cell(row, ())] for row in rows]
    return DEFECTS.format(family=rows[0]["family"]) + table(["mistake", "layout", "differs by"], body)


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
    """Return the largest numbers of some rows as a sentence; nothing without rows."""
    if not rows:
        return ""
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
