{{/* Atoll's file: TOML of what values.yaml has by the same keys. */}}

{{/*
A value. Strings, numbers and booleans of TOML are written as those of JSON; a table is an inline one. { secret, key } becomes the path where
that key is mounted.
*/}}
{{- define "atoll.value" -}}
{{- if kindIs "map" . -}}
  {{- if and (eq (len .) 2) (hasKey . "secret") (hasKey . "key") -}}
    {{- printf "file:/run/atoll/secrets/%s/%s" .secret .key | quote -}}
  {{- else -}}
    {{- printf "{ %s }" (include "atoll.lines" . | splitList "\n" | join ", ") -}}
  {{- end -}}
{{- else if kindIs "slice" . -}}
  {{- $items := list -}}
  {{- range . }}{{ $items = append $items (include "atoll.value" .) }}{{ end -}}
  {{- printf "[%s]" (join ", " $items) -}}
{{- else -}}
  {{- toRawJson . -}}
{{- end -}}
{{- end }}

{{- define "atoll.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end }}

{{/* The lines of a table. What is null is left out. */}}
{{- define "atoll.lines" -}}
{{- $lines := list -}}
{{- range $key, $value := . -}}
  {{- if not (kindIs "invalid" $value) -}}
    {{- $lines = append $lines (printf "%s = %s" (include "atoll.key" $key) (include "atoll.value" $value)) -}}
  {{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end }}

{{/* The address that every node listens on. */}}
{{- define "atoll.ip" -}}
{{- if contains ":" .Values.listenOn }}[{{ .Values.listenOn }}]{{ else }}{{ .Values.listenOn }}{{ end -}}
{{- end }}

{{/*
Where the origins are, by their pods' own names: each follower chooses one. Of `.`: root, and from, the one that is preferred, so that followers
are shared out.
*/}}
{{- define "atoll.urls" -}}
{{- $name := include "atoll.name" .root -}}
{{- $origin := .root.Values.origin -}}
{{- $scheme := ternary "https" "http" (hasKey $origin.config "tls") -}}
{{- $urls := $origin.urls -}}
{{- if not $urls -}}
  {{- range $i := until (int $origin.replicas) -}}
    {{- $urls = append $urls (printf "%s://%s-origin-%d.%s-origin.%s.svc:7070" $scheme $name $i $name $.root.Release.Namespace) -}}
  {{- end -}}
{{- end -}}
{{- $from := mod .from (len $urls) -}}
{{- include "atoll.value" (concat (slice $urls $from) (slice $urls 0 $from)) -}}
{{- end }}

{{/* What every file begins with. */}}
{{- define "atoll.head" -}}
data = "/var/lib/atoll"
{{- with .Values.drain }}
drain = {{ . | quote }}
{{- end }}

[network]
{{ include "atoll.lines" .Values.network }}
{{- end }}

{{/* [origin] as a follower needs it. Of `.`: root, from. */}}
{{- define "atoll.originOfFollower" -}}
[origin]
url = {{ include "atoll.urls" . }}
{{ include "atoll.lines" (pick .root.Values.origin.config "ca" "follow_token") }}
{{- end }}

{{/* [regions.NAME]. What else values.yaml has of a region is the chart's. */}}
{{- define "atoll.region" -}}
[regions.{{ .name }}]
{{ include "atoll.lines" (pick . "latitude" "longitude" "clients" "redis") }}
{{- end }}

{{/* What the journal keeps, and `atoll apply` puts in force. */}}
{{- define "atoll.network" -}}
{{- range .Values.regions }}
{{ include "atoll.region" . }}
{{ end }}
{{- range $kind := list "zones" "sites" "upstreams" "routes" }}
{{- range $name, $table := index $.Values $kind }}
{{- if $table }}
[{{ $kind }}.{{ include "atoll.key" $name }}]
{{ include "atoll.lines" $table }}
{{ end }}
{{- end }}
{{- end }}
{{- end }}
