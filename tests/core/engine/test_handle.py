"""What comes out of a handle, whoever takes it and whenever the engine lays it down."""

from __future__ import annotations

import sys
import threading

import pytest

from llm_run.core.engine.handle import Handle
from llm_run.core.engine.request import TokenEvent
from llm_run.core.errors import LlmRunError


def event(token: int, *, is_last: bool = False) -> TokenEvent:
    return TokenEvent(0, token, "", "length" if is_last else None)


@pytest.fixture
def often():
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def lay_down(handle: Handle, count: int, failure: LlmRunError | None = None) -> threading.Thread:
    """Begin to do what the engine does."""

    def engine() -> None:
        for token in range(count):
            handle.put(event(token, is_last=failure is None and token == count - 1))
            handle.wake()
        if failure is not None:
            handle.fail(failure)

    thread = threading.Thread(target=engine)
    thread.start()
    return thread


def test_every_event_comes_once_and_in_order_while_others_are_laid_down(often):
    """Taken without waiting for a call, so that the two threads are at it at the same time."""
    for _ in range(5):
        handle, found = Handle(1), []
        thread = lay_down(handle, 5000)
        while thread.is_alive():
            found += handle.take()
        found += handle.take()
        assert [one.token for one in found] == list(range(5000))


def test_what_came_before_a_failure_is_taken_before_it_is_raised(often):
    for _ in range(300):
        handle, found = Handle(1), []
        thread = lay_down(handle, 30, LlmRunError("broken"))
        with pytest.raises(LlmRunError, match="broken"):
            while thread.is_alive():
                found += handle.take()
            found += handle.take()  # all that came before the failure, which is next
            handle.take()
        thread.join()
        assert [one.token for one in found] == list(range(30))


def test_iterating_waits_for_the_events_up_to_the_last(often):
    handle = Handle(1)
    thread = lay_down(handle, 500)
    assert [one.token for one in handle] == list(range(500))
    thread.join()
    assert handle.take() == [] and handle.is_finished


def test_who_asks_to_be_told_late_is_told_at_once():
    calls, handle = [], Handle(1)
    handle.notify(lambda: calls.append("nothing yet"))
    assert calls == []
    handle.put(event(1))
    handle.notify(lambda: calls.append("an event"))
    assert calls == ["an event"]
    handle.take()
    handle.fail(LlmRunError("broken"))
    assert calls == ["an event", "an event"]


def test_nothing_is_told_of_an_event_before_the_engine_wakes():
    calls, handle = [], Handle(1)
    handle.notify(lambda: calls.append("told"))
    handle.put(event(1))
    assert calls == []
    handle.wake()
    assert calls == ["told"]


def test_a_finished_request_does_not_fail_any_more():
    handle = Handle(1)
    handle.put(event(1, is_last=True))
    handle.fail(LlmRunError("too late"))
    assert [one.token for one in handle.take()] == [1]
    assert handle.take() == []
