"""What clients see while a release is upgraded. Runs in the service's image, inside the cluster or beside a balancer:

    python - http://NAME < deploy/rollout.py      ends when /tmp/stop exists; exit 1 when a request failed

Each request comes on a new connection.
"""

import collections
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import trio

PATH = "/openapi.json"
STOP = Path("/tmp/stop")  # noqa: S108  # in a pod of its own, where /tmp is all that can be written


async def ask(url: str) -> str:
    """Return the first line of the answer, or what came instead."""
    place = urlsplit(url)
    head = f"GET {PATH} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n"
    try:
        with trio.fail_after(10):
            async with await trio.open_tcp_stream(place.hostname or "", place.port or 80) as stream:
                await stream.send_all(head.encode())
                answer = b"".join([part async for part in stream])
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        return repr(error)
    return answer.split(b"\r\n")[0].decode() or "closed without an answer"


async def main(url: str) -> collections.Counter[str]:
    begun = trio.current_time()
    answers: collections.Counter[str] = collections.Counter()
    while not await trio.Path(STOP).exists():
        answers[await ask(url)] += 1
        await trio.sleep(0.02)
    print(json.dumps({"seconds": round(trio.current_time() - begun), "answers": answers}))  # noqa: T201  # the report
    return answers


if __name__ == "__main__":
    told = trio.run(main, sys.argv[1])
    sys.exit(not told or any(" 200 " not in answer for answer in told))
