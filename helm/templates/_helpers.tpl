{{/* Helm knows a template by its name alone, in all charts under one parent: each name begins with this chart's. */}}
{{- define "trireme.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* A name that every object may have, a Service too (RFC 1035), and at most 45 characters: a StatefulSet's pods carry its name
plus 11 in a label of at most 63. What had to be changed ends with a hash of what it was, so that no two become one. */}}
{{- define "trireme.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full = default $full .Values.fullnameOverride -}}
{{- $safe := $full | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $safe) }}{{ $safe = printf "r-%s" $safe }}{{ end -}}
{{- if or (ne $safe $full) (gt (len $safe) 45) -}}
{{- $safe | trunc 36 | trimSuffix "-" }}-{{ sha256sum $full | trunc 8 -}}
{{- else -}}
{{- $safe -}}
{{- end -}}
{{- end -}}

{{/* What a selector may hold: never a version, since selectors cannot change. Takes (dict "root" $ "component" "..."). */}}
{{- define "trireme.selector" -}}
app.kubernetes.io/name: {{ include "trireme.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The labels of pods: ours before the user's. Takes root, component, and by choice labels. */}}
{{- define "trireme.podLabels" -}}
{{- $own := include "trireme.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" (include "trireme.version" .root | replace "+" "_" | trunc 63 | trimAll "-_.") -}}
{{- mergeOverwrite (dict) .root.Values.commonLabels (default dict .labels) $own | toYaml -}}
{{- end -}}

{{- define "trireme.labels" -}}
{{ include "trireme.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." | quote }}
{{- end -}}

{{/* The metadata of an object. Takes root, component, and by choice suffix, labels and annotations. */}}
{{- define "trireme.metadata" -}}
name: {{ printf "%s%s" (include "trireme.fullname" .root) (default "" .suffix) | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "trireme.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "trireme.version" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{- define "trireme.image" -}}
{{- include "trireme.mirrored" (dict "root" . "image" .Values.image.repository) }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ include "trireme.version" . }}{{ end -}}
{{- end -}}

{{/* An image by the registry for all, where one is set. A first part with a dot or a port, or localhost, is a registry. */}}
{{- define "trireme.mirrored" -}}
{{- with .root.Values.global.imageRegistry -}}
{{- . }}/{{ regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $.image "" -}}
{{- else -}}
{{- .image -}}
{{- end -}}
{{- end -}}

{{- define "trireme.serviceAccountName" -}}
{{- $made := .Values.serviceAccount.create | ternary (include "trireme.fullname" .) "default" -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end -}}

{{/* The longest drain there can be, in whole seconds: service.platform.settings.Settings.drain_bound, rounded up. */}}
{{- define "trireme.grace" -}}
{{- $margin := (include "trireme.settings" . | fromJson).drain_margin -}}
{{- ceil (addf .Values.drain.delay .Values.drain.spread .Values.drain.gracefulTimeout $margin) | int -}}
{{- end -}}

{{/* How many pods are sure to run: what a disruption budget may count from. */}}
{{- define "trireme.minimum" -}}
{{- or .Values.autoscaling.enabled .Values.autoscaling.external | ternary .Values.autoscaling.minReplicas (default 1 .Values.replicaCount) | int -}}
{{- end -}}

{{/* A number of pods, or a percentage of those that are sure to run, rounded up as Kubernetes does. Takes root and pods. */}}
{{- define "trireme.count" -}}
{{- $share := trimSuffix "%" (toString .pods) | float64 -}}
{{- kindIs "string" .pods | ternary (divf (mulf $share (include "trireme.minimum" .root)) 100 | ceil) $share | int -}}
{{- end -}}

{{- define "trireme.databaseSecret" -}}
{{- .Values.database.trial.enabled | ternary (printf "%s-trial" (include "trireme.fullname" .)) .Values.database.existingSecret -}}
{{- end -}}

{{/* What each verb reads that reads the settings: they are checked together, so that a part of them does not do.
Those of `config` as JSON, since 1048576 would otherwise come out as 1.048576e+06. Takes root and skip. */}}
{{- define "trireme.settingsEnv" -}}
- name: SERVICE_DRAIN_DELAY
  value: {{ .root.Values.drain.delay | toJson | quote }}
- name: SERVICE_DRAIN_SPREAD
  value: {{ .root.Values.drain.spread | toJson | quote }}
- name: SERVICE_GRACEFUL_TIMEOUT
  value: {{ .root.Values.drain.gracefulTimeout | toJson | quote }}
{{- range $name, $value := omit .root.Values.config .skip }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- range $name, $key := .root.Values.secrets.keys }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $.root.Values.secrets.existingSecret | quote }}, key: {{ $key | quote }}}
{{- end }}
{{- end -}}

{{/* The first of the Host names that are served, where not every one is. */}}
{{- define "trireme.host" -}}
{{- regexFind "[^,\\s]+" (default "" .Values.config.SERVICE_ALLOWED_HOSTS) -}}
{{- end -}}

{{- define "trireme.passwordFileEnv" -}}
{{- if .Values.database.passwordKey }}
- name: SERVICE_DATABASE_PASSWORD_FILE
  value: /run/database/password
{{- end }}
{{- end -}}

{{/* The environment of a serving process. */}}
{{- define "trireme.env" -}}
{{- include "trireme.withExtraEnv" (dict "root" . "own" (include "trireme.ownEnv" .)) -}}
{{- end -}}

{{/* An environment and extraEnv. Where that names the same, it wins: a name may stand there only once. What refers to other
names comes last, since Kubernetes resolves only what stands before it. Takes root and own. */}}
{{- define "trireme.withExtraEnv" -}}
{{- $extra := list }}
{{- range .root.Values.extraEnv }}
{{- $extra = append $extra .name }}
{{- end }}
{{- $env := list }}
{{- $referring := list }}
{{- range .own | fromYamlArray }}
{{- if not (has .name $extra) }}
{{- if contains "$(" (toString .value) }}
{{- $referring = append $referring . }}
{{- else }}
{{- $env = append $env . }}
{{- end }}
{{- end }}
{{- end }}
{{- concat $env .root.Values.extraEnv $referring | toYaml }}
{{- end -}}

{{/* Where the pod is; `config` may refer to it. */}}
{{- define "trireme.placeEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
{{- end -}}

{{- define "trireme.ownEnv" -}}
# The chart owns these: ports, probes and the grace period go with them.
- name: SERVICE_BIND
  value: "[::]:8000"
- name: SERVICE_MANAGEMENT_BIND
  value: "[::]:9000"
{{ include "trireme.settingsEnv" (dict "root" . "skip" "") }}
- name: SERVICE_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ include "trireme.databaseSecret" . | quote }}, key: {{ .Values.database.urlKey | quote }}}
{{- with .Values.database.directUrlKey }}
- name: SERVICE_DATABASE_DIRECT_URL
  valueFrom:
    secretKeyRef: {name: {{ include "trireme.databaseSecret" $ | quote }}, key: {{ . | quote }}}
{{- end }}
{{- include "trireme.passwordFileEnv" . }}
{{ include "trireme.placeEnv" . }}
- name: OTEL_SERVICE_NAME
  value: {{ include "trireme.fullname" . | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "k8s.namespace.name={{ .Release.Namespace }},k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME),service.version={{ include "trireme.version" . }}"
{{- with .Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* A container of the service's image, without name, arguments, environment and resources. */}}
{{- define "trireme.container" -}}
image: {{ include "trireme.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.database.passwordKey }}
  - {name: database-password, mountPath: /run/database, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What all pods of the service's image share. Takes root and serviceAccountName. */}}
{{- define "trireme.pod" -}}
{{- with .root.Values -}}
serviceAccountName: {{ $.serviceAccountName | quote }}
automountServiceAccountToken: false
# A Service named "service" would otherwise put SERVICE_* names of its own into the environment.
enableServiceLinks: false
securityContext:
  {{- toYaml .podSecurityContext | nindent 2 }}
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ .tmpSize | quote }}}
  {{- if .database.passwordKey }}
  - name: database-password
    secret:
      secretName: {{ include "trireme.databaseSecret" $.root | quote }}
      defaultMode: 0440
      items: [{key: {{ .database.passwordKey | quote }}, path: password}]
  {{- end }}
  {{- with .extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}
