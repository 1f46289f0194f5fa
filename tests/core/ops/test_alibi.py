from __future__ import annotations

import numpy as np
import pytest
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from llm_run.core.ops import alibi_slopes


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 32, 40])
def test_slopes_equal_those_of_transformers_bloom(heads):
    import torch

    bias = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
    np.testing.assert_allclose(alibi_slopes(heads), bias[:, 0, 1].numpy(), rtol=1e-6)


def test_slopes_of_eight_heads_are_those_of_the_paper():
    np.testing.assert_array_equal(alibi_slopes(8), 0.5 ** np.arange(1, 9, dtype=np.float32))
