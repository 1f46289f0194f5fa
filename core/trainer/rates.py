"""Which parameters learn at a rate of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..adapters.training import adapter_rates
from ..convert.logical import parameters
from ..errors import Problem, RefusedError

if TYPE_CHECKING:
    from .job import Job


def lr_scales(job: Job) -> dict[str, float]:
    """Return factors on the learning rate by parameter name; one that is not named has 1.

    A row of the embedding has a gradient only where its token occurs. Adam moves it by about the learning rate each
    time, so that in a short run rows of rare tokens hardly leave their random values, unless they move further.

    Raises:
        RefusedError: a rate of the embedding or of the head is asked for and the family does not say where they are,
            or ``learning_rate`` is 0.

    Source: Yang et al. 2022, arXiv:2203.03466, table 3 (the embedding's rate does not shrink with the width).
    """
    asked = {"embed": job.options.embedding_learning_rate, "head": job.options.head_learning_rate}
    rates = {piece: rate for piece, rate in asked.items() if rate is not None}
    if job.adapter is not None:
        return adapter_rates(job.model, job.run.config.adapter.loraplus_lr_ratio)
    if not rates:
        return {}
    if job.options.learning_rate == 0:
        raise RefusedError(Problem("--learning_rate", "0", "leaves no rate that embeddings could learn faster than"))
    pieces = job.run.family.pipeline_split(job.config)
    if pieces is None:
        key = "--embedding_learning_rate" if "embed" in rates else "--head_learning_rate"
        reason = f"cannot be set: family {job.run.family.card.name} does not say which parameters these are"
        raise RefusedError(Problem(key, str(next(iter(rates.values()))), reason, "Leave it out."))
    prefixes = {prefix: rates[piece.name] for piece in pieces if piece.name in rates for prefix in piece.parameters}
    return {
        name: rate / job.options.learning_rate
        for name in parameters(job.model)
        for prefix, rate in prefixes.items()
        if name.startswith(prefix)
    }
