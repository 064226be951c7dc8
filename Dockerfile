# syntax=docker/dockerfile:1
# One image runs every verb: serve (the default), migrate, check, smoke. Built by `make image`.
# PYTHON_IMAGE may carry a digest (python:3.13-slim-trixie@sha256:...); the release workflow passes one.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
# Optional parts, as `--build-arg EXTRAS=otel`: traces by OpenTelemetry.
ARG EXTRAS=
# An index in the place of the public one; uv.lock must name it. Name and password for it, as a .netrc, and the authority of its
# certificate come as secrets (`netrc`, `ca`), which no layer and no history keeps. deploy/README.md says how.
ARG UV_DEFAULT_INDEX=
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    if [ -n "${UV_DEFAULT_INDEX}" ]; then export PIP_INDEX_URL="${UV_DEFAULT_INDEX}"; fi && \
    python3 -m pip install --root-user-action=ignore "uv==${UV_VERSION}"
WORKDIR /app
# Bytecode that is valid whenever it was made: the same from each build, and not stale where a builder sets files' times.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PYTHON=python3
# What others wrote changes seldom: a layer of its own.
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=pyproject.toml,target=/app/pyproject.toml \
    --mount=type=bind,source=uv.lock,target=/app/uv.lock \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi && \
    uv sync --locked --no-dev --no-editable ${EXTRAS:+--extra ${EXTRAS}} --no-install-project
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY service service
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca; fi && \
    uv sync --locked --no-dev --no-editable ${EXTRAS:+--extra ${EXTRAS}} && \
    find .venv/lib -name uv_cache.json -delete && \
    sed -i '/uv_cache.json/d' .venv/lib/python*/site-packages/*.dist-info/RECORD

# Files of a clone have the modes of whoever cloned it: under a strict umask, none but root could read them.
COPY migrations migrations
RUN chmod -R u=rwX,go=rX migrations

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="trireme" \
      org.opencontainers.image.description="A service on QuartTrio, Hypercorn's Trio worker and PostgreSQL" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}"
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY --from=build /app/migrations migrations
# The root may be read-only, and /tmp is the only place to write; in a container both listeners face outside.
# The libpq of psycopg's wheel looks for the system's certificates (sslrootcert=system) where there are none, unless told.
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    SERVICE_BIND=[::]:8000 SERVICE_MANAGEMENT_BIND=[::]:9000 SERVICE_REVISION=${REVISION}
EXPOSE 8000 9000
USER 65532:65532
# No shell in between: the service is PID 1 and takes SIGTERM itself.
ENTRYPOINT ["service"]
CMD ["serve"]
