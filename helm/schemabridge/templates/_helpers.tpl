{{- define "schemabridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* As long as a release's name may be, so that no two of them share it, and short enough for what is appended to it. */}}
{{- define "schemabridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains (include "schemabridge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "schemabridge.name" .) | trunc 53 | trimSuffix "-" -}}
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
{{- if and (eq .Values.kind "DaemonSet") (not .Values.hostPort.enabled) -}}true{{- end -}}
{{- end -}}

{{- define "schemabridge.listen" -}}
{{- $isForOne := or .Values.sidecar (include "schemabridge.isOnNode" .) -}}
{{- default (ternary "127.0.0.1:5000" "0.0.0.0:5000" (not (empty $isForOne))) .Values.listen -}}
{{- end -}}

{{- define "schemabridge.adminListen" -}}
{{- default (ternary "127.0.0.1:5001" "0.0.0.0:5001" (eq (include "schemabridge.isOnNode" .) "true")) .Values.adminListen -}}
{{- end -}}

{{- define "schemabridge.host" -}}{{- regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}{{- end -}}
{{- define "schemabridge.port" -}}{{- splitList ":" . | last -}}{{- end -}}

{{/* An address at which nobody but this pod, or this node, can connect. */}}
{{- define "schemabridge.isLoopback" -}}
{{- $host := include "schemabridge.host" . -}}
{{- if or (hasPrefix "127." $host) (eq $host "::1") -}}true{{- end -}}
{{- end -}}
{{- define "schemabridge.isLocal" -}}{{- include "schemabridge.isLoopback" (include "schemabridge.listen" .) -}}{{- end -}}

{{/* Where a node finds the gateway that is on it. */}}
{{- define "schemabridge.addressOnNode" -}}
{{- if .Values.hostPort.enabled -}}{{ .Values.hostPort.ip }}:{{ .Values.hostPort.port }}
{{- else -}}{{ include "schemabridge.listen" . | replace "0.0.0.0" "127.0.0.1" | replace "[::]" "[::1]" }}
{{- end -}}
{{- end -}}

{{/* Ports beyond the pod: those that the values name, and those of the URLs that the gateway is given. */}}
{{- define "schemabridge.egressPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egressPorts -}}{{- $ports = append $ports (int . | toString) -}}{{- end -}}
{{- $urls := list .Values.store.endpoint -}}
{{- range .Values.upstreams -}}
{{- $proxy := dig "proxy" (dict) (default dict .settings) -}}
{{- $urls = concat $urls (list .url (get $proxy "https") (get $proxy "http")) -}}
{{- end -}}
{{- range compact $urls -}}
{{- $url := urlParse . -}}
{{- $usual := ternary "80" "443" (eq $url.scheme "http") -}}
{{- $ports = append $ports (default $usual (regexFind ":[0-9]+$" $url.host | trimPrefix ":")) -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end -}}

{{/* A duration of the configuration file, in whole seconds. */}}
{{- define "schemabridge.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else -}}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}
{{- end -}}
{{- end -}}

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

{{/* What the pod for `helm test` is called: no selector of the gateway's finds it. */}}
{{- define "schemabridge.testLabels" -}}
app.kubernetes.io/name: {{ include "schemabridge.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What cannot work is said before it is tried. */}}
{{- define "schemabridge.check" -}}
{{- include "schemabridge.checkKind" . -}}
{{- include "schemabridge.checkListeners" . -}}
{{- include "schemabridge.checkDoor" . -}}
{{- include "schemabridge.checkStore" . -}}
{{- end -}}

{{- define "schemabridge.checkKind" -}}
{{- if not (or .Values.existingConfigMap .Values.upstreams .Values.config) -}}
{{- fail "no registry: set `upstreams` (a name and a url), or write `[[upstream]]` tables in `config`" -}}
{{- end -}}
{{- if and .Values.sidecar (not .Values.extraContainers) -}}
{{- fail "a sidecar beside nothing: set `extraContainers` to what it is for" -}}
{{- end -}}
{{- if and .Values.sidecar (eq .Values.kind "DaemonSet") -}}
{{- fail "a sidecar is for its pod, and a DaemonSet for its node: set one of `sidecar` and `kind: DaemonSet`" -}}
{{- end -}}
{{- if and .Values.sidecar (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "Kubernetes %s does not start a sidecar before what it is for: 1.29 does" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and .Values.nodeConfig.enabled (ne .Values.kind "DaemonSet") -}}
{{- fail "`nodeConfig` writes on every node, and only a DaemonSet is there: set `kind: DaemonSet`" -}}
{{- end -}}
{{- if and .Values.hostPort.enabled (ne .Values.kind "DaemonSet") -}}
{{- fail "a port of the node, and on which node is not known: set `kind: DaemonSet`" -}}
{{- end -}}
{{- $ending := add (include "schemabridge.seconds" .Values.drainDelay) (include "schemabridge.seconds" .Values.drainTimeout) -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int $ending) -}}
{{- fail (printf "`drainDelay` and `drainTimeout` take %d seconds together, and Kubernetes would end the gateway before: set `terminationGracePeriodSeconds` to more" (int $ending)) -}}
{{- end -}}
{{- end -}}

{{- define "schemabridge.checkListeners" -}}
{{- $onNode := include "schemabridge.isOnNode" . -}}
{{- $adminIsLocal := include "schemabridge.isLoopback" (include "schemabridge.adminListen" .) -}}
{{- if eq (include "schemabridge.port" (include "schemabridge.listen" .)) (include "schemabridge.port" (include "schemabridge.adminListen" .)) -}}
{{- fail "`listen` and `adminListen` have the same port" -}}
{{- end -}}
{{- if and (include "schemabridge.isLocal" .) (not $onNode) (not .Values.sidecar) -}}
{{- fail (printf "nobody beyond the pod could connect to %s: set `listen` to an address beyond loopback, or `sidecar`" (include "schemabridge.listen" .)) -}}
{{- end -}}
{{- if and $adminIsLocal (not $onNode) -}}
{{- fail (printf "Kubernetes asks at the address of the pod, and could not at %s: set `adminListen` to an address beyond loopback; the page is not open there without a token" (include "schemabridge.adminListen" .)) -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled $onNode -}}
{{- fail "a ServiceMonitor for gateways that have no Service: set `metrics.podMonitor.enabled`, and `adminListen` to an address beyond loopback" -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled $adminIsLocal -}}
{{- fail (printf "Prometheus could not ask at %s: set `adminListen` to an address beyond loopback; the page is not open there without a token" (include "schemabridge.adminListen" .)) -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) (not .Values.tls.certManager.enabled) -}}
{{- fail "TLS without a certificate: set `tls.existingSecret`, or `tls.certManager.enabled`" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef) -}}
{{- fail "cert-manager does not know who issues the certificate: set `tls.certManager.issuerRef`" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "an Ingress for no host: set `ingress.hosts`" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "an HTTPRoute of no gateway: set `httpRoute.parentRefs`" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled .Values.tls.enabled -}}
{{- fail "what serves an HTTPRoute speaks plain HTTP to what is behind it: leave `tls.enabled` to it, or set `httpRoute.enabled` to false and let a TLSRoute in `extraObjects` pass TLS through" -}}
{{- end -}}
{{- end -}}

{{- define "schemabridge.checkDoor" -}}
{{- $asks := ne .Values.tls.clientAuth "none" -}}
{{- if and $asks (or (not .Values.tls.enabled) (not .Values.tls.clientCaSecret)) -}}
{{- fail "clients are asked for certificates: set `tls.enabled`, and `tls.clientCaSecret` to the authorities" -}}
{{- end -}}
{{- if and $asks (not .Values.tls.clientNames) -}}
{{- fail "clients are asked for certificates, and no name in one would let them in: set `tls.clientNames`" -}}
{{- end -}}
{{- $takesLogins := or .Values.door.htpasswd.existingSecret .Values.door.tokens.existingSecret -}}
{{- $isOpen := not (or $takesLogins $asks .Values.door.allowAnonymous (include "schemabridge.isLocal" .)) -}}
{{- range $index, $upstream := .Values.upstreams -}}
{{- $auth := dig "auth" (dict) (default dict $upstream.settings) -}}
{{- $isCallersOwn := and (not $.Values.config) (not $auth) (not $upstream.existingSecret) (or (eq $index 0) $upstream.hosts) -}}
{{- if and $upstream.existingSecret $auth -}}
{{- fail (printf "upstream %s has credentials in two places: set one of `existingSecret` and `settings.auth`" $upstream.name) -}}
{{- end -}}
{{- if and $upstream.existingSecret $isOpen -}}
{{- fail (printf "upstream %s has credentials of the gateway's own, and anybody in the cluster could use them: set `door.htpasswd`, `door.tokens` or `tls.clientAuth`, or `door.allowAnonymous` if that is meant" $upstream.name) -}}
{{- end -}}
{{- if and $takesLogins (or $isCallersOwn (eq (get $auth "mode") "passthrough")) -}}
{{- fail (printf "a login is for the door or for upstream %s, and cannot be for both: set its `existingSecret` or `settings.auth.mode: anonymous`, or let the door go by certificates" $upstream.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "schemabridge.checkStore" -}}
{{- $isOne := or (eq .Values.kind "DaemonSet") .Values.sidecar -}}
{{- $shares := or .Values.store.url (and .Values.persistence.enabled (has "ReadWriteMany" .Values.persistence.accessModes)) -}}
{{- if and (not $isOne) (gt (int (include "schemabridge.replicas" .)) 1) (not $shares) -}}
{{- fail "several replicas, and each would know only the digests that it handed out itself: set `store.url` to a bucket, or `persistence` with `ReadWriteMany`" -}}
{{- end -}}
{{- if and .Values.persistence.enabled (eq .Values.kind "DaemonSet") (not .Values.persistence.existingClaim) -}}
{{- fail "one volume for every node: set `store.url` to a bucket, or `persistence.existingClaim` to a claim that all nodes can mount" -}}
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
