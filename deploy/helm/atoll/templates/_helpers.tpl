{{/* What all names begin with. A dot would end a pod's name in the DNS. */}}
{{- define "atoll.name" -}}
{{- $name := replace "." "-" .Release.Name -}}
{{- $name = ternary $name (printf "%s-atoll" $name) (contains "atoll" $name) -}}
{{- if gt (len $name) 30 }}{{ fail "the release's name is too long: the names of its pods would not fit" }}{{ end -}}
{{- $name -}}
{{- end }}

{{- define "atoll.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- with .region }}
atoll/region: {{ . }}
{{- end }}
{{- end }}

{{- define "atoll.labels" -}}
{{ include "atoll.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "atoll.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end }}

{{/* Longer than the drain and the fifteen seconds that a node may take for what is in hand. */}}
{{- define "atoll.grace" -}}
{{- add (trimSuffix "s" (default "5s" .Values.drain)) 25 -}}
{{- end }}

{{- define "atoll.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "atoll.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
{{- end }}

{{/* The keys of Secrets that a value names: lines of SECRET/KEY. */}}
{{- define "atoll.secretsIn" -}}
{{- if kindIs "map" . -}}
  {{- if and (eq (len .) 2) (hasKey . "secret") (hasKey . "key") -}}
    {{- printf "%s/%s\n" .secret .key -}}
  {{- else -}}
    {{- range . }}{{ include "atoll.secretsIn" . }}{{ end -}}
  {{- end -}}
{{- else if kindIs "slice" . -}}
  {{- range . }}{{ include "atoll.secretsIn" . }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A volume with the keys that a value names, and no others; nothing where it names none. */}}
{{- define "atoll.secretsVolume" -}}
{{- with include "atoll.secretsIn" . | trim | splitList "\n" | compact | uniq | sortAlpha -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      {{- $at := splitList "/" . }}
      - secret: { name: {{ first $at }}, items: [{ key: {{ last $at }}, path: {{ . }} }] }
      {{- end }}
{{- end }}
{{- end }}
