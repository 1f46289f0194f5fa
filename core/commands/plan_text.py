"""A plan as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .table import aligned

if TYPE_CHECKING:
    from ..estimate.ranks import RankPlan

GROUPS = 8
"""Groups of an axis that are written out; of more, the first ones."""


def plan_lines(plan: Mapping[str, Any], ranks: Sequence[RankPlan]) -> list[str]:
    """Return the lines of a plan.

    Args:
        plan: as ``--format json`` prints it.
        ranks: all of them.
    """
    processes, threads = plan["processes"], plan["threads"]
    facts = [
        ("task", f"{plan['task']}, family {plan['family']} ({plan['package']})"),
        ("device", f"{plan['device']}, {_counted(processes, 'process', 'es')}, {_counted(threads, 'thread')} each"),
        ("parameters", f"{plan['parameters']:,}"),
    ]
    if plan["trained_parameters"] != plan["parameters"]:
        facts.append(("trained", f"{plan['trained_parameters']:,}"))
    if "tokens_per_step" in plan:
        facts += _training_facts(plan)
    lines = aligned(facts)
    if processes > 1:
        lines += ["", *_rank_lines(plan, ranks)]
    most = max(ranks, key=lambda rank: rank.peak.total)
    lines += ["", *_memory_lines(plan)]
    if most.activations:
        modes = ", ".join(f"{mode} {size / 1e9:.2f}" for mode, size in most.activations.items())
        lines.append(f"  activations by what is recomputed: {modes}")
    if most.traffic:
        lines += ["", *_traffic_lines(most)]
    needed = plan["peak_memory_bytes"] * plan["processes_here"]
    if plan["machine_memory_bytes"] and needed > plan["machine_memory_bytes"]:
        lines += ["", f"warning: this does not fit. {_advice(plan)}"]
    return lines + [f"note: {note}" for note in plan["notes"]]


def _rank_lines(plan: Mapping[str, Any], ranks: Sequence[RankPlan]) -> Iterator[str]:
    """Yield the groups of each axis, and a row for all ranks that are alike."""
    axes = [axis for axis, degree in plan["degrees"].items() if degree > 1]
    for axis in axes:
        groups = sorted({rank.share.groups[axis] for rank in ranks})
        more = f" and {len(groups) - GROUPS} more" if len(groups) > GROUPS else ""
        stage = f" (stage {plan['sharding_stage']})" if axis == "sharding" else ""
        yield f"{axis} {plan['degrees'][axis]}{stage}: ranks {' | '.join(map(spans, groups[:GROUPS]))}{more}"
    yield ""
    sends = any(rank.traffic for rank in ranks)
    rows = [["ranks", *axes, "layers", "of the parameters", "peak GB", *(["sends GB a step"] if sends else [])]]
    alike: dict[tuple[Any, ...], list[RankPlan]] = {}
    for rank in ranks:
        alike.setdefault(rank.alike, []).append(rank)
    for some in alike.values():
        places = [spans(sorted({rank.share.coordinates[axis] for rank in some})) for axis in axes]
        first = max(some, key=lambda rank: rank.peak.total)
        rows.append([
            spans([rank.share.rank for rank in some]), *places, spans(first.share.blocks),
            f"{first.parameter_share:.1%}", f"{first.peak.total / 1e9:.2f}",
            *([f"{first.sent / 1e9:.3f}"] if sends else []),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _memory_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    where = f" of rank {plan['peak_rank']}" if plan["processes"] > 1 else ""
    yield f"Peak memory{where}, during {plan['peak_phase']}, in GB"
    memory = [(f"  {name}", gigabytes(size)) for name, size in plan["memory_parts"].items() if size]
    memory.append(("  together", gigabytes(plan["peak_memory_bytes"])))
    here = plan["processes_here"]
    if here > 1:
        memory.append((f"  at most, for {here} processes", gigabytes(here * plan["peak_memory_bytes"])))
    if plan["machine_memory_bytes"]:
        memory.append(("  this machine has", gigabytes(plan["machine_memory_bytes"])))
    yield from aligned(memory)


def _traffic_lines(rank: RankPlan) -> Iterator[str]:
    """Yield what a rank gives to each kind of call in a step."""
    yield f"What rank {rank.share.rank} sends in a step, in GB"
    rows = []
    for one in rank.traffic:
        rows.append((f"  {one.axes}, {one.operation}", f"{gigabytes(one.size, 3)} in {_counted(one.calls, 'call')}"))
    yield from aligned(rows)


def _training_facts(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    steps = plan["steps"]
    tokens = plan["tokens_per_step"]
    amount = f"{steps:,}, {steps * tokens:,} tokens" if steps else f"{plan['epochs']:g} epochs of the data"
    seconds = plan["seconds_per_step"]
    whole = f", {spell(plan['seconds'])} in all" if steps else ""
    speed = f"{plan['share_of_machine']:.0%} of the {plan['machine_gflops']:.0f} GFLOP/s that this machine makes now"
    return [
        ("a step", f"{tokens:,} tokens"),
        ("steps", amount),
        ("time", f"about {spell(seconds)} a step{whole}, at {speed}"),
    ]


def _advice(plan: Mapping[str, Any]) -> str:
    if plan["peak_phase"] == "the rehearsal of saving":
        return "Use --save_rehearsal false, or a smaller model."
    if "steps" in plan:
        return "Use --recompute, a smaller --per_device_train_batch_size or --max_length, or a smaller model."
    return "Use a smaller model."


def spans(numbers: Iterable[int]) -> str:
    """Return ascending numbers in short: ``0-3, 8``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def gigabytes(size: int, digits: int = 2) -> str:
    """Return bytes as GB, right-aligned under each other."""
    return f"{size / 1e9:8.{digits}f}"


def spell(seconds: float) -> str:
    """Return a duration in the unit that people use for it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"


def _counted(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{plural if number != 1 else ''}"
