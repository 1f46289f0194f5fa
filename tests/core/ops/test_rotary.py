from __future__ import annotations

import numpy as np
import paddle
import pytest
import torch
from transformers import GlmConfig, LlamaConfig
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama

from llm_run.core.ops import RotaryScaling, RotarySpec, apply_rotary, rotary_tables
from llm_run.core.ops.rotary import growing_angles
from llm_run.core.ops.rotary_spec import Kind

POSITIONS = np.array([[0, 1, 2, 3, 4], [7, 8, 0, 1, 700]])


def tables_of(spec: RotarySpec, positions: np.ndarray = POSITIONS) -> tuple[paddle.Tensor, paddle.Tensor]:
    return rotary_tables(spec, paddle.to_tensor(positions), num_tokens=int(positions.max()) + 1)


def test_half_style_equals_transformers_llama(variant, random):
    x = random(2, 5, 3, 16)
    config = LlamaConfig(hidden_size=48, num_attention_heads=3)
    tables = modeling_llama.LlamaRotaryEmbedding(config)(torch.tensor(x), torch.tensor(POSITIONS))
    expected, _ = modeling_llama.apply_rotary_pos_emb(torch.tensor(x), torch.tensor(x), *tables, unsqueeze_dim=2)
    ours = apply_rotary(paddle.to_tensor(x), tables_of(RotarySpec(16)), style="half")
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=2e-5)


def test_interleaved_style_of_a_part_equals_transformers_glm(variant, random):
    x = random(2, 5, 3, 16)
    config = GlmConfig(hidden_size=48, num_attention_heads=3, head_dim=16, rope_parameters={"rope_theta": 1e4,
                       "rope_type": "default", "partial_rotary_factor": 0.5})  # fmt: skip
    tables = modeling_glm.GlmRotaryEmbedding(config)(torch.tensor(x), torch.tensor(POSITIONS))
    expected, _ = modeling_glm.apply_rotary_pos_emb(torch.tensor(x), torch.tensor(x), *tables, unsqueeze_dim=2)
    ours = apply_rotary(paddle.to_tensor(x), tables_of(RotarySpec(8)), style="interleaved")
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("style", ["half", "interleaved"])
@pytest.mark.parametrize("dim", [6, 20])
def test_gradient_is_the_rotation_back(variant, random, learnt, style, dim):
    x, dy = learnt(random(2, 5, 2, 20)), random(2, 5, 2, 20)
    tables = tables_of(RotarySpec(dim))
    apply_rotary(x, tables, style=style).backward(paddle.to_tensor(dy))
    again = apply_rotary(x.grad, tables, style=style)
    np.testing.assert_allclose(again.numpy(), dy, atol=1e-5)


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_one_row_of_positions_serves_a_whole_batch(variant, random, style):
    x = paddle.to_tensor(random(3, 5, 2, 8))
    one, all_rows = (tables_of(RotarySpec(8), np.repeat(POSITIONS[1:], rows, axis=0)) for rows in (1, 3))
    expected = apply_rotary(x, all_rows, style=style)
    np.testing.assert_allclose(apply_rotary(x, one, style=style).numpy(), expected.numpy(), atol=1e-7)


def test_scores_depend_on_distance_only(variant, random):
    q, k = random(1, 1, 1, 32), random(1, 1, 1, 32)

    def score(at_q: int, at_k: int) -> float:
        turned = [
            apply_rotary(paddle.to_tensor(x), tables_of(RotarySpec(32), np.array([[at]])), style="half").numpy()
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(5, 2) == pytest.approx(score(105, 102), abs=1e-4)
    assert score(5, 2) != pytest.approx(score(6, 2), abs=1e-2)


def test_the_attention_factor_is_in_the_tables():
    scaling = RotaryScaling(kind="yarn", factor=4.0, original_max_positions=16, attention_factor=1.5)
    cos, sin = tables_of(RotarySpec(8, scaling=scaling))
    np.testing.assert_allclose((cos.square() + sin.square()).numpy(), 2.25, rtol=1e-5)


def test_dynamic_scaling_takes_the_length_from_the_positions_where_it_is_not_given():
    spec = RotarySpec(8, scaling=RotaryScaling(kind="dynamic", factor=2.0, original_max_positions=16))
    positions = paddle.to_tensor([[0, 39]])
    for given, other in ((40, True), (10, False)):
        cos, _ = rotary_tables(spec, positions, num_tokens=given)
        assert bool((cos == rotary_tables(spec, positions)[0]).all()) == other


@pytest.mark.parametrize("kind", ["dynamic", "dynamic_pow2"])
def test_angles_that_grow_with_the_length_are_the_same_in_a_graph(kind: Kind) -> None:
    scaling = RotaryScaling(kind=kind, factor=2.0, original_max_positions=64)
    spec = RotarySpec(16, 10000.0, scaling=scaling)
    longest = [1, 63, 64, 65, 128, 129, 1000]
    expected = np.array([spec.inverse_wavelengths(length)[0] for length in longest], dtype=np.float32)
    found = growing_angles(spec, paddle.to_tensor(longest)).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-7)
