{{/*
A StatefulSet, its headless Service and its PodDisruptionBudget. Of `.`: root, role, region, name, replicas, settings (what values.yaml has for
the role), args, node (for `atoll health`), file (of the ConfigMap), ports, probed (the port that tells how it is), scheme, uses (values that
may name secrets), restartFor (values that only a restart puts in force).
*/}}
{{- define "atoll.statefulset" -}}
{{- $values := .root.Values -}}
{{- $labels := include "atoll.labels" . -}}
{{- $selector := include "atoll.selector" . -}}
{{- $secrets := include "atoll.secretsVolume" .uses -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels: {{- $labels | nindent 4 }}
spec:
  clusterIP: None
  # Who asks here chooses by itself, and knows better than this whom.
  publishNotReadyAddresses: true
  selector: {{- $selector | nindent 4 }}
  ports: {{- toYaml .ports | nindent 4 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels: {{- $labels | nindent 4 }}
spec:
  maxUnavailable: 1
  # Who is not ready anyway shall not hold up a machine that is drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- $selector | nindent 6 }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ .name }}
  labels: {{- $labels | nindent 4 }}
spec:
  serviceName: {{ .name }}
  replicas: {{ .replicas }}
  # Upgrades still take one pod after another.
  podManagementPolicy: Parallel
  minReadySeconds: 10
  selector:
    matchLabels: {{- $selector | nindent 6 }}
  template:
    metadata:
      labels: {{- $selector | nindent 8 }}
      annotations:
        # Changes only with what needs a restart: nodes see the rest of their file change, and take it in.
        checksum/restart: {{ toJson .restartFor | sha256sum | quote }}
        {{- with $values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      terminationGracePeriodSeconds: {{ include "atoll.grace" .root }}
      automountServiceAccountToken: false
      # Else each Service of the namespace becomes variables, ATOLL_... among them.
      enableServiceLinks: false
      securityContext: {{- include "atoll.podSecurity" . | nindent 8 }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .settings.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .settings.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ $key }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- $selector | nindent 14 }}
        {{- end }}
      containers:
        - name: atoll
          image: {{ include "atoll.image" .root }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: {{- toYaml .args | nindent 12 }}
          env:
            # A node has its pod's name, and its file that name too.
            - { name: POD, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
            - { name: ATOLL_CONFIG, value: /etc/atoll/{{ .file }} }
            - { name: ATOLL_NODE, value: {{ .node }} }
            - { name: ATOLL_LOG, value: {{ $values.log.level | quote }} }
            - { name: ATOLL_LOG_FORMAT, value: {{ $values.log.format }} }
            {{- with $values.env }}{{ toYaml . | nindent 12 }}{{ end }}
          ports:
            {{- range .ports }}
            - { name: {{ .name }}, containerPort: {{ .targetPort }}, protocol: {{ default "TCP" .protocol }} }
            {{- end }}
          {{- $probed := printf "port: %s, scheme: %s" .probed (default "HTTP" .scheme) }}
          # Five minutes: an origin may read a long journal first.
          startupProbe: { httpGet: { path: /livez, {{ $probed }} }, periodSeconds: 2, failureThreshold: 150 }
          livenessProbe: { httpGet: { path: /livez, {{ $probed }} }, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3 }
          readinessProbe: { httpGet: { path: /readyz, {{ $probed }} }, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 2 }
          resources: {{- toYaml .settings.resources | nindent 12 }}
          securityContext: {{- include "atoll.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - { name: config, mountPath: /etc/atoll, readOnly: true }
            - { name: data, mountPath: /var/lib/atoll }
            {{- if $secrets }}
            - { name: secrets, mountPath: /run/atoll/secrets, readOnly: true }
            {{- end }}
            {{- with .settings.extraVolumeMounts }}{{ toYaml . | nindent 12 }}{{ end }}
      volumes:
        - name: config
          configMap: { name: {{ include "atoll.name" .root }} }
        {{- if not .settings.persistence.enabled }}
        - name: data
          emptyDir: { sizeLimit: {{ .settings.persistence.size }} }
        {{- end }}
        {{- with $secrets }}{{ . | nindent 8 }}{{ end }}
        {{- with .settings.extraVolumes }}{{ toYaml . | nindent 8 }}{{ end }}
  {{- if .settings.persistence.enabled }}
  volumeClaimTemplates:
    - metadata: { name: data }
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .settings.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources: { requests: { storage: {{ .settings.persistence.size }} } }
  {{- end }}
{{- end }}

{{/* A Service for one pod, which has an address of its own. Of `.`: root, role, region, name, settings, own, ports. */}}
{{- define "atoll.serviceOfOne" -}}
{{- $own := default dict .own -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels: {{- include "atoll.labels" . | nindent 4 }}
  {{- with merge (dict) (default dict $own.annotations) .settings.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .settings.type }}
  {{- with $own.loadBalancerIP }}
  loadBalancerIP: {{ . }}
  {{- end }}
  {{- if ne .settings.type "ClusterIP" }}
  externalTrafficPolicy: {{ .settings.externalTrafficPolicy }}
  {{- end }}
  # Atoll's DNS decides who gets clients; who drains answers those that still come.
  publishNotReadyAddresses: true
  selector:
    {{- include "atoll.selector" . | nindent 4 }}
    statefulset.kubernetes.io/pod-name: {{ .name }}
  ports: {{- toYaml .ports | nindent 4 }}
{{- end }}
