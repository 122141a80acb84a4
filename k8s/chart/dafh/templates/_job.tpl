{{/* A job of `dafh`. Called with (list context name job), the job with all its defaults. */}}

{{/* What it is told. */}}
{{- define "dafh.job.arguments" -}}
{{- $job := . -}}
{{- if eq $job.command "dafh" -}}
{{- toYaml $job.arguments -}}
{{- else if eq $job.command "switch" -}}
- archive
- switch
- {{ $job.archive }}
- {{ $job.coding }}
{{- if $job.allowMissing }}
- --allow-missing
{{- end }}
{{- else if eq $job.command "export-codes" -}}
- export-codes
- {{ $job.archive }}
# Each job in a folder of its own: a complete export is never written to.
- --out={{ $job.out | trimSuffix "/" }}/$(JOB_NAME)
{{- else if eq $job.command "reindex" -}}
- reindex
- {{ $job.archive }}
- --model={{ $job.model }}
{{- range $job.sources }}
- --from={{ . }}
{{- end }}
{{- if $job.switch }}
- --switch
{{- end }}
{{- if $job.allowMissing }}
- --allow-missing
{{- end }}
{{- else -}}
- index
{{- range $job.sources }}
- {{ . }}
{{- end }}
- --archive={{ $job.archive }}
- --frames={{ $job.frames }}
{{- with $job.labels }}
- --labels={{ . }}
{{- end }}
{{- end }}
{{- if ne $job.command "dafh" }}
- --tenant={{ $job.tenant }}
{{- end }}
{{- if has $job.command (list "index" "reindex") }}
- --journal=/var/lib/dafh/journal.sqlite
- --report=/var/lib/dafh/report
{{- if $job.selection }}
- --selection=/etc/dafh/selection/rules.toml
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether a folder is in one of its volumes. Called with (list job folder). */}}
{{- define "dafh.job.mounted" -}}
{{- $folder := printf "%s/" (index . 1 | trimSuffix "/") -}}
{{- range (index . 0).volumes -}}
{{- if hasPrefix (printf "%s/" (.path | trimSuffix "/")) $folder }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "dafh.job.spec" -}}
{{- $context := index . 0 -}}
{{- $name := index . 1 -}}
{{- $job := index . 2 -}}
{{- $remembers := has $job.command (list "index" "reindex") -}}
completionMode: Indexed
completions: {{ $job.shards }}
parallelism: {{ default $job.shards $job.parallelism }}
backoffLimitPerIndex: {{ $job.retries }}
{{- with $job.deadlineHours }}
activeDeadlineSeconds: {{ mul . 3600 }}
{{- end }}
# By the exit codes of docs/jobs.md. 1 and 4, and what a killed container leaves, count as tries.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
    # Told to stop: all is stored, and it goes on there.
    - action: Ignore
      onExitCodes: {containerName: dafh, operator: In, values: [75]}
    # Set-up, source or model: it is so for every part.
    - action: FailJob
      onExitCodes: {containerName: dafh, operator: In, values: [2, 3, 5]}
    - action: FailIndex
      onExitCodes: {containerName: dafh, operator: In, values: [70]}
template:
  metadata:
    labels:
      {{- include "dafh.labels" (list $context "jobs") | nindent 6 }}
      dafh/job: {{ $name }}
  spec:
    {{- include "dafh.pod" (list $context "jobs") | nindent 4 }}
    {{- include "dafh.priority" (list $context "batch") | nindent 4 }}
    restartPolicy: Never
    # For the batches in hand.
    terminationGracePeriodSeconds: 120
    {{- include "dafh.placement" $job | nindent 4 }}
    containers:
      - name: dafh
        image: {{ include "dafh.image" (list $context "jobs") }}
        imagePullPolicy: {{ $context.Values.images.pullPolicy }}
        {{- include "dafh.container" . | nindent 8 }}
        args:
          {{- include "dafh.job.arguments" $job | nindent 10 }}
        env:
          {{- include "dafh.env" (list $context $job.cpus) | nindent 10 }}
          - name: DAFH_LIMITS__MEMORY_BYTES
            value: {{ mul $job.decodeMib 1048576 | quote }}
          - name: DAFH_BATCHES
            value: {{ $job.batches | quote }}
          - name: DAFH_SERVER_PATIENCE
            value: {{ $job.patienceSeconds | quote }}
          - name: DAFH_SHARDS
            value: {{ $job.shards | quote }}
          # Said here, since a folder is named by it.
          - name: JOB_COMPLETION_INDEX
            valueFrom:
              fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
          {{- if eq $job.command "export-codes" }}
          - name: JOB_NAME
            valueFrom:
              fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
          {{- end }}
          # The user has no home; what is kept between runs is in /var/lib/dafh.
          - name: XDG_DATA_HOME
            value: /var/lib
          {{- include "dafh.env.settings" $job.settings | nindent 10 }}
        {{- with $job.environmentFrom }}
        envFrom:
          {{- range . }}
          - secretRef: {name: {{ . }}}
          {{- end }}
        {{- end }}
        resources:
          requests:
            cpu: {{ $job.cpus | quote }}
            memory: {{ add 1024 (mul $job.cpus 256) }}Mi
            ephemeral-storage: 1Gi
          limits:
            memory: {{ add 1024 (mul $job.cpus $job.decodeMib) }}Mi
            ephemeral-storage: 12Gi
        volumeMounts:
          {{- include "dafh.mounts" $context | nindent 10 }}
          {{- if $remembers }}
          - name: journal
            mountPath: /var/lib/dafh
            {{- if not $job.journal.perPod }}
            subPathExpr: $(JOB_COMPLETION_INDEX)
            {{- end }}
          {{- end }}
          {{- if and $remembers $job.selection }}
          - name: selection
            mountPath: /etc/dafh/selection
            readOnly: true
          {{- end }}
          {{- range $number, $volume := $job.volumes }}
          - name: data-{{ $number }}
            mountPath: {{ $volume.path }}
            readOnly: {{ ne $volume.readOnly false }}
          {{- end }}
    volumes:
      {{- include "dafh.volumes" $context | nindent 6 }}
      - name: tmp
        emptyDir:
          sizeLimit: 10Gi
      {{- if $remembers }}
      - name: journal
        {{- if $job.journal.perPod }}
        ephemeral:
          volumeClaimTemplate:
            spec:
              accessModes: [ReadWriteOnce]
              {{- with $job.journal.storageClass }}
              storageClassName: {{ . }}
              {{- end }}
              resources:
                requests:
                  storage: {{ $job.journal.size }}
        {{- else }}
        persistentVolumeClaim:
          claimName: {{ default (printf "%s-%s" (include "dafh.fullname" $context) $name) $job.journal.claim }}
        {{- end }}
      {{- end }}
      {{- if and $remembers $job.selection }}
      - name: selection
        configMap:
          name: {{ include "dafh.fullname" $context }}-{{ $name }}
      {{- end }}
      {{- range $number, $volume := $job.volumes }}
      - name: data-{{ $number }}
        persistentVolumeClaim:
          claimName: {{ $volume.claim }}
          readOnly: {{ ne $volume.readOnly false }}
      {{- end }}
{{- end -}}
