"""A signal to a verb that is a client: what it does is cancelled, and nothing is raised in the event loop's midst."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.platform.testing.processes import PATIENCE, ROOT

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLIENT = """
import signal
for number in signal.SIGINT, signal.SIGHUP:
    signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have these ignored

from service.platform.process.end import ending
from service.platform.process.start import end_at_signals
end_at_signals()

import trio
from service.platform.verbs import run_client

async def be_busy():
    print("begun", flush=True)
    try:
        while True:
            await trio.lowlevel.checkpoint()
    finally:
        print("closed", flush=True)

async def be_stubborn():
    try:
        await be_busy()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(600)

async def be_unlucky():
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_busy)
            nursery.start_soon(fail_at_its_end)
    finally:
        print("failed", flush=True)

async def fail_at_its_end():
    try:
        await trio.sleep_forever()
    finally:
        raise OSError("the peer is gone")

with ending():
    run_client(%s)
"""


@contextmanager
def client(what: str) -> Iterator[subprocess.Popen[str]]:
    """Start a client that has begun."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT % what],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "begun\n"
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_cancels_what_a_client_does_and_then_ends_it(number: signal.Signals) -> None:
    with client("be_busy") as started:
        started.send_signal(number)
        printed, complaints = started.communicate(timeout=PATIENCE)

    assert (started.returncode, printed, complaints) == (128 + number, "closed\n", "")


def test_what_fails_as_a_client_is_cancelled_does_not_change_how_it_ends() -> None:
    with client("be_unlucky") as started:
        started.send_signal(signal.SIGINT)
        printed, complaints = started.communicate(timeout=PATIENCE)

    assert (started.returncode, printed, complaints) == (128 + signal.SIGINT, "closed\nfailed\n", "")


def test_a_second_signal_ends_a_client_that_does_not_end() -> None:
    with client("be_stubborn") as started:
        assert started.stdout is not None
        started.send_signal(signal.SIGTERM)
        assert started.stdout.readline() == "closed\n"
        while started.poll() is None:  # what comes at once is the first one's echo
            started.send_signal(signal.SIGINT)
            try:
                started.wait(0.1)
            except subprocess.TimeoutExpired:
                continue

    assert started.returncode == 128 + signal.SIGINT
