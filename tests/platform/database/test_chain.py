"""The revisions as text say what running the files says, or nothing."""

from pathlib import Path

import pytest

from service.platform.database import find_migrations
from service.platform.database.chain import read_chain
from service.platform.database.revisions import read_scripts

PLAIN = '"""What it does."""\n\nrevision = "{own}"\ndown_revision = {before}\nbranch_labels = None\ndepends_on = None\n'


def written(directory: Path, *texts: str) -> Path:
    """Return a directory of migrations with these files, whose names do not follow their order."""
    versions = directory / "versions"
    versions.mkdir()
    for number, text in enumerate(texts):
        (versions / f"{9 - number}.py").write_text(text)
    return directory


def plain(own: str, before: str = "None") -> str:
    return PLAIN.format(own=own, before=before)


def test_they_are_those_of_alembic() -> None:
    migrations = find_migrations()
    chain = read_chain(migrations)

    scripts = read_scripts(migrations)

    assert chain is not None
    assert chain[-1] == scripts.get_current_head()
    assert sorted(chain) == sorted(script.revision for script in scripts.walk_revisions())


def test_quotes_types_and_comments_do_not_matter(tmp_path: Path) -> None:
    second = "revision: str = 'two'  # the second\ndown_revision: str | None = \"one\"  # the first\n"
    migrations = written(tmp_path, second, plain("one"))

    assert read_chain(migrations) == ["one", "two"]


def test_branches_that_were_joined_are_read_too(tmp_path: Path) -> None:
    """As `make join` leaves them: a clone's starts and tests are then as before."""
    branches = (plain("two", '"one"'), plain("three", '"one"'), plain("four", '"three"'))
    chain = read_chain(written(tmp_path, plain("joined", '("four", "two")'), plain("one"), *branches))

    assert chain is not None
    assert (chain[0], chain[-1]) == ("one", "joined")
    assert set(chain) == {"one", "two", "three", "four", "joined"}
    assert chain.index("three") < chain.index("four")


@pytest.mark.parametrize(
    "texts",
    [
        (),
        (plain("one"), plain("two", '"one"'), plain("three", '"one"')),
        (plain("one"), plain("two", '"one"'), plain("three", '"one"'), plain("four", '("two", "gone")')),
        (plain("one"), plain("two")),
        (plain("one"), plain("two", '"gone"')),
        (plain("one"), plain("one", '"one"')),
        (plain("one"), plain("two", '"three"'), plain("three", '"two"')),
        (plain("one"), plain("two", '("one", "zero")')),
        (plain("one"), plain("two", "before()")),
        (plain("one"), plain("two", '"one"').replace("depends_on = None", 'depends_on = "zero"')),
        (plain("one"), plain("two", '"one"').replace("branch_labels = None", "branch_labels = 'left'")),
        (plain("one"), plain("two", '"one"') + 'revision = "three"\n'),
        (plain("one"), "revision, down_revision = 'two', 'one'\n"),
        (plain("one"), "import no_such_module\n"),
    ],
    ids=[
        "no file", "two heads", "one joined", "two first ones", "no parent", "twice", "circle", "merge", "computed",
        "depends", "branch", "assigned again", "in one go", "nothing",
    ],
)  # fmt: skip
def test_what_is_not_plain_or_has_two_heads_is_left_to_alembic(texts: tuple[str, ...], tmp_path: Path) -> None:
    assert read_chain(written(tmp_path, *texts)) is None
