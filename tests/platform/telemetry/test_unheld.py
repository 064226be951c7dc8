"""Standard error whose reader stands still: what is kept, what is dropped, and that nobody waits."""

import fcntl
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import TextIO

import pytest

from service.platform.telemetry.unheld import MOST_KEPT, ROOM, Unheld

PATIENCE = 30  # seconds
TAKES = 4 * ROOM  # bytes; Linux finds a pipe writable that has a page to give


@dataclass
class Pipe:
    """A pipe that takes TAKES bytes, and what writes to it and never waits."""

    reader: int
    writer: TextIO
    told: "Queue[int]" = field(default_factory=Queue)

    def __post_init__(self) -> None:
        fcntl.fcntl(self.writer.fileno(), fcntl.F_SETPIPE_SZ, TAKES)
        self.stream = Unheld(self.writer, self.told.put)

    def read(self, number: int) -> list[str]:
        """Read so many lines."""
        data = b""
        while data.count(b"\n") < number:
            data += os.read(self.reader, 1 << 16)
        return data.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as text:
        made = Pipe(reader, text)
        yield made
        os.close(reader)


def test_a_line_is_written_at_once_and_no_thread_is_made(pipe: Pipe) -> None:
    before = threading.active_count()
    for number in range(10):
        pipe.stream.write(f"line {number}\n")

    assert os.read(pipe.reader, 1 << 16).decode().splitlines() == [f"line {number}" for number in range(10)]
    assert threading.active_count() == before


def test_what_finds_no_room_waits_for_its_reader_in_order(pipe: Pipe) -> None:
    lines = [f"{number:05} " + "é" * 3_000 for number in range(100)]  # longer than there is room for at once
    for line in lines:
        pipe.stream.write(line + "\n")

    assert pipe.read(100) == lines
    assert pipe.stream.lost == 0


def test_what_is_more_than_is_kept_is_dropped_and_told(pipe: Pipe) -> None:
    line = "x" * 1_023
    for _ in range(2 * MOST_KEPT // 1_024):
        pipe.stream.write(line + "\n")
    kept = 2 * MOST_KEPT // 1_024 - pipe.stream.lost

    assert MOST_KEPT // 1_024 <= kept <= (MOST_KEPT + TAKES) // 1_024
    assert pipe.read(kept) == [line] * kept
    assert pipe.told.get(timeout=PATIENCE) == pipe.stream.lost
    pipe.stream.write("on it goes\n")
    assert pipe.read(1) == ["on it goes"]
    assert pipe.stream.lost == 2 * MOST_KEPT // 1_024 - kept


def test_a_line_that_alone_is_more_than_is_kept_is_given(pipe: Pipe) -> None:
    pipe.stream.write("first\n" + "x" * (2 * MOST_KEPT) + "\n")

    assert pipe.read(2) == ["first", "x" * (2 * MOST_KEPT)]


def test_of_lines_that_alone_are_more_than_is_kept_one_is(pipe: Pipe) -> None:
    line = "x" * (2 * MOST_KEPT)
    for _ in range(3):
        pipe.stream.write(line + "\n")

    assert pipe.stream.lost == 2
    assert pipe.read(1) == [line]
    assert pipe.told.get(timeout=PATIENCE) == 2


def test_a_reader_that_takes_no_more_at_once_loses_no_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer.fileno(), False)  # of whoever shares the pipe, and has made it so
    lines = [f"{number:05} " + "x" * 3_000 for number in range(20)]
    for line in lines:
        pipe.stream.write(line + "\n")

    assert pipe.read(20) == lines


def test_a_reader_that_goes_is_told_as_ever_and_waited_for_by_nobody() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as text:
        pipe = Pipe(reader, text)
        for _ in range(10):
            pipe.stream.write("x" * ROOM)
        os.close(reader)
        for thread in threading.enumerate():
            if thread.name == "standard error":
                thread.join(PATIENCE)

        with pytest.raises(BrokenPipeError):
            pipe.stream.write("nobody hears\n")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full: what fits of a line is written."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.parametrize("size", [0, 2, 6, 7, 11, 13])
def test_once_a_disk_has_room_again_each_line_is_whole_and_the_gap_is_told(tmp_path: Path, size: int) -> None:
    told: list[int] = []
    file = tmp_path / "log"
    with file.open("a") as log:
        stream = Unheld(log, told.append)
        with disk_of(size):
            for line in ("first", "second", "third"):
                with suppress(OSError):
                    stream.write(line + "\n")
        lost = stream.lost
        stream.write("fourth\n")
        stream.write("fifth\n")

    *before, fourth, fifth = file.read_text().splitlines()
    assert (fourth, fifth) == ("fourth", "fifth")
    assert [line for line in before if line in {"first", "second", "third"}] == ["first", "second"][: 3 - lost]
    assert told == [lost]


class Overtaken:
    """A lock, as the thread that has given the last of what was kept is overtaken by others who write."""

    def __init__(self, pipe: Pipe, lines: list[str]) -> None:
        self._lock = threading.RLock()
        self._pipe = pipe
        self._lines = lines

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        empty = not self._pipe.stream._kept
        self._lock.release()
        if empty and threading.current_thread().name == "standard error":
            lines, self._lines = self._lines, []
            for line in lines:
                self._pipe.stream.write(line + "\n")


def test_what_a_full_disk_does_not_take_is_counted() -> None:
    with Path("/dev/full").open("w") as full:  # which is writable, and has no room
        stream = Unheld(full, print)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                stream.write("a line\n")

        assert stream.lost == 3


def test_an_end_with_nothing_kept_says_nothing() -> None:
    program = f"import sys; from {Unheld.__module__} import Unheld; sys.stderr = Unheld(sys.stderr, print)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


def test_what_was_kept_for_a_reader_that_has_gone_is_counted() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as text:
        stream = Pipe(reader, text).stream
        stream.write(TAKES * "x" + "\n")
        stream.write("the second\n")
        os.close(reader)
        for thread in threading.enumerate():
            if thread.name == "standard error":
                thread.join(PATIENCE)

        assert stream.lost == 2


def test_what_comes_as_the_last_is_given_has_one_thread_again(pipe: Pipe) -> None:
    first = [f"{number:05} " + "x" * 3_000 for number in range(20)]
    second = [f"{number:05} " + "y" * 3_000 for number in range(200)]
    pipe.stream._lock = Overtaken(pipe, second)  # type: ignore[assignment]  # as much of one as is used
    for line in first:
        pipe.stream.write(line + "\n")

    assert pipe.read(220) == first + second
