from __future__ import annotations

import gc

from llm_run.core.serve.memory import keep_loaded


def test_what_is_loaded_is_not_looked_at_by_later_collections():
    before, kept = gc.get_freeze_count(), [[number] for number in range(1000)]
    try:
        keep_loaded()
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()
