"""A server in a process of its own, seen from outside: its end, its memory, its descriptors."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio


@dataclass
class Child:
    process: trio.Process
    port: int
    log: Path

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    @property
    def rss(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def peak_rss(self) -> float:
        """The most it ever was, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def forget_peak(self) -> None:
        """Let `peak_rss` start anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def is_gone_within(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        with trio.move_on_after(seconds):
            await self.process.wait()
        return self.process.returncode is not None


@asynccontextmanager
async def child(kind: str, log: Path, **options: Any) -> AsyncIterator[Child]:
    """Run tests.platform.server.child; `options` are settings (safe) or Hypercorn's configuration (bare)."""
    command = [sys.executable, "-m", "tests.platform.server.child", kind, json.dumps(options)]
    with trio.fail_after(120), log.open("wb") as errors:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            yield Child(process, int(await process.stdout.receive_some()), log)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()
