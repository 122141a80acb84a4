{{/* What every pod has, and what its containers may. */}}

{{/* Called with (list context component). */}}
{{- define "dafh.pod" -}}
{{- $context := index . 0 -}}
serviceAccountName: {{ include "dafh.fullname" $context }}-{{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $context.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not $context.Values.openshift }}
  runAsUser: 10001
  runAsGroup: 10001
  # Secrets are mounted for this group; nobody else can read them.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "dafh.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where a pod may run. Called with the component's values. */}}
{{- define "dafh.placement" -}}
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
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Replicas apart from each other, where that can be had. Called with (list context component). */}}
{{- define "dafh.spread" -}}
{{- $arguments := . -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "dafh.selector" $arguments | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{- define "dafh.priority" -}}
{{- $context := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $name := index $context.Values.priority $kind -}}
{{- if or $name $context.Values.priority.create }}
priorityClassName: {{ default (printf "%s-%s" (include "dafh.fullname" $context) $kind) $name }}
{{- end }}
{{- end -}}

{{/* Volume of a certificate. Called with (list context which name). */}}
{{- define "dafh.tls.volume" -}}
- name: {{ index . 2 }}
  secret:
    secretName: {{ include "dafh.tls" (list (index . 0) (index . 1)) }}
    defaultMode: 0440
{{- end -}}
