{{/* The gateway's container. */}}
{{- define "schemabridge.container" -}}
- name: schemabridge
  image: {{ include "schemabridge.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if .Values.sidecar }}
  restartPolicy: Always
  {{- end }}
  args:
    - serve
    - --config
    - /etc/schemabridge/config/schemabridge.toml
    {{- with .Values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .Values.envFrom .Values.store.existingSecret }}
  envFrom:
    {{- with .Values.store.existingSecret }}
    - secretRef: {name: {{ . }}}
    {{- end }}
    {{- with .Values.envFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: registry
      containerPort: {{ include "schemabridge.port" (include "schemabridge.listen" .) }}
      protocol: TCP
      {{- if .Values.hostPort.enabled }}
      hostPort: {{ .Values.hostPort.port }}
      hostIP: {{ .Values.hostPort.ip }}
      {{- end }}
    - {name: admin, containerPort: {{ include "schemabridge.port" (include "schemabridge.adminListen" .) }}, protocol: TCP}
  startupProbe:
    {{- include "schemabridge.probe" (list . "/startupz" (dict "periodSeconds" 1 "failureThreshold" 60) .Values.startupProbe) | nindent 4 }}
  livenessProbe:
    {{- include "schemabridge.probe" (list . "/livez" (dict "periodSeconds" 10 "failureThreshold" 6) .Values.livenessProbe) | nindent 4 }}
  readinessProbe:
    {{- include "schemabridge.probe" (list . "/readyz" (dict "periodSeconds" 2 "failureThreshold" 2) .Values.readinessProbe) | nindent 4 }}
  {{- with .Values.lifecycle }}
  lifecycle:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/schemabridge/config, readOnly: true}
    - {name: store, mountPath: /var/lib/schemabridge}
    {{- if .Values.blobCache.enabled }}
    - {name: blobs, mountPath: /var/cache/schemabridge}
    {{- end }}
    {{- range include "schemabridge.mounted" . | fromYamlArray }}
    - {name: {{ .name }}, mountPath: /etc/schemabridge/{{ .path }}, readOnly: true}
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A probe: the chart's own fields, and what the values replace of them. */}}
{{- define "schemabridge.probe" -}}
{{- $root := index . 0 -}}
{{- $get := dict "path" (index . 1) "port" "admin" -}}
{{- if include "schemabridge.isOnNode" $root -}}
{{- $host := include "schemabridge.host" (include "schemabridge.adminListen" $root) -}}
{{- $_ := set $get "host" (get (dict "0.0.0.0" "127.0.0.1" "::" "::1") $host | default $host) -}}
{{- end -}}
{{- mergeOverwrite (dict "httpGet" $get) (index . 2) (index . 3) | toYaml -}}
{{- end -}}

{{/* Secrets and ConfigMaps that are mounted as whole directories, so that a change of them is seen. */}}
{{- define "schemabridge.mounted" -}}
{{- with .Values.signingKey.existingSecret }}
- {name: signing-key, path: signing-key, secret: {{ . }}}
{{- end }}
{{- with include "schemabridge.adminSecret" . }}
- {name: admin, path: admin, secret: {{ . }}}
{{- end }}
{{- with .Values.door.htpasswd.existingSecret }}
- {name: htpasswd, path: htpasswd, secret: {{ . }}}
{{- end }}
{{- with .Values.door.tokens.existingSecret }}
- {name: tokens, path: tokens, secret: {{ . }}}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: tls, path: tls, secret: {{ include "schemabridge.tlsSecret" . }}}
{{- end }}
{{- if ne .Values.tls.clientAuth "none" }}
- {name: client-ca, path: client-ca, secret: {{ .Values.tls.clientCaSecret }}}
{{- end }}
{{- with .Values.caBundle.existingConfigMap }}
- {name: ca, path: ca, configMap: {{ . }}}
{{- end }}
{{- range $index, $upstream := .Values.upstreams }}
{{- if .existingSecret }}
- {name: upstream-{{ $index }}, path: upstreams/{{ .name }}, secret: {{ .existingSecret }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The template of a pod. */}}
{{- define "schemabridge.pod" -}}
metadata:
  labels:
    {{- include "schemabridge.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.podAnnotations .Values.restartOnChange }}
  annotations:
    {{- if .Values.restartOnChange }}
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "schemabridge.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- if include "schemabridge.isOnNode" . }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if or .Values.initContainers .Values.sidecar .Values.nodeConfig.enabled }}
  initContainers:
    {{- with .Values.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if .Values.nodeConfig.enabled }}
    - name: node-config
      image: {{ include "schemabridge.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - client-config
        - containerd
        - --gateway
        - {{ ternary "https" "http" .Values.tls.enabled }}://{{ include "schemabridge.addressOnNode" . }}
        {{- range .Values.nodeConfig.registries }}
        - --upstream
        - {{ . | quote }}
        {{- end }}
        - --write
        - --root
        - /node
      resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
      # What it writes is root's on the node.
      securityContext:
        runAsNonRoot: false
        runAsUser: 0
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL], add: [DAC_OVERRIDE]}
      volumeMounts:
        - {name: node-certs, mountPath: /node/etc/containerd/certs.d}
    {{- end }}
    {{- if .Values.sidecar }}
    {{- include "schemabridge.container" . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    {{- if not .Values.sidecar }}
    {{- include "schemabridge.container" . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "schemabridge.configMap" . }}}
    - name: store
      {{- if .Values.persistence.enabled }}
      persistentVolumeClaim: {claimName: {{ include "schemabridge.claim" . }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ .Values.persistence.size }}}
      {{- end }}
    {{- if .Values.blobCache.enabled }}
    - name: blobs
      emptyDir: {sizeLimit: {{ .Values.blobCache.sizeLimit }}}
    {{- end }}
    {{- range include "schemabridge.mounted" . | fromYamlArray }}
    - name: {{ .name }}
      {{- if .secret }}
      secret: {secretName: {{ .secret }}, defaultMode: 0440}
      {{- else }}
      configMap: {name: {{ .configMap }}}
      {{- end }}
    {{- end }}
    {{- if .Values.nodeConfig.enabled }}
    - name: node-certs
      hostPath: {path: /etc/containerd/certs.d, type: DirectoryOrCreate}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $tolerations := .Values.tolerations }}
  {{- if and (eq .Values.kind "DaemonSet") (not $tolerations) }}
  {{- $tolerations = list (dict "operator" "Exists") }}
  {{- end }}
  {{- with $tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
  {{- else if gt (int (include "schemabridge.replicas" .)) 1 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "schemabridge.selectorLabels" . | nindent 10 }}
  {{- end }}
  {{- $priority := .Values.priorityClassName }}
  {{- if and (eq .Values.kind "DaemonSet") (not $priority) }}
  {{- $priority = "system-node-critical" }}
  {{- end }}
  {{- with $priority }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}
