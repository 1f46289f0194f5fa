from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.collate import collate
from llm_run.core.errors import DataError
from llm_run.core.trainer.inputs import to_inputs


def test_one_sample_a_row_needs_no_mask_and_packed_rows_do(model_config: Any, rows: Any) -> None:
    batch = collate([rows(ragged=True).sample(k) for k in range(4)], model_config, 0)
    assert to_inputs(batch, model_config).mask.segments_BT is None
    packed = replace(batch, segments_BS=batch.segments_BS * np.array([[1], [1], [1], [2]], np.int32))
    mask = to_inputs(packed, model_config).mask
    np.testing.assert_array_equal(mask.segments_BT.numpy(), packed.segments_BS)
    assert mask.prefix_BT is None


def test_the_prefix_is_given_to_prefix_language_models_only(
    model_config: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate([rows(prompt=3).sample(0)], model_config, 0)
    monkeypatch.setattr(type(model_config), "prefix_lm", True)
    mask = to_inputs(batch, model_config).mask
    np.testing.assert_array_equal(mask.prefix_BT.numpy(), batch.prefix_BS)
    np.testing.assert_array_equal(mask.segments_BT.numpy(), batch.segments_BS)


def test_a_token_outside_the_vocabulary_is_refused(model_config: Any, rows: Any) -> None:
    batch = collate([rows(vocab_size=10_000).sample(0)], model_config, 0)
    highest = max(batch.ids_BS.max(), batch.labels_BS.max())
    with pytest.raises(DataError) as caught:
        to_inputs(batch, model_config)
    assert str(caught.value) == (
        f"token id {highest}: is outside the model's vocabulary (vocab_size 512). "
        "The data was made with another tokenizer."
    )
