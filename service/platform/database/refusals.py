"""Why nothing may be migrated: what whoever runs `service migrate`, or starts the service, can be told of it."""


class MigrationRefused(Exception):
    """Nothing may be migrated as things are; the message says why, and what would help."""


class MigrationsWrong(MigrationRefused):
    """The migrations' files cannot be used as they are; the message says why, and what would mend them."""


class MigrationsMissing(MigrationsWrong):
    """There is no directory of migrations: the code does not know which schema it needs."""
