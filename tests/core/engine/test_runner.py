"""A prefix language model with two-dimensional positions, which no llama is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import BlockContext, CausalLM
from llm_run.core.engine.decode import generate
from llm_run.core.engine.runner import BatchRunner
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.ops import attention
from llm_run.core.registry.facts import ModelConfig

V, H = 40, 8


@dataclass(frozen=True, kw_only=True)
class PrefixConfig(ModelConfig):
    prefix_lm: ClassVar[bool] = True

    @classmethod
    def from_fields(cls, fields: Any) -> Any:
        raise NotImplementedError

    def to_fields(self) -> dict[str, Any]:
        raise NotImplementedError

    def positions(self, ids_BS: Any, segments_BS: Any, prefix_BS: Any) -> Any:
        """Positions of the prompt in the first row, of the answer in the second, as GLM numbers them."""
        real, answer = segments_BS > 0, (segments_BS > 0) & ~prefix_BS
        place = np.cumsum(real & prefix_BS, axis=1) - 1
        return np.stack([np.where(real, place, 0), np.cumsum(answer, axis=1)], axis=1).astype(np.int64)


class PrefixBlock(paddle.nn.Layer):  # type: ignore[misc]
    def forward(self, hidden_BSH: Any, context: BlockContext, cache: Any) -> Any:
        x_BSND = hidden_BSH.reshape([*hidden_BSH.shape[:2], 2, H // 2])
        keys, values = (x_BSND, x_BSND) if cache is None else cache.extend(x_BSND, x_BSND)
        return hidden_BSH + attention(x_BSND, keys, values, context.mask).flatten(2)


class PrefixModel(CausalLM):
    def __init__(self) -> None:
        super().__init__()
        self.config = PrefixConfig(
            vocab_size=V, hidden_size=H, num_layers=1, num_heads=2, num_kv_heads=2, head_dim=H // 2, ffn_size=1,
            max_positions=64,
        )  # fmt: skip
        normal = paddle.nn.initializer.Normal(std=1.0)
        self.tables = paddle.nn.LayerList([paddle.nn.Embedding(size, H, weight_attr=normal) for size in (V, 64, 64)])
        self.blocks = paddle.nn.LayerList([PrefixBlock()])

    def embed(self, input_ids_BS: Any, positions: Any) -> Any:
        return self.tables[0](input_ids_BS) + self.tables[1](positions[:, 0]) + self.tables[2](positions[:, 1])

    def context(self, positions: Any, mask: Any) -> BlockContext:
        return BlockContext(mask)

    def finish(self, hidden_BSH: Any) -> Any:
        return hidden_BSH

    def head(self, hidden_BSH: Any) -> Any:
        return paddle.matmul(hidden_BSH, self.tables[0].weight, transpose_y=True)


@pytest.fixture(scope="module")
def model() -> PrefixModel:
    paddle.seed(3)
    return PrefixModel()


PROMPTS = [[3, 9, 12, 4, 30], [7, 2], [11, 5, 8]]


def test_a_batch_of_a_prefix_language_model_gives_what_each_prompt_alone_gives(model: PrefixModel) -> None:
    settings = SamplingSettings(strategy="sampling", max_new_tokens=10, seed=2)
    batch = generate(model, PROMPTS, settings)
    singles = [generate(model, [prompt], settings, numbers=[at])[0] for at, prompt in enumerate(PROMPTS)]
    assert [one.ids for one in batch] == [one.ids for one in singles]


def test_each_step_gives_the_logits_of_running_the_whole_text_at_once(model: PrefixModel) -> None:
    # The whole text in one pass, with the prompt as prefix: the definition that the cache must not change.
    from llm_run.core.ops import AttentionMask

    runner = BatchRunner(model, PROMPTS)
    runner.prefill()
    answer = [[6, 1, 19], [20, 21, 22], [0, 0, 5]]
    steps = [runner.step([row[at] for row in answer]) for at in range(3)]
    for row, prompt in enumerate(PROMPTS):
        ids = np.array([prompt + answer[row]])
        prefix = np.arange(ids.shape[1])[None] < len(prompt)
        positions = model.config.positions(ids, np.ones_like(ids), prefix)
        mask = AttentionMask(prefix_BT=paddle.to_tensor(prefix))
        logits = model.head(model(paddle.to_tensor(ids), paddle.to_tensor(positions), mask)).numpy()[0]
        for at, step in enumerate(steps):
            np.testing.assert_allclose(step.numpy()[row], logits[len(prompt) + at], atol=1e-5)


def test_dropped_and_repeated_rows_go_on_where_they_were(model: PrefixModel) -> None:
    runner, alone = BatchRunner(model, PROMPTS), BatchRunner(model, [PROMPTS[2]])
    for one in (runner, alone):
        one.prefill()
    runner.select([2, 0, 2])
    logits, expected = runner.step([4, 4, 6]).numpy(), alone.step([6]).numpy()
    np.testing.assert_allclose(logits[2], expected[0], atol=1e-5)
    assert np.abs(logits[0] - logits[2]).max() > 0.1
