#!/bin/sh
# A release's life (trial.sh) on a throw-away cluster, with two images built from this clone.
#     sh deploy/kind.sh [node image]
# Needs docker, kind, kubectl, helm and curl. Makes the cluster `trireme` and deletes it at the end; KEEP=1 leaves it.
set -eu
CDPATH='' cd "$(dirname "$0")/.."

for tool in docker kind kubectl helm curl; do
	command -v "$tool" >/dev/null || { echo "a trial on kind needs $tool, which is not here" >&2 && exit 1; }
done
docker version >/dev/null 2>&1 || { echo "a trial on kind needs docker's daemon, which does not answer" >&2 && exit 1; }

node=${1:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
current=trireme:$version
next=trireme:next

# The cluster is deleted at the end; one that was there before is somebody's.
cluster=${current%:*}
if kind get clusters | grep --quiet --line-regexp "$cluster"; then
	echo "there is a cluster $cluster already; if nobody needs it: kind delete cluster --name $cluster" >&2
	exit 1
fi

end() {
	code=$?
	[ -n "${KEEP:-}" ] || kind delete cluster --name trireme
	exit "$code"
}

IMAGE=$current sh deploy/build-image.sh
# The next release: this one, with a migration more.
head=$(docker run --rm --entrypoint python "$current" -c \
	'from service.platform.database.schema import *; print(repr(read_code_schema(find_migrations()).head))')
docker build --tag "$next" - <<DOCKERFILE
FROM $current
COPY <<MIGRATION /app/migrations/versions/9999_next.py
"""The next release's: adds a table that this release does not know."""

from alembic import op

revision = "9999_next"
down_revision = $head
serves_from = down_revision or revision
breaking = None


def upgrade() -> None:
    op.execute("CREATE TABLE next_release (id bigint PRIMARY KEY)")
MIGRATION
DOCKERFILE

trap end EXIT
# Not every sh runs that at a signal.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
kind create cluster --name trireme --wait 3m ${node:+--image "$node"}
kind load docker-image --name trireme "$current" "$next"
sh deploy/trial.sh "$current" "$next"
