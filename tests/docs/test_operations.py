"""deploy/README.md: what it has an operator tell PostgreSQL is what the service asks for."""

import re
from pathlib import Path

from sqlalchemy import make_url

from service.platform.testing.copies import ROOT
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end
from tests.platform.database.observer import observe

PAGE = (ROOT / "deploy" / "README.md").read_text()
[ROLE_OF_A_POOLER] = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_the_role_of_a_pooler_has_what_sessions_would_ask_for(one_server: OwnServer, tmp_path: Path) -> None:
    url = make_url(one_server.tcp_url).set(username="app").render_as_string(hide_password=False)
    given = {"database_url": url, "database_direct_url": url, "database_pooled": "true"}
    ports = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    with observe(one_server.url) as observer:
        observer.connection.execute("CREATE ROLE app LOGIN")
        before = run_to_end(tmp_path, "check", **given, **ports).stdout
        observer.connection.execute(ROLE_OF_A_POOLER.encode())
        after = run_to_end(tmp_path, "check", **given, **ports).stdout

    wanted = sorted(re.findall(r"SET (\w+)", ROLE_OF_A_POOLER))
    [lacking] = re.findall(r"not set: (.*?);", before)
    assert sorted([*lacking.split(", "), "synchronous_commit"]) == wanted
    assert re.search(r"^ok +ceilings +set$", after, re.MULTILINE)
    assert "are needed" not in after
