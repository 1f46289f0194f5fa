from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_run.core.engine.stream import Detokenizer, StopStrings, TextStream

TEXTS = st.text(alphabet=st.sampled_from("ab .,\n\t  中文日é🙂👩‍🚀ñ\u0301ß"), max_size=40)
CALM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


@pytest.fixture(scope="session", params=["sentencepiece_tokenizer", "byte_level_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@CALM
@given(text=TEXTS)
def test_the_pieces_of_an_encoded_text_make_the_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@CALM
@given(data=st.data())
def test_the_pieces_of_any_tokens_make_what_decoding_all_of_them_gives(tokenizer: Any, data: st.DataObject) -> None:
    # A sampled answer may hold bytes that are no character, and special tokens anywhere.
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@CALM
@given(text=TEXTS)
def test_no_piece_of_a_text_holds_half_a_character(tokenizer: Any, text: str) -> None:
    assert all("\ufffd" not in piece for piece in pieces(tokenizer, tokenizer.encode(text)))


@pytest.mark.parametrize("name", ["llama", "chatglm2", "baichuan"])
def test_published_sentencepiece_models_stream_what_they_decode(shared: Any, name: str) -> None:
    from llm_run.core.data.tokenizers import SentencePieceTokenizer

    facts = None
    if name != "llama":
        from llm_run.core.data.tokenizers import TokenFacts

        facts = TokenFacts(eos="</s>")
    published = SentencePieceTokenizer(shared / "tokenizers" / name / "tokenizer.model", facts=facts)
    text = "  Two spaces, a 🙂, 春江潮水连海平, and\n\n\ttabs; naïve façade.  "
    ids = published.encode(text)
    assert "".join(pieces(published, ids)) == published.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces(published, ids))


def test_a_character_is_shown_with_the_token_that_completes_it(byte_level_tokenizer: Any) -> None:
    ids = byte_level_tokenizer.encode("🙂")
    assert len(ids) > 1
    assert pieces(byte_level_tokenizer, ids) == [""] * (len(ids) - 1) + ["🙂", ""]


def test_bytes_that_never_become_a_character_are_shown_at_the_end(byte_level_tokenizer: Any) -> None:
    ids = byte_level_tokenizer.encode("a🙂")[:-1]
    shown = pieces(byte_level_tokenizer, ids)
    assert shown[0] == "a" and shown[1:-1] == [""] * (len(ids) - 1)
    assert shown[-1] == "\ufffd"


@CALM
@given(
    data=st.data(), stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), text=st.text("abc", max_size=30)
)
def test_a_text_ends_before_its_first_stop_string_however_it_is_split(
    data: st.DataObject, stop: list[str], text: str
) -> None:
    # Whichever stop string is complete first ends the text; of several complete at once, the one that starts first.
    end = next((end for end in range(len(text) + 1) if any(text[:end].endswith(word) for word in stop)), None)
    filter_ = StopStrings(stop)
    shown = ""
    for character in text:
        shown += filter_.push(character)
    shown += filter_.finish()
    if end is None:
        assert shown == text and not filter_.found
    else:
        assert shown == text[: min(text[:end].find(word) for word in stop if word in text[:end])] and filter_.found


@CALM
@given(stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), text=st.text("abc", max_size=30))
def test_no_beginning_of_a_stop_string_is_shown_before_it_is_decided(stop: list[str], text: str) -> None:
    filter_ = StopStrings(stop)
    shown = ""
    for end, character in enumerate(text, start=1):
        shown += filter_.push(character)
        if filter_.found:
            break
        held = text[len(shown) : end]
        assert held == "" or any(word.startswith(held) for word in stop)
        assert not any(shown.endswith(word[:size]) for word in stop for size in range(1, len(word) + 1) if held == "")


def test_text_after_a_stop_string_is_dropped() -> None:
    filter_ = StopStrings(["END"])
    assert [filter_.push("one E"), filter_.push("N"), filter_.push("D two"), filter_.push("three")] == [
        "one ",
        "",
        "",
        "",
    ]
    assert filter_.finish() == ""


def test_a_stop_string_that_begins_and_breaks_off_is_shown() -> None:
    filter_ = StopStrings(["END"])
    assert [filter_.push("E"), filter_.push("N"), filter_.push("D"[:0] + "T")] == ["", "", "ENT"]


def test_a_stop_string_spread_over_tokens_is_never_shown(byte_level_tokenizer: Any) -> None:
    ids = byte_level_tokenizer.encode("The park. 中文 and more")
    text = TextStream(byte_level_tokenizer, ["中文"])
    shown = "".join(map(text.push, ids)) + text.finish()
    assert shown == "The park. " and text.is_stopped


def test_without_a_tokenizer_there_is_no_text() -> None:
    text = TextStream(None, [])
    assert text.push(5) == "" and text.finish() == ""
