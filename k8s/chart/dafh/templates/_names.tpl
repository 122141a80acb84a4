{{/* Names, labels and images. */}}

{{- define "dafh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that selectors use: they never change. Called with (list context component). */}}
{{- define "dafh.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ $context.Chart.Name }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "dafh.labels" -}}
{{- $context := index . 0 -}}
{{ include "dafh.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ $context.Chart.Name }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name ($context.Chart.Version | replace "+" "_") }}
{{- end -}}

{{/* Reference of an image; our own are tagged with the version. Called with (list context name). */}}
{{- define "dafh.image" -}}
{{- $context := index . 0 -}}
{{- $image := index $context.Values.images (index . 1) -}}
{{- $registry := default $context.Values.images.registry $image.registry -}}
{{- if $registry -}}{{ $registry }}/{{- end -}}
{{- $image.repository -}}:{{- default $context.Chart.AppVersion $image.tag -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- end -}}
{{- end -}}

{{/*
Name of the Secret with a certificate: of the gateway and of Triton as servers, of gateway and jobs
as clients, and as clients of Milvus. Given, or one that cert-manager makes.
*/}}
{{- define "dafh.tls" -}}
{{- $context := index . 0 -}}
{{- $which := index . 1 -}}
{{- if and (eq $which "milvus") (not $context.Values.tls.milvus.secretName) -}}
{{- $which = "client" -}}
{{- end -}}
{{- default (printf "%s-%s-tls" (include "dafh.fullname" $context) $which) (index $context.Values.tls $which).secretName -}}
{{- end -}}

{{- define "dafh.triton.host" -}}
{{ include "dafh.fullname" . }}-triton.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Where Milvus is: named, or that of the dependency, whose Service is called after the release. */}}
{{- define "dafh.milvus.uri" -}}
{{- if .Values.milvus.enabled -}}
https://{{ include "dafh.milvus.service" . }}.{{ .Release.Namespace }}.svc:19530
{{- else -}}
{{ .Values.index.uri }}
{{- end -}}
{{- end -}}

{{- define "dafh.milvus.service" -}}
{{- if .Values.milvus.fullnameOverride -}}
{{ .Values.milvus.fullnameOverride }}
{{- else if contains "milvus" .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-milvus
{{- end -}}
{{- end -}}

{{/* Whether several of a thing may be asked for at once: what owns the number of replicas. */}}
{{- define "dafh.autoscaled" -}}
{{- $context := index . 0 -}}
{{- if (index $context.Values (index . 1)).autoscaling.by -}}true{{- end -}}
{{- end -}}

{{/* Image of a model repository. */}}
{{- define "dafh.models.image" -}}
{{- $image := .Values.models.image -}}
{{- $registry := default .Values.images.registry $image.registry -}}
{{- if $registry -}}{{ $registry }}/{{- end -}}
{{- $image.repository -}}:{{- default .Chart.AppVersion $image.tag -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- end -}}
{{- end -}}

{{- define "dafh.plans.claim" -}}
{{ default (printf "%s-plans" (include "dafh.fullname" .)) .Values.triton.plans.claim }}
{{- end -}}

{{/* What of Triton nobody may use: all over HTTP but its health; over gRPC what DAFH never asks. */}}
{{- define "dafh.triton.closed.grpc" -}}
shared-memory,model-repository,trace,logging
{{- end -}}
{{- define "dafh.triton.closed.http" -}}
inference,metadata,model-config,model-repository,shared-memory,statistics,trace,logging
{{- end -}}
