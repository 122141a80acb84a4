{{/* Who is reached. */}}

{{/* Names, Triton and Milvus: what gateway and jobs ask. */}}
{{- define "dafh.egress.servers" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns.peers | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
- to:
    - podSelector:
        matchLabels:
          {{- include "dafh.selector" (list . "triton") | nindent 10 }}
  ports:
    - port: 8001
- to:
    {{- if .Values.milvus.enabled }}
    - podSelector:
        matchLabels:
          {{- include "dafh.milvus.selector" . | nindent 10 }}
    {{- else }}
    {{- toYaml .Values.networkPolicy.milvus | nindent 4 }}
    {{- end }}
  ports:
    - port: {{ include "dafh.milvus.port" . }}
{{- end -}}

{{/* Labels that the chart of Milvus gives to all of its own pods. */}}
{{- define "dafh.milvus.selector" -}}
app.kubernetes.io/name: {{ default "milvus" .Values.milvus.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dafh.milvus.port" -}}
{{- regexFind "[0-9]+$" (include "dafh.milvus.uri" .) -}}
{{- end -}}

{{/* Port of whoever is behind an address. Called with (list given address usual). */}}
{{- define "dafh.port" -}}
{{- $told := regexReplaceAll "^https?://[^/]*?(:([0-9]+))?(/.*)?$" (index . 1) "${2}" -}}
{{- if index . 0 -}}{{ index . 0 }}{{- else -}}{{ default (index . 2) $told }}{{- end -}}
{{- end -}}
