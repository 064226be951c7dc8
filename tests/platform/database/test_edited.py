"""What is told of migrations that were edited after they had been applied; `service dev` asks at each start."""

from pathlib import Path

from service.platform.database.edited import edited_since


def test_the_lock_of_an_editor_is_no_migration(tmp_path: Path) -> None:
    """Emacs makes one beside each file that is changed and not saved yet: a link that leads nowhere."""
    migrations = tmp_path / "migrations"
    (migrations / "versions").mkdir(parents=True)
    file = migrations / "versions" / "0001_first.py"
    file.write_text('revision = "0001"\n')
    (migrations / "versions" / ".#0001_first.py").symlink_to("me@here.4711:1700000000")
    at_first = edited_since(tmp_path, migrations, applied=["0001"], mark="1")
    file.write_text('revision = "0001"\nserves_from = "0001"\n')

    assert at_first == []
    assert edited_since(tmp_path, migrations, applied=[], mark="1") == ["0001"]
