<%!
from service.platform.database.written import as_docstring, served_by_addition
%>\
"""${as_docstring(message)}

One transaction. Says which code it still serves, and why it stops serving some, when it does.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# The oldest revision whose code works on this schema. Adding: as in the migration before. Removing, or changing what
# old code relies on: this or a later revision, and `breaking` says what stops working.
serves_from = ${repr(served_by_addition(config, up_revision, down_revision))}
breaking = None
# Rules of the linter that this migration breaks on purpose: a drop that is meant says ("ban-drop-column",) or
# ("ban-drop-table",).
meant = ()


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
