from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from llm_run.core.serve.desk import PLACES, Desk

from .conftest import HELLO, chat, client


def test_no_more_threads_are_inside_than_there_are_places():
    desk, inside, most = Desk(places=2), [], []
    lock = threading.Lock()

    def ask(number: int) -> None:
        desk.enter()
        with lock:
            inside.append(number)
            most.append(len(inside))
        with lock:
            inside.remove(number)
        desk.leave()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))
    assert len(most) == 200 and max(most) <= 2


def test_leaving_twice_or_without_a_place_makes_no_new_place():
    desk = Desk(places=1)
    desk.leave()
    desk.enter()
    desk.leave()
    desk.leave()
    desk.enter()
    other = threading.Thread(target=desk.enter, daemon=True)
    other.start()
    other.join(0.05)
    assert other.is_alive(), "there is one place only"
    desk.leave()
    other.join(5)
    assert not other.is_alive()


def test_a_probe_of_the_health_does_not_wait_behind_those_who_ask(served):
    desk = served.service.desk
    for _ in range(PLACES):
        desk._free.get()
    try:
        assert httpx.get(f"{served.url}/health", timeout=5).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/tokenize", json={"prompt": "3"}, timeout=0.2)
    finally:
        for _ in range(PLACES):
            desk._free.put(None)
    assert httpx.post(f"{served.url}/tokenize", json={"prompt": "3"}, timeout=5).status_code == 200


def test_requests_that_are_refused_give_their_place_back(served):
    api = client(served)
    for _ in range(3 * PLACES):
        with pytest.raises(openai.BadRequestError):
            chat(api, messages=[])
    assert chat(api, max_tokens=2).usage.completion_tokens >= 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 100, "ignore_eos": True}),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 100, "ignore_eos": True, "stream": True}),
        ("/v1/completions", {"prompt": "3", "max_tokens": 100, "ignore_eos": True}),
        ("/api/chat", {"context": "3", "max_length": 100}),
    ],
    ids=["whole chat", "streamed chat", "whole text", "chat of the seed"],
)
def test_answers_that_are_being_computed_keep_no_place(path, body, served):
    """All of them are computed at the same time, or the engine would never see so many."""
    engine, seen = served.service.engine, set()
    run, gate = engine._runner.run, threading.Event()

    def held(works):
        seen.add(len(works))
        gate.wait(0.02)
        return run(works)

    engine._runner.run = held
    try:
        with ThreadPoolExecutor(3 * PLACES) as pool:
            asked = [pool.submit(httpx.post, served.url + path, json=body, timeout=30) for _ in range(3 * PLACES)]
            end = time.monotonic() + 20
            while max(seen, default=0) < 3 * PLACES and time.monotonic() < end:
                time.sleep(0.005)
            gate.set()
            assert [future.result().status_code for future in asked] == [200] * (3 * PLACES)
    finally:
        gate.set()
        engine._runner.run = run
    assert max(seen) == 3 * PLACES
