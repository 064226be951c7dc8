{{/* What the templates know of service/platform/settings/base.py. Made by `make generate`. */}}
{{- define "trireme.settings" -}}
{
  "drain_margin": 5.0,
  "request_deadline": 10,
  "owned": {
    "SERVICE_BIND": "service.port",
    "SERVICE_MANAGEMENT_BIND": "the port named management, 9000",
    "SERVICE_READY_FILE": "the readiness probe",
    "SERVICE_DRAIN_DELAY": "drain.delay",
    "SERVICE_DRAIN_SPREAD": "drain.spread",
    "SERVICE_GRACEFUL_TIMEOUT": "drain.gracefulTimeout",
    "SERVICE_DATABASE_URL": "database.existingSecret and database.urlKey",
    "SERVICE_DATABASE_DIRECT_URL": "database.existingSecret and database.directUrlKey",
    "SERVICE_MIGRATION_GRANT_TO": "migration.grantTo",
    "SERVICE_DATABASE_PASSWORD_FILE": "database.existingSecret and database.passwordKey"
  },
  "required": {},
  "config": [
    "SERVICE_DATABASE_POOLED",
    "SERVICE_DATABASE_CONNECTIONS",
    "SERVICE_DATABASE_QUEUE_WAIT",
    "SERVICE_DATABASE_SLOW_UNIT",
    "SERVICE_JOBS_CONCURRENCY",
    "SERVICE_JOBS_RETENTION",
    "SERVICE_READINESS_REQUIRES_DATABASE",
    "SERVICE_REQUEST_DEADLINE",
    "SERVICE_MAX_REQUESTS",
    "SERVICE_MAX_BODY_BYTES",
    "SERVICE_HEADER_TIMEOUT",
    "SERVICE_BODY_TIMEOUT",
    "SERVICE_WRITE_TIMEOUT",
    "SERVICE_KEEP_ALIVE_TIMEOUT",
    "SERVICE_WEBSOCKET_MAX_BYTES",
    "SERVICE_MAX_WEBSOCKETS",
    "SERVICE_MAX_WEBSOCKETS_PER_ADDRESS",
    "SERVICE_RATE_PER_CONNECTION",
    "SERVICE_RATE_PER_ADDRESS",
    "SERVICE_ALLOWED_ORIGINS",
    "SERVICE_ALLOWED_HOSTS",
    "SERVICE_TRUSTED_PROXIES",
    "SERVICE_AUTH_ISSUER",
    "SERVICE_AUTH_AUDIENCE",
    "SERVICE_AUTH_JWKS_URL",
    "SERVICE_AUTH_CLIENT_ID",
    "SERVICE_AUTH_SCOPES",
    "SERVICE_AUTH_SESSION_LIFETIME",
    "SERVICE_AUTH_ALGORITHMS",
    "SERVICE_SLOW_STEP",
    "SERVICE_ONE_CPU",
    "SERVICE_REVISION",
    "SERVICE_LOG_LEVEL",
    "SERVICE_LOG_FORMAT",
    "SERVICE_CHAT_RETENTION"
  ],
  "secrets": [
    "SERVICE_AUTH_CLIENT_SECRET"
  ]
}
{{- end -}}
