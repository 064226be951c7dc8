"""What people do with the page, and what they see there."""

import socket
from contextlib import ExitStack

from playwright.sync_api import Page


def write(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def shown(page: Page) -> list[tuple[int, str]]:
    """Return what the page shows as stored, from top to bottom: seq and text."""
    pairs: list[tuple[int, str]] = page.locator("#log .message").evaluate_all(
        "nodes => nodes.map(node => [Number(node.dataset.seq), node.querySelector('.bubble').textContent])"
    )
    return [(seq, text) for seq, text in pairs]


def wait_shown(page: Page, count: int) -> list[tuple[int, str]]:
    page.wait_for_function(
        "count => document.querySelectorAll('#log .message').length >= count"
        " && !document.querySelector('#pending').children.length",
        arg=count,
        timeout=60_000,
    )
    return shown(page)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
