"""What an operator has changed of the jobs is in the log, also where not all of it could be."""

import psycopg
from structlog.testing import capture_logs

from service.platform.database import open_database
from service.platform.http import create_app
from service.platform.inside.jobs import create_routes
from service.platform.jobs.operators import MOST_CHANGED
from service.platform.testing.fixtures import MakeSettings

DEAD = """
    INSERT INTO job (kind, arguments, state, finished_at, key)
    SELECT 'note', '{}', 'dead', now(), CASE WHEN n > %s THEN 'last' END FROM generate_series(1, %s) n
"""
THE_LAST_CANNOT_BE_CHANGED = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
    CREATE TRIGGER refuse BEFORE UPDATE ON job FOR EACH ROW WHEN (old.key = 'last') EXECUTE FUNCTION refuse();
"""


async def test_what_was_changed_before_a_portion_failed_is_told(
    make_settings: MakeSettings, writable_database_url: str
) -> None:
    with psycopg.connect(writable_database_url.replace("+psycopg", "")) as connection:
        connection.execute(DEAD, [MOST_CHANGED, MOST_CHANGED + 1])
        connection.execute(THE_LAST_CANNOT_BE_CHANGED)

    settings = make_settings()
    async with open_database(settings) as database:
        client = create_app([create_routes(database)], settings).test_client()
        with capture_logs() as lines:
            answer = await client.post(
                "/jobs/discard?kind=note", headers={"Host": "localhost"}, scope_base={"client": ("127.0.0.1", 1)}
            )

    assert answer.status_code == 500
    [act] = [line for line in lines if line["event"] == "jobs changed by an operator"]
    assert (act["change"], act["kind"], act["count"]) == ("discard", "note", MOST_CHANGED)
