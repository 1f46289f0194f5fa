from __future__ import annotations

import pytest

from llm_run.core.serve.errors import ApiError
from llm_run.core.serve.schema import read_chat, read_text
from llm_run.core.serve.seed_chat import read_seed_chat

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields):
    return read_chat({"messages": HELLO, **fields})


def test_the_newer_name_of_the_length_wins():
    assert chat(max_tokens=5, max_completion_tokens=7).wanted.max_tokens == 7
    assert chat(max_tokens=5).wanted.max_tokens == 5
    assert chat().wanted.max_tokens is None


def test_a_message_may_be_a_list_of_text_parts_and_developer_is_system():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = read_chat({"messages": [{"role": "developer", "content": parts}, *HELLO]})
    assert asked.messages[0] == {"role": "system", "content": "ab"}


@pytest.mark.parametrize(
    "fields",
    [{"messages": []}, {"messages": "hi"}, {"messages": [1]}, {"messages": [{"role": "king", "content": "x"}]},
     {"messages": [{"role": "user"}]}, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
     {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
     {"messages": HELLO * 1025}, {"n": 0}, {"n": 10**6}, {"n": True}, {"temperature": 2.5}, {"top_p": -1},
     {"stop": ["x"] * 17}, {"logit_bias": {"a": 1}}, {"logit_bias": {"1": 101}}, {"logit_bias": {"-1": 1}},
     {"logit_bias": {str(i): 1 for i in range(1025)}}, {"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 21},
     {"stream_options": 1}, {"seed": "x"}, {"max_tokens": 0}, {"presence_penalty": 3}],
)  # fmt: skip
def test_bad_chat_requests_are_refused(fields):
    with pytest.raises(ApiError) as refused:
        chat(**fields)
    assert refused.value.status == 400
    assert refused.value.param


@pytest.mark.parametrize(
    "fields",
    [{"tools": [{"type": "function"}]}, {"tool_choice": "required"}, {"response_format": {"type": "json_object"}},
     {"audio": {}}, {"modalities": ["text", "audio"]}, {"functions": [{}]}, {"store": True},
     {"chat_template": "{{ messages }}"}, {"chat_template_kwargs": {"a": 1}}],
)  # fmt: skip
def test_known_fields_that_are_not_served_are_refused_not_ignored(fields):
    with pytest.raises(ApiError, match="is not supported by this server"):
        chat(**fields)


def test_unknown_fields_and_harmless_values_are_ignored():
    asked = chat(user="u", metadata={"a": 1}, port=1, tools=None, tool_choice="none", response_format={"type": "text"})
    assert asked.messages[0]["content"] == "hello"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ([1, 2],)), ([[1, 2], [3]], ([1, 2], [3]))],
)
def test_a_prompt_comes_in_four_shapes(prompt, expected):
    assert read_text({"prompt": prompt}).prompts == expected


@pytest.mark.parametrize(
    "fields",
    [{}, {"prompt": None}, {"prompt": [[]]}, {"prompt": [True]}, {"prompt": [["a"]]}, {"prompt": {}},
     {"prompt": ["a"] * 65}, {"prompt": "a", "best_of": 2}, {"prompt": "a", "suffix": "z"},
     {"prompt": "a", "max_tokens": 0}, {"prompt": ["a"] * 40, "n": 2}, {"prompt": "a", "logprobs": True}],
)  # fmt: skip
def test_bad_text_requests_are_refused(fields):
    with pytest.raises(ApiError):
        read_text(fields)


def test_a_scorer_s_request_is_read():
    asked = read_text(
        {"prompt": [[5, 6, 7]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    )
    assert asked.prompts == ([5, 6, 7],)
    assert (asked.echo, asked.wanted.top_logprobs, asked.wanted.seed) == (True, 1, 1234)


def test_streamed_usage_is_asked_for_in_stream_options():
    assert chat(stream=True, stream_options={"include_usage": True}).wanted.include_usage
    assert not chat(stream_options={"include_usage": True}).wanted.include_usage


def test_the_predecessor_s_request_is_read_and_its_current_turn_is_not_doubled():
    history = '[{"role": "user", "utterance": "a"}, {"role": "bot", "utterance": "b"}, ' \
              '{"role": "user", "utterance": "c"}, {"role": "bot", "utterance": ""}]'  # fmt: skip
    asked = read_seed_chat({"context": "c", "history": history, "top_k": 5, "max_length": 9, "extra_info": "x"})
    assert [(m["role"], m["content"]) for m in asked.messages] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert (asked.wanted.top_k, asked.wanted.max_tokens) == (5, 9)


@pytest.mark.parametrize(
    "fields", [{}, {"context": 1}, {"context": "a", "history": "nonsense"}, {"context": "a", "history": [1]},
               {"context": "a", "history": [{"role": ["x"], "utterance": "a"}]}, {"context": "a", "top_k": "5"}],
)  # fmt: skip
def test_a_malformed_request_of_the_predecessor_s_clients_is_refused(fields):
    with pytest.raises(ApiError) as refused:
        read_seed_chat(fields)
    assert refused.value.status == 400
