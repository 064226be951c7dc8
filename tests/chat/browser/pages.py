"""What people do with the page, and what they see there."""

from playwright.sync_api import Page

# How far the newest message is from the end of what is seen, in pixels.
FROM_END = "(room => room.scrollHeight - room.scrollTop - room.clientHeight)(document.querySelector('#scroller'))"


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
