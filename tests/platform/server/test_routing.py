"""What is kept of routes and paths finds and refuses what werkzeug itself does; of each path and method it is asked."""

import random
from collections.abc import Sequence

import pytest
from quart.routing import QuartMap
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from service.platform.server.routing import Route, Routes

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "INVENTED")
SEGMENTS = ("a", "b", "ab", "ab-b", "7", "")
PARTS = ("a", "b", "ab", "<x{0}>", "<int:x{0}>", "a<x{0}>", "<string(length=2):x{0}>-<any(a, b):y{0}>", "<path:x{0}>")
CASES = 300

type Plan = list[tuple[str, tuple[str, ...], bool]]  # rule, methods, whether it is a websocket's
type Outcome = tuple[object, ...]


def make_plan(chance: random.Random) -> Plan:
    plan = []
    for _ in range(chance.randint(1, 6)):
        parts = chance.choices(PARTS, weights=(15, 15, 15, 3, 3, 3, 1, 1), k=chance.randint(1, 3))
        rule = "/" + "/".join(part.format(place) for place, part in enumerate(parts))
        methods = tuple(chance.sample(("GET", "POST", "PUT"), chance.randint(1, 2)))
        websocket = chance.random() < 0.1
        plan.append((rule + chance.choice(("", "", "/")), ("GET",) if websocket else methods, websocket))
    if chance.random() < 0.1:
        plan.append(("/<path:rest>", ("GET",), False))
    return plan


def fill[M: QuartMap](routes: M, plan: Plan) -> M:
    for number, (rule, methods, websocket) in enumerate(plan):
        routes.add(Route(rule, endpoint=f"{number}", methods=methods, websocket=websocket))
    return routes


def outcome(error: HTTPException) -> Outcome:
    match error:
        case MethodNotAllowed():
            return 405, sorted(error.valid_methods or ())
        case RequestRedirect():
            return error.code, error.new_url
        case _:
            return error.code, error.description


def judged(routes: QuartMap, method: str, path: str) -> Outcome:
    """Return what werkzeug says of a request."""
    try:
        rule, parts = routes.bind("x", "", "", "http", method, path).match(return_rule=True)
    except HTTPException as error:
        return outcome(error)
    return rule.endpoint, dict(parts)


def found(routes: Routes, method: str, path: str) -> Outcome:
    scope = {
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"x")],
    }
    try:
        rule, parts = routes.find(scope)
    except HTTPException as error:
        return outcome(error)
    return rule.endpoint, parts


def paths(chance: random.Random) -> Sequence[str]:
    drawn = ("/" + "/".join(chance.choices(SEGMENTS, k=chance.randint(0, 4))) for _ in range(30))
    return [path for path in drawn if "//" not in path]  # such are nobody's here, and werkzeug merges them


@pytest.mark.parametrize("seed", range(4))
def test_random_routes_are_found_as_werkzeug_finds_them(seed: int) -> None:
    chance = random.Random(seed)
    statuses = set()
    for _ in range(CASES):
        plan = make_plan(chance)
        ours, theirs = fill(Routes(), plan), fill(QuartMap(), plan)
        asked = [(chance.choice(METHODS), path) for path in paths(chance)] * 2  # the second time from what is kept
        chance.shuffle(asked)
        for method, path in asked:
            said = judged(theirs, method, path)
            assert found(ours, method, path) == said, (plan, method, path)
            statuses.add(said[0])

    assert {308, 400, 404, 405} <= statuses


def test_what_clients_make_up_is_not_kept() -> None:
    routes = fill(Routes(), [("/a", ("GET",), False), ("/a/<x>", ("GET",), False)])
    for number in range(100):
        found(routes, "GET", f"/{number}")
        found(routes, "GET", f"/a/{number}")
        found(routes, "PUT", f"/a/{number}")
        found(routes, f"M{number}", "/a")
    for method in METHODS:
        found(routes, method, "/a")

    assert set(routes._known) == {("GET", b"/a"), ("HEAD", b"/a")}
    assert set(routes._refused) == {("POST", b"/a"), ("PUT", b"/a"), ("DELETE", b"/a"), ("OPTIONS", b"/a")}


def test_a_route_that_is_added_later_is_found_below_a_new_beginning() -> None:
    routes = fill(Routes(), [("/a", ("GET",), False)])
    before = found(routes, "GET", "/b"), found(routes, "PUT", "/a")
    routes.add(Route("/b", endpoint="b", methods=["GET"]))
    routes.add(Route("/a", endpoint="put", methods=["PUT"]))

    assert [one[0] for one in before] == [404, 405]
    assert (found(routes, "GET", "/b"), found(routes, "PUT", "/a")) == (("b", {}), ("put", {}))
