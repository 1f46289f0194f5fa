from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.engine.setup import load_text_format, load_text_model
from llm_run.core.errors import RefusedError


def copied(source: Path, target: Path) -> Path:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_the_tokens_that_end_a_turn_come_from_tokenizer_and_generation_config(
    prepared: Callable[..., Any], chat_directory: Path, byte_level_tokenizer: Any, tmp_path: Path
) -> None:
    directory = copied(chat_directory, tmp_path)
    end, user = (byte_level_tokenizer.token_id(token) for token in ("<|end|>", "<|user|>"))
    assert load_text_format(prepared("chat", tokenizer_name_or_path=directory)).settings.stop_ids == (end,)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, user]}))
    found = load_text_format(prepared("chat", tokenizer_name_or_path=directory)).settings.stop_ids
    assert found == tuple(sorted((end, user)))


def test_the_stop_tokens_of_the_template_end_a_turn(
    prepared: Callable[..., Any], tokenizer_directory: Path, byte_level_tokenizer: Any, tmp_path: Path
) -> None:
    # A seed-style template ends every answer with a token that the tokenizer does not call an end.
    path = tmp_path / "chat_template.json"
    path.write_text(json.dumps({"query": "{{query}}", "conversation": ["{{user}}", "{{bot}}<|system|>"]}))
    run = prepared("chat", tokenizer_name_or_path=tokenizer_directory, chat_template=path)
    text = load_text_format(run)
    assert text.template is not None
    ends = {byte_level_tokenizer.token_id(token) for token in text.template.stop}
    assert ends and ends <= set(text.settings.stop_ids)


def test_a_tokenizer_larger_than_the_model_is_refused(prepared: Callable[..., Any], shared: Path) -> None:
    place = shared / "tokenizers" / "llama"
    with pytest.raises(RefusedError) as caught:
        load_text_format(prepared("chat", tokenizer_name_or_path=place))
    assert str(caught.value) == (
        f"--tokenizer_name_or_path: {place} has 32000 tokens, more than the 512 of the model. "
        "Give the tokenizer that the model was trained with."
    )


def test_a_random_model_depends_on_the_seed(prepared: Callable[..., Any], chat_directory: Path) -> None:
    models = [load_text_model(prepared("chat", tokenizer_name_or_path=chat_directory, seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (next(iter(model.parameters())).numpy() for model in models)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_model_from_a_directory_has_its_weights_and_is_ready_to_generate(
    prepared: Callable[..., Any], reference: Any
) -> None:
    model = load_text_model(prepared("chat", model_name_or_path=reference.directory))
    expected = reference.model.model.embed_tokens.weight.detach().numpy()
    np.testing.assert_array_equal(next(iter(model.parameters())).numpy(), expected)
    assert not model.training
