"""Processes that begin where the imports are done: forks of one that has them.

To import what serves takes 0.6 of the 0.7 seconds of processor time of a start, and the suite starts some 600
processes. What is forked is `python -m MODULE WORDS` in all that follows: a process of its own, with the directory,
environment and streams that it was given, and the module run as `__main__`. What is about a start itself, or about
memory, starts from nothing.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).parents[3]
# Variables that Python, or what loads it, reads before there is any code of ours.
OF_THE_INTERPRETER = ("PYTHON", "LD_", "MALLOC_")
FAREWELL = b"f"


class Fork:
    """A process that was forked for this one, with what tests use of a subprocess.Popen.

    The server waits for it and tells its code, so that it is never a zombie.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._said = line.makefile("rb")
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        """Return the code if it has ended: minus the signal's number, if one has ended it."""
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the code when it has ended. Raises subprocess.TimeoutExpired after so many seconds."""
        if (code := self._code(timeout)) is None:
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _code(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            waiting = select.poll()  # select.select takes no descriptor past 1,023
            waiting.register(self._line, select.POLLIN)
            if waiting.poll(None if seconds is None else seconds * 1000):
                self.returncode = self._number()
                self._forget()
        return self.returncode

    def _number(self) -> int:
        if not (line := self._said.readline()):
            self._forget()
            raise RuntimeError("the server of forks has ended")
        return int(line)

    def _forget(self) -> None:
        self._said.close()
        self._line.close()


class ForkServer:
    """The process that has the imports, as whoever wants forks sees it: from the first one until this is closed."""

    def __init__(self) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process: subprocess.Popen[bytes] | None = None
        self._line, self._theirs = socket.socketpair()

    @property
    def pid(self) -> int | None:
        """The process's, once there is one."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """Let it end; what was forked goes on."""
        with suppress(OSError):  # it has ended
            self._line.send(FAREWELL)
        self._line.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait()

    def can_be(self, command: Sequence[str], *, directory: Path, environment: Mapping[str, str]) -> bool:
        """Whether a fork is what a start of this command there would be; not where `-m` finds another code of ours."""
        theirs, ours = (
            {name: value for name, value in variables.items() if name.startswith(OF_THE_INTERPRETER)}
            for variables in (environment, self._environment)
        )
        same_code = not (directory / __name__.partition(".")[0]).exists()
        return tuple(command[:2]) == (sys.executable, "-m") and theirs == ours and same_code

    def fork(
        self, command: Sequence[str], *, directory: Path, environment: Mapping[str, str], streams: Sequence[int]
    ) -> Fork:
        """Return the process of a command that it `can_be`, with these three standard streams.

        Raises RuntimeError when the server has ended.
        """
        if self._process is None:
            self._start()
        wanted = {"arguments": command[2:], "directory": str(directory), "environment": dict(environment)}
        line, theirs = socket.socketpair()
        with theirs, TemporaryFile() as file:
            file.write(json.dumps(wanted).encode())
            file.seek(0)
            with suppress(BrokenPipeError):  # nobody is there any more: said as where it ends a moment later
                socket.send_fds(self._line, [b"."], [file.fileno(), theirs.fileno(), *streams])
        return Fork(line)

    def _start(self) -> None:
        with self._theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._theirs.fileno())],
                cwd=ROOT,
                env=self._environment,
                pass_fds=[self._theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )


def preload() -> None:
    """Import what serves, as `serve` does. What cannot be imported fails in the fork, where whoever asked sees it."""
    from service.platform.process.start import collect_seldom, import_at_first_use, without_http2

    collect_seldom()
    import_at_first_use()
    with suppress(Exception):
        from service.platform.feature import import_all

        with without_http2():
            import_module("service.platform.process.main")
        import_module("service.platform.verbs")
        import_module("service.settings")
        import_all(import_module("service.features").FEATURES)
    gc.freeze()  # a look for garbage would be a copy of it all, in each fork


def serve(line: socket.socket) -> Sequence[str]:
    """Fork for whoever asks, until the line is closed. Returns in each fork, too, with what `become` returns.

    A line that ends without a farewell is a suite that was killed: nobody else would end what it has started.
    """
    asked: dict[int, socket.socket] = {}
    ended, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())  # a handler alone may run too late: only after the next one has asked
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is told to end as well, and closes the line
    while True:
        readable, _, _ = select.select([line, ended], [], [])
        if ended in readable:
            ended.recv(4096)
            while asked and (status := os.waitpid(-1, os.WNOHANG))[0]:
                with asked.pop(status[0]) as theirs, suppress(OSError):  # nobody may want to know any more
                    theirs.sendall(b"%d\n" % os.waitstatus_to_exitcode(status[1]))
        if line not in readable:
            continue
        said, descriptors, *_ = socket.recv_fds(line, 1, 5)
        if not descriptors:
            for pid in () if said == FAREWELL else asked:
                os.kill(pid, signal.SIGKILL)  # it is ours until it is waited for, so its number is nobody else's
            return ()
        file, answer, *streams = descriptors
        asking = socket.socket(fileno=answer)
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            for ours in (line, ended, wakeup, asking, *asked.values()):
                ours.close()
            return become(file, streams)
        asked[pid] = asking
        with suppress(OSError):
            asking.sendall(b"%d\n" % pid)
        for descriptor in (file, *streams):
            os.close(descriptor)


def become(file: int, streams: Sequence[int]) -> Sequence[str]:
    """Take on what this process was forked for, and return the arguments of Python after its `-m`."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with open(file) as request:
        wanted = json.load(request)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["directory"])
    sys.path[0] = wanted["directory"]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments: list[str] = wanted["arguments"]
    return arguments


if __name__ == "__main__":
    preload()
    if arguments := serve(socket.socket(fileno=int(sys.argv[1]))):
        sys.argv = [*arguments]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
