"""The API, driven by the real ``openai`` package."""

from __future__ import annotations

import json
import threading

import httpx
import openai
import pytest

from llm_run.core.engine.decode import generate
from llm_run.core.engine.settings import SamplingSettings

from .conftest import HELLO, chat, client


def test_the_models_are_listed_and_found(api):
    assert [card.id for card in api.models.list()] == ["tiny"]
    assert api.models.retrieve("tiny").owned_by == "llm-run"
    with pytest.raises(openai.NotFoundError) as missing:
        api.models.retrieve("huge")
    assert missing.value.code == "model_not_found"


def test_a_chat_is_answered_with_usage(api, served, model, tokenizer):
    reply = chat(api, temperature=0)
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    prompt = served.service.prompting.of_chat(HELLO)
    settings = SamplingSettings(max_new_tokens=12, stop_ids=(tokenizer.eos_id,))
    expected = generate(model, [prompt], settings, tokenizer=tokenizer)[0]
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == expected.finish_reason
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(prompt), len(expected.ids))
    assert reply.usage.total_tokens == len(prompt) + len(expected.ids)


def test_a_stream_joins_to_the_answer_and_ends_with_reason_and_usage(api):
    whole = chat(api, temperature=0)
    chunks = list(chat(api, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
    )
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_choices_differ_and_a_seed_repeats_them(api):
    def texts(seed):
        return [c.message.content for c in chat(api, n=4, seed=seed, temperature=1.5).choices]

    first = texts(7)
    assert len(set(first)) > 1
    assert texts(7) == first and texts(8) != first


def test_log_probabilities_come_with_their_alternatives(api):
    content = chat(api, temperature=0, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(content) == 12
    for entry in content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob)
        assert entry.logprob <= 0


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(api):
    text = chat(api, temperature=0).choices[0].message.content
    stop = text[3:5]
    reply = chat(api, temperature=0, stop=[stop])
    assert reply.choices[0].message.content == text[: text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    streamed = "".join(c.choices[0].delta.content or "" for c in chat(api, temperature=0, stop=stop, stream=True))
    assert streamed == text[: text.index(stop)]


def test_a_bias_and_ignored_fields(api, tokenizer):
    token = tokenizer.encode("7")[0]
    reply = chat(api, logit_bias={str(token): 100}, user="somebody", extra_body={"port": 1, "top_k": 5, "min_p": 0.1})
    assert set(reply.choices[0].message.content) == {"7"}


def test_text_completions_take_texts_and_tokens(api, tokenizer):
    texts = ["1 and 2", "3 and 4"]
    tokens = [tokenizer.prompt(tokenizer.encode(text)) for text in texts]
    one, two = (
        api.completions.create(model="tiny", prompt=prompt, max_tokens=6, temperature=0) for prompt in (texts, tokens)
    )
    assert [c.index for c in one.choices] == [0, 1]
    assert [c.text for c in one.choices] == [c.text for c in two.choices]
    streamed = api.completions.create(model="tiny", prompt=texts[0], max_tokens=6, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == one.choices[0].text


def test_a_scorer_gets_the_log_probabilities_of_its_prompt(api, model, tokenizer):
    ids = tokenizer.prompt(tokenizer.encode("12 and 13 make 25."))
    reply = api.completions.create(model="tiny", prompt=[ids], max_tokens=1, temperature=0, logprobs=1, echo=True)
    told = reply.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(ids) + 1
    assert told.token_logprobs[0] is None and all(value <= 0 for value in told.token_logprobs[1:])
    import numpy as np
    import paddle

    from llm_run.core.ops import AttentionMask

    with paddle.no_grad():
        hidden = model(paddle.to_tensor([ids]), paddle.arange(len(ids)).unsqueeze(0), AttentionMask())
        logits = model.head(hidden).numpy()[0].astype(np.float64)
    values = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    spellable = values[:-1, : tokenizer.vocab_size]
    expected = [values[place, ids[place + 1]] for place in range(len(ids) - 1)]
    assert told.token_logprobs[1:-1] == pytest.approx(expected, abs=1e-4)
    assert [max(top.values()) for top in told.top_logprobs[1:-1]] == pytest.approx(spellable.max(-1), abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"messages": []}, "messages"), ({"temperature": 9}, "temperature"), ({"n": 100}, "n"),
     ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
     ({"messages": [{"role": "user", "content": "x" * 3000}]}, "messages")],
)  # fmt: skip
def test_bad_requests_name_the_field(fields, param, api):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(api, **fields)
    assert refused.value.param == param
    assert refused.value.request_id
    assert "Traceback" not in str(refused.value.body)


def test_an_unknown_model_is_not_found(api):
    with pytest.raises(openai.NotFoundError):
        chat(api, model="huge")


def test_a_key_is_asked_for_everywhere_but_on_the_public_paths(guarded):
    for rule in guarded.app.url_map.iter_rules():
        path = rule.rule.replace("<path:name>", "tiny")
        for method in rule.methods & {"GET", "POST"}:
            status = httpx.request(method, guarded.url + path, json={} if method == "POST" else None).status_code
            public = path in ("/health", "/health/ready", "/metrics")
            assert (status == 401) != public, (method, path, status)
    assert httpx.get(f"{guarded.url}/nowhere").status_code == 401
    with pytest.raises(openai.AuthenticationError):
        chat(client(guarded))
    assert chat(client(guarded, key="a-key-for-the-tests-of-the-server")).choices


def test_other_sites_cannot_use_a_browser_against_the_server(served):
    body = json.dumps({"messages": HELLO})
    reply = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers={"Content-Type": "text/plain"})
    assert reply.status_code == 415
    reply = httpx.post(f"{served.url}/v1/chat/completions", json={"messages": HELLO}, headers={"Host": "evil.example"})
    assert reply.status_code == 403
    reply = httpx.get(f"{served.url}/v1/models", headers={"Origin": "http://evil.example"})
    assert not any(name.lower().startswith("access-control") for name in reply.headers)
    assert httpx.post(f"{served.url}/v1/completions", json={"prompt": "x" * 300_000}).status_code == 413


def test_the_tokenizer_is_served(served, tokenizer):
    def post(path, **body):
        return httpx.post(served.url + path, json=body).json()

    tokens = post("/tokenize", prompt="3 and 4", add_special_tokens=False)
    assert tokens["tokens"] == tokenizer.encode("3 and 4") and tokens["count"] == len(tokens["tokens"])
    assert post("/detokenize", tokens=tokens["tokens"]) == {"prompt": "3 and 4"}
    assert httpx.get(f"{served.url}/tokenizer_info").json()["eos_token"] == "</s>"
    assert post("/detokenize", tokens=[10**6])["error"]["param"] == "tokens"


def test_the_figures_have_vllm_s_names(api, served):
    chat(api, temperature=0)
    text = httpx.get(f"{served.url}/metrics").text
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total",
                 "prompt_tokens_total", "request_success_total", "time_to_first_token_seconds_bucket",
                 "e2e_request_latency_seconds_count", "prefix_cache_hits"):  # fmt: skip
        assert f"llm_run:{name}" in text
    assert 'request_success_total{finished_reason="length"} 1.0' in text


def test_the_predecessor_s_clients_keep_working(served, api):
    expected = chat(api, temperature=0, max_tokens=9).choices[0].message.content
    body = {"context": "3 and 4", "history": "[]", "top_k": 0, "top_p": 0.7, "temperature": 0, "max_length": 9,
            "repetition_penalty": 1.0, "min_length": 0}  # fmt: skip
    reply = httpx.post(f"{served.url}/api/chat", json=body)
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert all(line["error_code"] == 0 for line in lines)
    assert "".join(line["result"]["response"]["utterance"] for line in lines) == expected


def test_two_clients_keep_their_own_parameters(api):
    alone = [chat(api, temperature=0, max_tokens=n).choices[0].message.content for n in (3, 30)]
    together = [None, None]

    def ask(place, most):
        together[place] = chat(api, temperature=0, max_tokens=most).choices[0].message.content

    threads = [threading.Thread(target=ask, args=pair) for pair in ((0, 3), (1, 30))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
