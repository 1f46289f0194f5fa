"""Under load, at its end, and when clients leave: who is told what, and what is freed."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx
import openai
import pytest

from .conftest import HELLO, chat, client


def test_too_many_requests_are_told_when_to_come_back(make_service, listening):
    with listening(make_service(max_running=1, max_waiting=1), []) as place:
        answers, lock = [], threading.Lock()

        def ask():
            reply = httpx.post(f"{place.url}/v1/completions", json={"prompt": "1", "max_tokens": 100}, timeout=60)
            with lock:
                answers.append(reply)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    statuses = sorted(reply.status_code for reply in answers)
    assert set(statuses) == {200, 429}
    refused = next(reply for reply in answers if reply.status_code == 429)
    assert refused.headers["Retry-After"] == "2" and refused.json()["error"]["type"] == "rate_limit_error"


def slowed(service, seconds=0.01):
    """Let every step take a while: the tiny model is done with an answer before anybody could leave."""
    run = service.engine._runner.run

    def slow(works):
        time.sleep(seconds)
        return run(works)

    service.engine._runner.run = slow
    return service


def test_clients_that_do_not_read_hold_nobody_up(make_service, listening):
    with listening(make_service(), []) as place:
        body = json.dumps({"messages": HELLO, "max_tokens": 100, "stream": True, "ignore_eos": True}).encode()
        lines = ("POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}"))
        silent = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(8)]
        for one in silent:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.sendall(head.encode() + b"\r\n\r\n" + body)
        api = client(place)
        for _ in range(5):
            assert chat(api, max_tokens=100, temperature=0).choices[0].finish_reason is not None
        for one in silent:
            one.close()


@pytest.mark.parametrize("seconds", [0.1, 0.03], ids=["slow tokens", "tokens quicker than the server looks"])
def test_a_client_that_leaves_frees_its_place(seconds, make_service, listening):
    with listening(slowed(make_service(max_running=1), seconds), []) as place:
        body = {"messages": HELLO, "max_tokens": 100, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{place.url}/v1/chat/completions", json=body) as reply:
            next(reply.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{place.url}/v1/chat/completions", json={**body, "stream": False}, timeout=0.05)
        deadline = time.monotonic() + 1
        while place.service.engine.stats().running and time.monotonic() < deadline:
            time.sleep(0.02)
        stats = place.service.engine.stats()
        assert (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0.0)
        place.service.engine.check()


def test_a_dead_engine_is_told_to_every_open_request_and_to_probes(served):
    body = {"messages": HELLO, "max_tokens": 100, "ignore_eos": True}
    told, all_began = [], threading.Barrier(9)

    def stream():
        with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body | {"stream": True}) as reply:
            lines = reply.iter_lines()
            next(lines)
            all_began.wait(30)
            said = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        told.append(said[-1]["error"]["message"])

    def whole():
        all_began.wait(30)
        reply = httpx.post(f"{served.url}/v1/chat/completions", json=body)
        told.append(reply.json()["error"]["message"])

    slowed(served.service, 0.05)
    threads = [threading.Thread(target=ask) for ask in [*[stream] * 6, *[whole] * 2]]
    for thread in threads:
        thread.start()
    all_began.wait(30)
    served.service.engine._runner.run = lambda works: 1 / 0
    for thread in threads:
        thread.join(30)
    assert len(told) == 8
    assert all("engine has died" in message or "takes no new requests" in message for message in told)
    assert httpx.get(f"{served.url}/health").status_code == 503
    with pytest.raises(openai.InternalServerError):
        chat(client(served))


def test_an_answer_that_takes_too_long_is_ended(make_service, listening):
    service = slowed(make_service(deadline_s=0.1))
    with listening(service, []) as place, pytest.raises(openai.BadRequestError, match="longer"):
        chat(client(place), max_tokens=100, extra_body={"ignore_eos": True})


def test_draining_ends_open_answers_and_takes_no_new_ones(served):
    body = {"messages": HELLO, "max_tokens": 60, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        drained = []
        thread = threading.Thread(target=lambda: drained.append(served.service.engine.drain(20)))
        thread.start()
        time.sleep(0.02)
        assert httpx.get(f"{served.url}/health/ready").status_code == 503
        assert httpx.get(f"{served.url}/health").status_code == 200
        assert httpx.post(f"{served.url}/v1/completions", json={"prompt": "1"}).status_code == 503
        rest = list(lines)
        thread.join()
    assert drained == [True]
    assert "data: [DONE]" in rest
