"""Our stack with an identity provider set: a route for anyone, and the same for whoever has signed in.

Beside it, in the same process, the same routes with identity off. Prints as JSON the two ports, and tokens to ask with:
one, and many of each kind of key.
"""

import json
import sys
from functools import partial
from typing import Any

import trio
from joserfc import jwk
from quart import Blueprint

from bench.apps.price import listening
from service.platform.calls import open_client
from service.platform.http.app import create_app, surround
from service.platform.http.limits import unlimited
from service.platform.identity import NOBODY, Identity, anyone, signed_in
from service.platform.identity.gate import Gate
from service.platform.identity.keys import Keys
from service.platform.identity.provider import Provider
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.tokens import Rules
from service.platform.inside.readings import show_server
from service.platform.lifecycle import Lifecycle
from service.platform.server import RateLimits, ServerStatistics
from service.platform.settings import PlatformSettings
from service.platform.telemetry.logs import configure_logs
from service.platform.telemetry.metrics import Metrics
from service.platform.testing.issuer import AUDIENCE, open_issuer


def create_routes() -> Blueprint:
    routes = Blueprint("identity_price", __name__)

    @routes.get("/open")
    @anyone
    @unlimited("measured")
    async def open_to_all() -> dict[str, str]:
        return {"message": "hello"}

    @routes.get("/closed")
    @signed_in
    @unlimited("measured")
    async def closed() -> dict[str, str]:
        return {"message": "hello"}

    return routes


def whole(settings: PlatformSettings, identity: Identity) -> Any:
    statistics = ServerStatistics()
    return surround(
        create_app([create_routes()], settings, identity),
        settings,
        lifecycle=Lifecycle(),
        statistics=statistics,
        limits=RateLimits(0),
        observe=show_server(Metrics(), statistics),
    )


async def main(count: int) -> None:
    settings = PlatformSettings(max_requests=10_000, rate_per_address=0)
    rsa = jwk.RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256"})
    ed25519 = jwk.OKPKey.generate_key("Ed25519", {"kid": "ed25519"})
    async with open_issuer() as issuer, open_client() as client, trio.open_nursery() as nursery:
        issuer.more_keys = [key.as_dict(private=False) for key in (rsa, ed25519)]
        keys = Keys(Provider(client, issuer.url, None).fetch_keys)
        nursery.start_soon(keys.run)
        rules = Rules(issuer.url, AUDIENCE, {"ES256", "RS256", "Ed25519"})
        gate = Gate(rules, keys, b"key of the log's hashes", IdentityStatistics())
        apps = [whole(settings, identity) for identity in (Identity(gate), NOBODY)]
        kinds = {"ES256": (issuer.key, issuer.kid), "RS256": (rsa, "rsa"), "Ed25519": (ed25519, "ed25519")}
        tokens = {
            name: [issuer.token(header={"alg": name, "kid": kid}, key=key, jti=str(number)) for number in range(count)]
            for name, (key, kid) in kinds.items()
        }
        async with listening(apps[0], settings) as port, listening(apps[1], settings) as off:
            told = {"port": int(port), "off": int(off), "token": issuer.token(), "tokens": tokens}
            print(json.dumps(told), flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    configure_logs("info", "json")
    trio.run(partial(main, int(sys.argv[1])))
