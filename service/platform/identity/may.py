"""Who may use a route: what each route and websocket declares, below its path.

    @routes.get("/api/orders")
    @scope("orders:read")
    async def orders() -> Orders: ...

A route that declares nothing stops the start. A declaration is data and a pure check; who asks is found elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutine, iscoroutinefunction

from service.platform.declarations import Declaration
from service.platform.identity.caller import Caller, InsufficientScope, Unauthenticated

# A rule of one's own, for whoever is signed in: raises Forbidden, which says what is missing, or returns nothing.
type Rule = Callable[[Caller], None]


@dataclass(frozen=True, slots=True)
class May:
    """Who may. Scopes are all needed; a rule is asked after them."""

    signed_in: bool = True
    scopes: tuple[str, ...] = ()
    rule: Rule | None = None

    def __post_init__(self) -> None:
        if iscoroutinefunction(self.rule):  # nobody would wait for it, nor hear what it raises
            raise ValueError("a rule does not wait: what waits is for the handler")

    def check(self, caller: Caller) -> None:
        """Raise Unauthenticated for somebody who is not signed in, Forbidden for somebody who may not."""
        if not self.signed_in:
            return
        if not caller.subject:
            raise Unauthenticated("sign in first: send a token as `Authorization: Bearer`")
        if missing := [one for one in self.scopes if one not in caller.scopes]:
            raise InsufficientScope(f"the token lacks the scope {' '.join(missing)}", scopes=self.scopes)
        if self.rule is not None:
            obey(self.rule, caller)


def obey[**P](rule: Callable[P, object], *asked: P.args, **named: P.kwargs) -> None:
    """Ask a rule, which raises Forbidden or returns nothing. Raises TypeError where it returns something.

    Whoever wrote `return False` meant to refuse, and was not heard: nobody is let in.
    """
    answer = rule(*asked, **named)
    if answer is not None:
        if iscoroutine(answer):
            answer.close()
        raise TypeError(f"a rule raises Forbidden, or returns nothing: {rule!r} returned {type(answer).__name__}")


ANYONE = May(signed_in=False)
SIGNED_IN = May()

DECLARED = Declaration(
    May,
    missing="does not declare who may use it; put @anyone, @signed_in, @scope(…) or @only(…) below its path",
    twice="declares who may use it twice",
)
declared, undeclared = DECLARED.of, DECLARED.missing


def anyone[F: Callable[..., object]](view: F) -> F:
    """Declare that everybody may, and that nobody is asked who he is."""
    return DECLARED.put(view, ANYONE)


def signed_in[F: Callable[..., object]](view: F) -> F:
    """Declare that whoever has signed in may."""
    return DECLARED.put(view, SIGNED_IN)


def scope[F: Callable[..., object]](*scopes: str) -> Callable[[F], F]:
    """Declare that whoever's token has all these scopes may."""
    if not scopes or any(not one or not one.isascii() or set(one) & set(' "\\') for one in scopes):
        raise ValueError(f"a scope is ASCII without spaces, quotes and backslashes (RFC 6749, 3.3); not {scopes!r}")
    return lambda view: DECLARED.put(view, May(scopes=scopes))


def only[F: Callable[..., object]](rule: Rule) -> Callable[[F], F]:
    """Declare that whoever has signed in may, unless a rule of one's own raises Forbidden.

    Raises ValueError for an async function.
    """
    may = May(rule=rule)
    return lambda view: DECLARED.put(view, may)
