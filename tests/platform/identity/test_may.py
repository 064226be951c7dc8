"""Who may: what routes declare, and that none may leave it out."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.platform.errors import Forbidden
from service.platform.identity import (
    ANYONE,
    GUEST,
    SIGNED_IN,
    Caller,
    InsufficientScope,
    May,
    Unauthenticated,
    anyone,
    declared,
    only,
    scope,
    signed_in,
)
from service.platform.testing.processes import started
from tests.system.test_process import WITH_FEATURES

ADA = Caller(subject="ada", scopes=frozenset({"orders:read"}))


def not_ada(caller: Caller) -> None:
    if caller.subject == "ada":
        raise Forbidden("anybody but Ada")


@pytest.mark.parametrize(
    ("may", "caller", "refused"),
    [
        (ANYONE, GUEST, None),
        (ANYONE, ADA, None),
        (SIGNED_IN, GUEST, Unauthenticated),
        (SIGNED_IN, ADA, None),
        (May(scopes=("orders:read",)), GUEST, Unauthenticated),
        (May(scopes=("orders:read",)), ADA, None),
        (May(scopes=("orders:read", "orders:write")), ADA, InsufficientScope),
        (May(rule=not_ada), GUEST, Unauthenticated),
        (May(rule=not_ada), ADA, Forbidden),
        (May(rule=not_ada), Caller(subject="bob"), None),
    ],
)
def test_who_may(may: May, caller: Caller, refused: type[Exception] | None) -> None:
    if refused is None:
        may.check(caller)
    else:
        with pytest.raises(refused):
            may.check(caller)


def test_a_refusal_says_what_is_missing() -> None:
    with pytest.raises(InsufficientScope, match="lacks the scope orders:write") as refused:
        May(scopes=("orders:read", "orders:write")).check(ADA)

    assert refused.value.status == 403
    challenge = 'Bearer error="insufficient_scope", scope="orders:read orders:write"'
    assert refused.value.headers == {"WWW-Authenticate": challenge}
    assert Unauthenticated("sign in").headers == {"WWW-Authenticate": "Bearer"}


def test_a_caller_is_shown_without_what_identifies_a_person() -> None:
    ada = Caller(subject="ada@example.org", name="Ada", claims={"email": "ada@example.org"}, label="0f")

    assert "ada" not in repr(ada).lower()
    assert "0f" in repr(ada)


def test_a_route_declares_once_and_in_the_words_of_the_standard() -> None:
    async def view() -> None: ...

    assert declared(view) is None
    assert declared(scope("a", "b")(view)) == May(scopes=("a", "b"))
    for again in (anyone, signed_in, only(not_ada)):
        with pytest.raises(ValueError, match="twice"):
            again(view)
    for wrong in ((), ("",), ("two words",), ('a"b',), ("é",)):
        with pytest.raises(ValueError, match="a scope is ASCII"):
            scope(*wrong)


def test_a_rule_that_waits_is_refused_as_it_would_let_everybody_in() -> None:
    async def look_up(_: Caller) -> None:
        raise Forbidden("nobody")

    wrong: Any
    for wrong in (look_up, partial(look_up)):
        with pytest.raises(ValueError, match="a rule does not wait"):
            only(wrong)


@pytest.mark.parametrize("answer", [False, True, 0, ""])
def test_a_rule_that_answers_instead_of_raising_lets_nobody_in(answer: object) -> None:
    def is_staff(_: Caller) -> Any:
        return answer

    with pytest.raises(TypeError, match=r"a rule raises Forbidden, or returns nothing: .*is_staff.* returned "):
        May(rule=is_staff).check(ADA)


def test_a_rule_whose_waiting_is_hidden_lets_nobody_in() -> None:
    async def look_up(_: Caller) -> None: ...

    def hidden(caller: Caller) -> Any:
        return look_up(caller)

    with pytest.raises(TypeError, match="returned coroutine"):
        May(rule=hidden).check(ADA)


async def test_a_route_that_says_not_who_may_or_how_it_is_limited_stops_the_start(
    tmp_path: Path, database_url: str
) -> None:
    with started(tmp_path, "UNDECLARED", command=WITH_FEATURES, database_url=database_url) as service:
        assert await service.wait_end() == 2

    said = service.log.read_text()
    assert "POST /orders (undeclared.order): does not declare who may use it" in said
    assert "websocket /feed (undeclared.feed): does not declare" in said
    for route in (
        "POST /orders (undeclared.order",
        "GET /orders (undeclared.orders",
        "websocket /feed (undeclared.feed",
    ):
        assert f"{route}): does not say how it is limited; put @limited" in said
    assert "POST /form (undeclared.form): takes a form, and a body here is application/json" in said
    assert "POST /endless (undeclared.endless): takes One | Other, which hold each other again" in said
    assert "(undeclared.orders): does not declare" not in said
    assert "/declared" not in said
    assert "Traceback" not in said
