from __future__ import annotations

import threading
import time
from itertools import pairwise

from llm_run.core.serve.turns import Turns, Waiter

LONG_S, SHORT_S = 10.0, 0.05


class Reader(threading.Thread):
    """A thread that waits for its turns, and notes who was in the middle of one when it woke."""

    def __init__(self, turns: Turns, rounds: int) -> None:
        super().__init__(daemon=True)
        self.waiter = Waiter(turns)
        self.woken = 0
        self._rounds = rounds
        self.start()

    def run(self) -> None:
        for _ in range(self._rounds):
            assert self.waiter.wait(LONG_S)
            self.woken += 1


def await_that(holds, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def waits(*readers: Reader) -> bool:
    return all(reader.waiter.is_waiting for reader in readers)


def test_everybody_who_is_called_goes_on_however_few_wake_at_once():
    turns = Turns(at_once=1)
    readers = [Reader(turns, rounds=20) for _ in range(30)]
    for done in range(20):
        await_that(lambda: waits(*readers))
        for reader in readers:
            reader.waiter.call()
        await_that(lambda done=done: all(reader.woken == done + 1 for reader in readers))


def test_no_more_wake_at_once_than_are_allowed():
    turns = Turns(at_once=2)
    waiters = [Waiter(turns) for _ in range(5)]
    for waiter in waiters:
        assert turns.enter(waiter)
        waiter.call()
    assert [waiter.bell.qsize() for waiter in waiters] == [1, 1, 0, 0, 0]
    turns.leave(waiters[1])
    assert [waiter.bell.qsize() for waiter in waiters] == [1, 1, 1, 0, 0]


def test_they_wake_in_the_order_of_their_calls():
    turns = Turns(at_once=1)
    waiters = [Waiter(turns) for _ in range(6)]
    for waiter in waiters:
        turns.enter(waiter)
    called = [waiters[place] for place in (3, 1, 5, 0, 2, 4)]
    for waiter in called:
        waiter.call()
    for first, second in pairwise(called):
        assert (first.bell.qsize(), second.bell.qsize()) == (1, 0)
        turns.leave(first)


def test_a_call_to_somebody_who_does_not_wait_yet_is_not_lost_and_holds_up_nobody():
    turns = Turns(at_once=1)
    busy, other = Waiter(turns), Reader(turns, rounds=1)
    busy.call()
    busy.call()
    await_that(lambda: waits(other))
    other.waiter.call()
    await_that(lambda: other.woken == 1)
    assert busy.wait(SHORT_S)
    assert not busy.wait(SHORT_S)


def test_who_stops_waiting_in_line_holds_up_nobody():
    turns = Turns(at_once=1)
    first, leaving, last = Waiter(turns), Waiter(turns), Waiter(turns)
    for waiter in (first, leaving, last):
        turns.enter(waiter)
        waiter.call()
    assert turns.leave(leaving), "it was called, so that there is something to look at"
    turns.leave(first)
    assert (leaving.bell.qsize(), last.bell.qsize()) == (0, 1)


def test_who_waits_for_all_goes_on_when_the_last_one_has():
    turns = Turns(at_once=1)
    turns.await_all(LONG_S)  # nobody is called
    waiters = [Waiter(turns) for _ in range(3)]
    for waiter in waiters:
        turns.enter(waiter)
        waiter.call()
    engine = threading.Thread(target=turns.await_all, args=(LONG_S,), daemon=True)
    engine.start()
    for waiter in waiters:
        assert engine.is_alive()
        turns.leave(waiter)
    engine.join(5)
    assert not engine.is_alive()


def test_who_waits_for_all_waits_for_a_stuck_one_only_so_long():
    turns = Turns(at_once=1)
    stuck = Waiter(turns)
    turns.enter(stuck)
    stuck.call()
    turns.await_all(SHORT_S)
    turns.leave(stuck)
    turns.await_all(LONG_S)
