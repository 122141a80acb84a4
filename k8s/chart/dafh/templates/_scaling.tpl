{{/* By what replicas are counted. */}}

{{/* Queries in hand or in line, of all gateway pods. */}}
{{- define "dafh.gateway.inflight" -}}
sum(dafh_stage_busy{stage="a query",namespace="{{ .Release.Namespace }}",job="{{ include "dafh.fullname" . }}-gateway-metrics"})
+ sum(dafh_stage_waiting{stage="a query",namespace="{{ .Release.Namespace }}",job="{{ include "dafh.fullname" . }}-gateway-metrics"})
{{- end -}}

{{/*
Mean wait of a request in Triton's queue, microseconds: the sum of the pods' rates over the sum of
theirs, so that a busy pod counts for more than an idle one. Without a request it is 0, not NaN.
*/}}
{{- define "dafh.triton.queue" -}}
{{- $of := printf "{namespace=%q,job=%q}" .Release.Namespace (printf "%s-triton-metrics" (include "dafh.fullname" .)) -}}
sum(rate(nv_inference_queue_duration_us{{ $of }}[2m]))
/ (sum(rate(nv_inference_request_success{{ $of }}[2m])) > 0)
or vector(0)
{{- end -}}

{{- define "dafh.behaviour" -}}
scaleUp:
  stabilizationWindowSeconds: 30
scaleDown:
  stabilizationWindowSeconds: 600
  policies:
    - type: Pods
      value: 1
      periodSeconds: 120
{{- end -}}
