"""`service jobs` with words that no job is called by; tests/platform/jobs has it with a service."""

from pathlib import Path

import pytest

from service.platform.testing.own_server import free_port
from service.platform.testing.processes import run_to_end


@pytest.mark.parametrize("verb", ["list", "retry"])
def test_a_kind_that_is_no_text_is_asked_for_like_any(tmp_path: Path, verb: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run_to_end(tmp_path, "jobs", "--url", url, verb, "--kind", "\udcff")

    assert (done.returncode, done.stderr) == (1, f"{url} does not answer: Connection refused\n")
