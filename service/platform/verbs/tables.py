"""All tables of the platform: importing this registers them with `metadata`, as importing a feature does its own."""

import service.platform.http.idempotency_store
import service.platform.identity.tables
import service.platform.jobs.table  # noqa: F401  as the module says
