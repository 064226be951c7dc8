"""${message}

One transaction. Says which code it still serves, and why it stops serving some, when it does.
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# The oldest revision whose code works on this schema. Adding: as in the migration before. Removing, or changing what old
# code relies on: this or a later revision, and `breaking` says what stops working.
serves_from = ${repr(down_revision or up_revision)}
breaking = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
