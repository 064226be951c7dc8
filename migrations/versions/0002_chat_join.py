"""Join the sample's tables with the platform's: a database that has only the former goes on from here."""

revision = "0002"
down_revision = ("0001", "platform_jobs")
branch_labels = None
depends_on = None

serves_from = "0001"
breaking = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
