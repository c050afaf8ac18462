{{- define "schemabridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is appended to it. */}}
{{- define "schemabridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "schemabridge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "schemabridge.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "schemabridge.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "schemabridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "schemabridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "schemabridge.labels" -}}
{{ include "schemabridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "schemabridge.metadata" -}}
namespace: {{ include "schemabridge.namespace" . }}
labels:
  {{- include "schemabridge.labels" . | nindent 2 }}
{{- end -}}

{{- define "schemabridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "schemabridge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "schemabridge.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry -}}{{- $name = printf "%s/%s" . $name -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The network is the node's. */}}
{{- define "schemabridge.isOnNode" -}}
{{- if eq .Values.kind "DaemonSet" -}}true{{- end -}}
{{- end -}}

{{/* Nobody but this pod, or this node, is to connect. */}}
{{- define "schemabridge.isLocal" -}}
{{- if or .Values.sidecar (eq .Values.kind "DaemonSet") -}}true{{- end -}}
{{- end -}}

{{- define "schemabridge.listen" -}}
{{- default (ternary "127.0.0.1:5000" "0.0.0.0:5000" (eq (include "schemabridge.isLocal" .) "true")) .Values.listen -}}
{{- end -}}

{{- define "schemabridge.adminListen" -}}
{{- default (ternary "127.0.0.1:5001" "0.0.0.0:5001" (eq (include "schemabridge.isOnNode" .) "true")) .Values.adminListen -}}
{{- end -}}

{{- define "schemabridge.port" -}}{{- splitList ":" . | last -}}{{- end -}}

{{- define "schemabridge.replicas" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.maxReplicas }}{{- else -}}{{ .Values.replicaCount }}{{- end -}}
{{- end -}}

{{- define "schemabridge.storeUrl" -}}
{{- default "file:///var/lib/schemabridge" .Values.store.url -}}
{{- end -}}

{{- define "schemabridge.claim" -}}
{{- default (printf "%s-store" (include "schemabridge.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "schemabridge.configMap" -}}
{{- default (printf "%s-config" (include "schemabridge.fullname" .)) .Values.existingConfigMap -}}
{{- end -}}

{{- define "schemabridge.adminSecret" -}}
{{- if .Values.admin.existingSecret -}}{{ .Values.admin.existingSecret }}
{{- else if .Values.admin.token -}}{{ include "schemabridge.fullname" . }}-admin
{{- end -}}
{{- end -}}

{{- define "schemabridge.tlsSecret" -}}
{{- if .Values.tls.existingSecret -}}{{ .Values.tls.existingSecret }}
{{- else -}}{{ include "schemabridge.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/* What cannot work is said before it is tried. */}}
{{- define "schemabridge.check" -}}
{{- if not (or .Values.existingConfigMap .Values.upstreams .Values.config) -}}
{{- fail "no registry: set `upstreams` (a name and a url), or write `[[upstream]]` tables in `config`" -}}
{{- end -}}
{{- $isOne := or (eq .Values.kind "DaemonSet") .Values.sidecar -}}
{{- $shares := or .Values.store.url (and .Values.persistence.enabled (has "ReadWriteMany" .Values.persistence.accessModes)) -}}
{{- if and (not $isOne) (gt (int (include "schemabridge.replicas" .)) 1) (not $shares) -}}
{{- fail "several replicas, and each would know only the digests that it handed out itself: set `store.url` to a bucket, or `persistence` with `ReadWriteMany`" -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.tls.certManager.enabled) -}}
{{- fail "TLS without a certificate: set `tls.existingSecret`, or `tls.certManager.enabled`" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef) -}}
{{- fail "cert-manager does not know who issues the certificate: set `tls.certManager.issuerRef`" -}}
{{- end -}}
{{- if and (ne .Values.tls.clientAuth "none") (or (not .Values.tls.enabled) (not .Values.tls.clientCaSecret)) -}}
{{- fail "clients are asked for certificates: set `tls.enabled`, and `tls.clientCaSecret` to the authorities" -}}
{{- end -}}
{{- $hasDoor := or .Values.door.htpasswd.existingSecret .Values.door.tokens.existingSecret .Values.door.allowAnonymous (ne .Values.tls.clientAuth "none") (eq (include "schemabridge.isLocal" .) "true") -}}
{{- range .Values.upstreams -}}
{{- if and .existingSecret (not $hasDoor) -}}
{{- fail (printf "upstream %s has credentials of the gateway's own, and anybody in the cluster could use them: set `door.htpasswd`, `door.tokens` or `tls.clientAuth`, or `door.allowAnonymous` if that is meant" .name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "an Ingress for no host: set `ingress.hosts`" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "an HTTPRoute of no gateway: set `httpRoute.parentRefs`" -}}
{{- end -}}
{{- if and .Values.sidecar (not .Values.extraContainers) -}}
{{- fail "a sidecar beside nothing: set `extraContainers` to what it is for" -}}
{{- end -}}
{{- if and .Values.sidecar (eq .Values.kind "DaemonSet") -}}
{{- fail "a sidecar is for its pod, and a DaemonSet for its node: set one of `sidecar` and `kind: DaemonSet`" -}}
{{- end -}}
{{- if and .Values.nodeConfig.enabled (ne .Values.kind "DaemonSet") -}}
{{- fail "`nodeConfig` writes on every node, and only a DaemonSet is there: set `kind: DaemonSet`" -}}
{{- end -}}
{{- end -}}

{{/* A value of the configuration file. */}}
{{- define "schemabridge.toml" -}}
{{- if kindIs "string" . -}}{{ toJson . }}
{{- else if kindIs "slice" . -}}[{{- range $i, $item := . -}}{{- if $i }}, {{ end -}}{{ include "schemabridge.toml" $item }}{{- end -}}]
{{- else if kindIs "map" . -}}{ {{- $first := true -}}{{- range $key, $value := . -}}{{- if not $first }}, {{ end }} {{ $key }} = {{ include "schemabridge.toml" $value }}{{- $first = false -}}{{- end }} }
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}
