from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_run.core.engine.decode import generate, stream
from llm_run.core.engine.request import Request, TokenEvent
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.errors import LlmRunError, RefusedError

RANDOM = np.random.default_rng(4)
PROMPTS = [RANDOM.integers(3, 96, size=size).tolist() for size in (5, 9, 3, 17, 1, 40)]
GREEDY = SamplingSettings(max_new_tokens=24, stop_ids=(2, 7))


def ids(completions: list[Any]) -> list[list[int]]:
    return [completion.ids for completion in completions]


def test_greedy_search_equals_transformers(llama: Any, reference: Any) -> None:
    expected = [reference.answer(prompt, max_new_tokens=24, eos_token_id=[2, 7]) for prompt in PROMPTS]
    assert ids(generate(llama, PROMPTS, GREEDY)) == expected
    assert len({len(answer) for answer in expected}) > 1, "the answers should not all have one length"


def test_greedy_search_with_penalty_and_shortest_length_equals_transformers(llama: Any, reference: Any) -> None:
    settings = SamplingSettings(max_new_tokens=24, min_new_tokens=15, repetition_penalty=1.3, stop_ids=(2, 7))
    how = {"max_new_tokens": 24, "min_new_tokens": 15, "repetition_penalty": 1.3, "eos_token_id": [2, 7]}
    assert ids(generate(llama, PROMPTS, settings)) == [reference.answer(prompt, **how) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        SamplingSettings(strategy="sampling", temperature=1.3, top_p=0.9, max_new_tokens=24, stop_ids=(2, 7), seed=5),
    ],
    ids=["greedy_search", "sampling"],
)
def test_a_batch_gives_what_each_prompt_alone_gives(llama: Any, settings: SamplingSettings) -> None:
    # 25 random batches: sizes, lengths and mates differ.
    random = np.random.default_rng(11)
    alone = {}
    for _ in range(25):
        chosen = random.choice(len(PROMPTS), size=random.integers(1, 6), replace=False).tolist()
        batch = generate(llama, [PROMPTS[number] for number in chosen], settings, numbers=chosen)
        for number, completion in zip(chosen, batch, strict=True):
            if number not in alone:
                alone[number] = generate(llama, [PROMPTS[number]], settings, numbers=[number])[0].ids
            assert completion.ids == alone[number]


def test_each_prompt_of_a_batch_may_have_settings_of_its_own(llama: Any) -> None:
    chosen = [
        GREEDY,
        SamplingSettings(strategy="sampling", max_new_tokens=6, seed=1),
        SamplingSettings(max_new_tokens=3),
    ]
    batch = generate(llama, PROMPTS[:3], chosen)
    singles = [generate(llama, [PROMPTS[at]], chosen[at], numbers=[at])[0] for at in range(3)]
    assert ids(batch) == ids(singles)
    assert len(batch[2].ids) == 3


def test_equal_prompts_with_other_numbers_draw_other_answers(llama: Any) -> None:
    settings = SamplingSettings(strategy="sampling", temperature=2.0, max_new_tokens=20)
    first, second = generate(llama, [PROMPTS[0], PROMPTS[0]], settings)
    assert first.ids != second.ids


def test_the_events_of_a_stream_make_the_completions(llama: Any) -> None:
    events: list[TokenEvent] = []
    completions = generate(llama, PROMPTS, GREEDY, on_token=events.append)
    assert ids(completions) == [[event.token for event in events if event.index == at] for at in range(len(PROMPTS))]
    last = [event.finish_reason for event in events if event.finish_reason is not None]
    assert sorted(last) == sorted(completion.finish_reason for completion in completions)


def test_a_stop_token_ends_an_answer_and_is_counted(llama: Any) -> None:
    for prompt, completion in zip(PROMPTS, generate(llama, PROMPTS, GREEDY), strict=True):
        assert completion.num_prompt_tokens == len(prompt)
        is_stopped = completion.ids[-1] in (2, 7)
        assert completion.finish_reason == ("stop" if is_stopped else "length")
        assert is_stopped or len(completion.ids) == 24
        assert not {2, 7} & set(completion.ids[:-1])


def test_generation_can_be_cancelled_after_any_token(llama: Any) -> None:
    events = stream(llama, [Request(prompt=PROMPTS[0], settings=GREEDY)])
    next(events)
    events.close()
    assert list(events) == []


def test_an_answer_ends_with_the_positions_of_the_model(llama: Any) -> None:
    completion = generate(llama, [[5] * 120], SamplingSettings(max_new_tokens=50))[0]
    assert len(completion.ids) == 128 - 120 and completion.finish_reason == "length"


def test_a_prompt_that_fills_the_model_is_refused(llama: Any) -> None:
    with pytest.raises(RefusedError) as caught:
        generate(llama, [[5] * 128], GREEDY)
    assert str(caught.value) == (
        "prompt: 128 tokens leave no room for an answer in the model's 128 positions. "
        "Shorten it, or give --src_length 127 or less."
    )


def test_an_empty_prompt_is_refused(llama: Any) -> None:
    with pytest.raises(RefusedError, match=r"prompt: is empty\. Give at least one token\."):
        generate(llama, [[4], []], GREEDY)


def test_a_model_that_returns_nan_is_reported(llama: Any) -> None:
    weight = llama.norm.weight
    before = weight.numpy().copy()
    try:
        weight.set_value(before * np.nan)
        with pytest.raises(LlmRunError, match="the model's logits hold NaN or infinity"):
            generate(llama, [PROMPTS[0]], GREEDY)
    finally:
        weight.set_value(before)


def test_generating_leaves_a_model_in_training_and_records_no_gradients(llama: Any) -> None:
    llama.train()
    try:
        assert ids(generate(llama, PROMPTS[:2], GREEDY)) == ids(generate(llama, PROMPTS[:2], GREEDY))
        assert llama.training and all(parameter.grad is None for parameter in llama.parameters())
    finally:
        llama.eval()


def test_no_prompts_give_no_answers(llama: Any) -> None:
    assert generate(llama, [], GREEDY) == []
    assert generate(llama, [], SamplingSettings(strategy="beam_search", num_beams=2)) == []
