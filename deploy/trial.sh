#!/bin/sh
# A release's life on the cluster that kubectl and helm speak with: install, test, upgrade under load, roll back, uninstall.
#     sh deploy/trial.sh IMAGE NEXT
# Two tags of one repository, which the cluster's nodes can get: this release's, and one with a migration more (see kind.sh).
# Everything happens in a namespace of its own, `trireme-trial`, deleted at the end; KEEP=1 leaves it.
set -eu
CDPATH='' cd "$(dirname "$0")/.."

[ $# = 2 ] || { echo "usage: sh deploy/trial.sh IMAGE NEXT" >&2 && exit 2; }
for tool in kubectl helm curl; do
	command -v "$tool" >/dev/null || { echo "a trial needs $tool, which is not here" >&2 && exit 1; }
done

current=$1
next=$2
namespace=trireme-trial
background=
starting= # something of which it does not have the number yet

say() {
	printf '\n== %s\n' "$1"
}

k() {
	kubectl --namespace "$namespace" "$@"
}

# A signal ends a shell as a failure does, with its trap at EXIT, which not every sh runs at a signal.
end_at_signals() {
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

end() {
	code=$?
	trap - EXIT
	# What runs in the background of a script does not heed Ctrl-C.
	[ -z "$starting" ] || background="$background ${!:-}"
	# shellcheck disable=SC2086  # a number each
	kill $background 2>/dev/null || true
	if [ "$code" != 0 ]; then
		say "what was there when it failed"
		k get all,pvc,events || true
		k logs --all-containers --prefix --tail=50 -l app.kubernetes.io/instance=demo || true
	fi
	[ -n "${KEEP:-}" ] || kubectl delete namespace "$namespace" --timeout=120s || true
	exit "$code"
}

# Two URLs, through the port-forward that an operator would use.
curl_health() {
	starting=1
	kubectl --namespace "$namespace" port-forward service/demo-trireme 18000:80 >/dev/null &
	background=$! starting=
	for probe in livez readyz; do
		curl --fail --silent --retry 20 --retry-all-errors --retry-delay 1 "http://127.0.0.1:18000/$probe" ||
			{ echo "no /$probe through the port-forward" >&2 && exit 1; }
		echo
	done
	kill "$background"
	background=
}

# A change of the release to that image, with clients that count what fails until the last of the old pods has drained.
under_load() {
	image=$1
	shift
	k exec rollout -- rm -f /tmp/stop
	starting=1
	kubectl --namespace "$namespace" exec -i rollout -- python - http://demo-trireme <deploy/rollout.py &
	background=$! starting=
	for watcher in tests/*/rollout.py; do # what the clients of a feature see, where it has such a script
		[ -f "$watcher" ] || continue
		starting=1
		kubectl --namespace "$namespace" exec -i rollout -- python - http://demo-trireme <"$watcher" &
		background="$background $!" starting=
	done
	sleep 10
	"$@"
	soon all_pods_run "$image" || { echo "not all pods run $image" >&2 && exit 1; }
	k exec rollout -- touch /tmp/stop
	for client in $background; do wait "$client"; done
	background=
}

# Until a command succeeds, a minute at the most.
soon() {
	tries=60
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 1
	done
}

# Helm waits for the new pods to be ready, and the old ones still drain then.
all_pods_run() {
	[ "$(k get pods -l app.kubernetes.io/component=server \
		-o jsonpath='{range .items[*]}{.spec.containers[0].image}{"\n"}{end}' | sort -u)" = "$1" ]
}

nothing_is_left() {
	[ -z "$(left)" ]
}

left() {
	k get all,pvc,secret,configmap,serviceaccount,networkpolicy,pdb,ingress -l app.kubernetes.io/instance=demo -o name
}

# The notes' commands, as the block that people paste.
run_notes() {
	block=$(helm get notes demo --namespace "$namespace" | sed -n -e 's/^  kubectl /kubectl /p' -e 's/^  curl /curl --fail /p')
	(
		trap 'kill $forwards 2>/dev/null' EXIT
		end_at_signals
		forwards=
		eval "$(printf '%s\n' "$block" | sed 's/&$/\& forwards="$forwards $!"/')"
	)
}

# Those of the runbook that only look, each by itself; what they are piped into finds something or nothing.
run_runbook() {
	awk '/^```sh/ {on = 1; next} /^```/ {on = 0} on' deploy/runbook.md | sed -e 's/ *# .*//' -e 's/ | .*//' |
		grep -E '^kubectl (logs -l|get|exec deploy/demo-trireme -- service (check|settings|tasks|info))' |
		grep -v '\\$' | while read -r line; do
		eval "k ${line#kubectl }" >/dev/null </dev/null || { echo "the runbook's command failed: $line" >&2 && exit 1; }
	done
}

# An upgrade to the version that runs, with more values.
change() {
	helm upgrade demo helm/ --namespace "$namespace" --reset-then-reuse-values --wait --timeout 5m "$@"
	[ "$(k get deployment demo-trireme -o 'jsonpath={.spec.replicas}')" = 2 ] ||
		{ echo "the number of pods changed with $*" >&2 && exit 1; }
}

hand_over() {
	change --set autoscaling.external=true --set autoscaling.keepReplicas=2
	printf 'apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: demo-trireme}\nspec: {replicas: 2}\n' |
		k apply --server-side --field-manager=autoscaler --validate=false -f -
	change --set autoscaling.keepReplicas=null
}

kubectl create namespace "$namespace"
trap end EXIT
end_at_signals

say "install on an empty cluster"
helm install demo helm/ --namespace "$namespace" --set database.trial.enabled=true \
	--set image.repository="${current%:*}" --set-string image.tag="${current##*:}" --wait --timeout 5m
curl_health
helm test demo --namespace "$namespace"

say "the commands of notes and runbook"
run_notes
run_runbook

k run rollout --image="$current" --restart=Never --command -- sleep 3600
k wait --for=condition=Ready pod/rollout --timeout=60s

say "upgrade under load: no request fails"
under_load "$next" helm upgrade demo helm/ --namespace "$namespace" --reset-then-reuse-values --set-string image.tag="${next##*:}" \
	--wait --timeout 5m
helm test demo --namespace "$namespace"

say "roll back under load to the older image, on the newer schema"
under_load "$current" helm rollback demo 1 --namespace "$namespace" --wait --timeout 5m
curl_health
helm test demo --namespace "$namespace"

say "hand the number of pods over, without a change of it"
hand_over

say "uninstall leaves nothing"
helm uninstall demo --namespace "$namespace" --wait --timeout 3m
k delete pod rollout --now
# What belongs to a Deployment goes after it.
soon nothing_is_left || { echo "left behind: $(left)" >&2 && exit 1; }
say "done"
