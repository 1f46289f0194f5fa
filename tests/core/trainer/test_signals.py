from __future__ import annotations

import os
import signal
import threading

import pytest

from llm_run.core.trainer.signals import StopRequest


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_noted_and_gives_the_exit_status(number: signal.Signals, status: int) -> None:
    with StopRequest() as stop:
        assert (stop.signal, stop.exit_status) == (None, 0)
        os.kill(os.getpid(), number)
        assert (stop.signal, stop.exit_status) == (number, status)


def test_a_second_signal_changes_nothing() -> None:
    with StopRequest() as stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.exit_status == 143


def test_the_old_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_outside_of_the_main_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopRequest() as stop:
            seen.append((stop.exit_status, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(0, before)]
