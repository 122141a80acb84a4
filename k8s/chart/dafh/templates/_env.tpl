{{/* The environment of our programs. A test holds every name against the program's settings. */}}

{{/* What gateway and jobs both need. Called with (list context decodeWorkers). */}}
{{- define "dafh.env" -}}
{{- $context := index . 0 -}}
{{- $index := $context.Values.index -}}
- name: DAFH_MODEL_VERSION
  value: {{ $context.Values.models.version | quote }}
- name: DAFH_TRITON_ADDRESS
  value: dns:///{{ include "dafh.triton.host" $context }}:8001
- name: DAFH_TRITON_CA
  value: /etc/dafh/client-tls/ca.crt
- name: DAFH_TRITON_CERTIFICATE
  value: /etc/dafh/client-tls/tls.crt
- name: DAFH_TRITON_KEY
  value: /etc/dafh/client-tls/tls.key
- name: DAFH_MILVUS_URI
  value: {{ include "dafh.milvus.uri" $context }}
- name: DAFH_MILVUS_CA
  value: /etc/dafh/milvus-tls/ca.crt
- name: DAFH_MILVUS_CERTIFICATE
  value: /etc/dafh/milvus-tls/tls.crt
- name: DAFH_MILVUS_KEY
  value: /etc/dafh/milvus-tls/tls.key
{{- with $index.serverName }}
- name: DAFH_MILVUS_SERVER_NAME
  value: {{ . }}
{{- end }}
{{- with $index.database }}
- name: DAFH_MILVUS_DATABASE
  value: {{ . }}
{{- end }}
{{- if $index.credentials.secretName }}
- name: DAFH_MILVUS_CREDENTIALS
  value: /etc/dafh/milvus-credentials/{{ $index.credentials.key }}
{{- end }}
- name: DAFH_MILVUS_TENANCY
  value: {{ $index.tenancy }}
- name: DAFH_BITS
  value: {{ $index.bits | quote }}
- name: DAFH_PATIENT_KEY_FILE
  value: /etc/dafh/patient-key/{{ $context.Values.secrets.patientKey.key }}
# Said, and not left to be counted: a container sees all processors of its node.
- name: DAFH_DECODE_WORKERS
  value: {{ index . 1 | quote }}
{{- end -}}

{{/* Further settings of a program: NAME without DAFH_ -> value. */}}
{{- define "dafh.env.settings" -}}
{{- range $name, $value := . }}
- name: DAFH_{{ $name }}
  # Helm reads whole numbers as floats; they must not be written as 1e+06.
  value: {{ if kindIs "float64" $value }}{{ if eq $value (floor $value) }}{{ int64 $value | quote }}{{ else }}{{ $value | quote }}{{ end }}{{ else }}{{ $value | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* The files that it names. */}}
{{- define "dafh.mounts" -}}
- name: client-tls
  mountPath: /etc/dafh/client-tls
  readOnly: true
- name: milvus-tls
  mountPath: /etc/dafh/milvus-tls
  readOnly: true
{{- if .Values.index.credentials.secretName }}
- name: milvus-credentials
  mountPath: /etc/dafh/milvus-credentials
  readOnly: true
{{- end }}
- name: patient-key
  mountPath: /etc/dafh/patient-key
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "dafh.volumes" -}}
{{ include "dafh.tls.volume" (list . "client" "client-tls") }}
{{ include "dafh.tls.volume" (list . "milvus" "milvus-tls") }}
{{- with .Values.index.credentials.secretName }}
- name: milvus-credentials
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
- name: patient-key
  secret:
    secretName: {{ required "secrets.patientKey.secretName: name the Secret with the key of patient pseudonyms (docs/deploy.md)" .Values.secrets.patientKey.secretName }}
    defaultMode: 0440
{{- end -}}
