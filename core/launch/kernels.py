"""What the user says about fused operators, passed on to the table that chooses them."""

from __future__ import annotations

import logging

from ..config.groups import ModelOptions
from ..errors import RefusedError

log = logging.getLogger("llm_run.launch")


def apply_preferences(model: ModelOptions) -> None:
    """Set the variants that ``use_flash_attention`` and its like ask for.

    ``true`` where there is no fused variant is a warning and not an error: the seed's argument files say true
    everywhere, and the plain operator gives the same numbers.
    """
    from ..ops.select import fused, prefer

    asked = {
        "attention": ("use_flash_attention", model.use_flash_attention),
        "norm": ("use_fused_rms_norm", model.use_fused_rms_norm),
        "rotary": ("use_fused_rope", model.use_fused_rope),
    }
    for op, (name, value) in asked.items():
        if value is None:
            continue
        try:
            prefer(op, fused() if value else "plain")
        except RefusedError as error:
            log.warning("%s: %s; the plain operator runs instead", name, error.problems[0].reason)
