#!/bin/sh
# A release's life on a throw-away cluster: install, test, upgrade under load, roll back, uninstall.
#     sh deploy/kind.sh [node image]
# Needs docker, kind, kubectl and helm. Makes the cluster `trireme` and deletes it at the end; KEEP=1 leaves it.
set -eu
cd "$(dirname "$0")/.."

node=${1:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
current=trireme:$version
next=trireme:next

say() {
	printf '\n== %s\n' "$1"
}

end() {
	code=$?
	if [ "$code" != 0 ]; then
		say "what was there when it failed"
		kubectl get all,pvc,events || true
		kubectl logs --all-containers --prefix --tail=50 -l app.kubernetes.io/instance=demo || true
	fi
	[ -n "${KEEP:-}" ] || kind delete cluster --name trireme
	exit "$code"
}

# Two URLs, through the port-forward that an operator would use.
curl_health() {
	kubectl port-forward service/demo-trireme 18000:80 >/dev/null &
	forward=$!
	for probe in livez readyz; do
		curl --fail --silent --show-error --retry 20 --retry-all-errors --retry-delay 1 "http://127.0.0.1:18000/$probe"
		echo
	done
	kill "$forward"
}

image_of_pods() {
	kubectl get pods -l app.kubernetes.io/component=server --field-selector=status.phase=Running \
		-o jsonpath='{.items[*].spec.containers[0].image}'
}

left() {
	kubectl get all,pvc,secret,configmap,serviceaccount,networkpolicy,pdb,ingress \
		-l app.kubernetes.io/instance=demo -o name
}

say "two images: this one, and a next one with a migration more"
IMAGE=$current sh deploy/build-image.sh
head=$(docker run --rm --entrypoint python "$current" -c \
	'from service.database.schema import *; print(repr(read_code_schema(find_migrations()).head))')
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
say "a cluster"
kind create cluster --name trireme --wait 3m ${node:+--image "$node"}
kind load docker-image --name trireme "$current" "$next"

say "install on an empty cluster"
helm install demo helm/ --set database.trial.enabled=true --set image.tag="$version" --wait --timeout 5m
curl_health
helm test demo

say "upgrade under load: no request fails"
kubectl run rollout --image="$current" --restart=Never --command -- sleep 3600
kubectl wait --for=condition=Ready pod/rollout --timeout=60s
kubectl exec -i rollout -- python - http://demo-trireme <deploy/rollout.py &
load=$!
# sample begins: every websocket is told 1012, and resumes
kubectl exec -i rollout -- python - http://demo-trireme <deploy/rollout_chat.py &
members=$!
# sample ends
sleep 10
helm upgrade demo helm/ --reuse-values --set image.tag=next --wait --timeout 5m
sleep 5
kubectl exec rollout -- touch /tmp/stop
wait "$load"
wait "$members" # sample
case "$(image_of_pods)" in *"$current"*) echo "old pods are still there" >&2 && exit 1 ;; esac
helm test demo

say "roll back to the older image, on the newer schema"
helm rollback demo 1 --wait --timeout 5m
case "$(image_of_pods)" in *"$next"*) echo "new pods are still there" >&2 && exit 1 ;; esac
curl_health
helm test demo

say "uninstall leaves nothing"
helm uninstall demo --wait --timeout 3m
kubectl delete pod rollout --now
tries=60 # seconds: what belongs to a Deployment goes after it
while [ -n "$(left)" ]; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || { echo "left behind: $(left)" >&2 && exit 1; }
	sleep 1
done
say "done"
