{{/* Base name of the chart's objects. */}}
{{- define "qwenops.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Full name; at most 40 characters, so that a component's suffix still fits a label. */}}
{{- define "qwenops.fullname" -}}
{{- $name := include "qwenops.name" . -}}
{{- $derived := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $derived .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of an object; call with (dict "root" $ "component" "mlflow"). */}}
{{- define "qwenops.labels" -}}
{{ include "qwenops.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that never change between versions, for selectors. */}}
{{- define "qwenops.selectorLabels" -}}
app.kubernetes.io/name: {{ include "qwenops.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: qwenops
{{- end }}

{{/* Name of an account; call with (dict "root" $ "account" "ray"). */}}
{{- define "qwenops.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .account -}}
{{- default (printf "%s-%s" (include "qwenops.fullname" .root) .account) $account.name -}}
{{- end }}

{{/* Image reference; call with (dict "root" $ "image" .Values.images.server). */}}
{{- define "qwenops.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end }}

{{/* Labels and annotations of a pod; call with (dict "root" $ "component" "mlflow"). */}}
{{- define "qwenops.podMetadata" -}}
labels:
  {{- include "qwenops.labels" . | nindent 2 }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.pods.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every pod of the chart has; call with (dict "root" $ "account" "mlflow" "user" 1000 "token" false). */}}
{{- define "qwenops.podSpec" -}}
serviceAccountName: {{ include "qwenops.serviceAccount" . }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every container of the chart has. */}}
{{- define "qwenops.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Environment of the server image: writable folders, no telemetry. */}}
{{- define "qwenops.serverEnv" -}}
- {name: HOME, value: /tmp}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
{{- with .Values.pods.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Environment, mount and volume of a pod that calls the Kubeflow Pipelines API. */}}
{{- define "qwenops.kubeflowEnv" -}}
- {name: KF_PIPELINES_ENDPOINT, value: {{ .Values.kubeflow.endpoint | quote }}}
{{- if .Values.kubeflow.tokenAudience }}
- {name: KF_PIPELINES_SA_TOKEN_PATH, value: /var/run/secrets/kubeflow/pipelines/token}
{{- end }}
{{- end }}

{{- define "qwenops.kubeflowMount" -}}
{{- if .Values.kubeflow.tokenAudience -}}
- {name: kubeflow-token, mountPath: /var/run/secrets/kubeflow/pipelines, readOnly: true}
{{- end }}
{{- end }}

{{- define "qwenops.kubeflowVolume" -}}
{{- if .Values.kubeflow.tokenAudience -}}
- name: kubeflow-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.kubeflow.tokenAudience }}
          expirationSeconds: {{ .Values.kubeflow.tokenSeconds }}
{{- end }}
{{- end }}

{{/* Secrets and address of the object store. */}}
{{- define "qwenops.objectStoreSecret" -}}
{{- if .Values.objectStore.server.enabled -}}
{{ include "qwenops.fullname" . }}-object-store
{{- else -}}
{{ .Values.objectStore.existingSecret }}
{{- end -}}
{{- end }}

{{- define "qwenops.objectStoreEndpoint" -}}
{{- if .Values.objectStore.server.enabled -}}
http://{{ include "qwenops.fullname" . }}-object-store:8333
{{- else -}}
{{ .Values.objectStore.endpoint }}
{{- end -}}
{{- end }}

{{/* Environment of a pod that reads and writes the bucket. */}}
{{- define "qwenops.objectStoreEnv" -}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.objectStore.region | quote }}}
{{- with include "qwenops.objectStoreEndpoint" . }}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with include "qwenops.objectStoreSecret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- end }}

{{/* Environment of a pod that opens MLflow's database. */}}
{{- define "qwenops.databaseEnv" -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom:
    secretKeyRef:
      name: {{ default (printf "%s-postgresql" (include "qwenops.fullname" .)) .Values.mlflow.database.existingSecret }}
      key: {{ ternary .Values.mlflow.database.key "uri" (ne .Values.mlflow.database.existingSecret "") }}
{{- end }}

{{/* Value of a key of a secret in the cluster, or a new random one; call with (dict "root" $ "secret" name "key" key). */}}
{{- define "qwenops.keptOrRandom" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $kept := dig "data" .key "" (default dict $found) -}}
{{- if $kept -}}
{{ $kept | b64dec }}
{{- else -}}
{{ randAlphaNum 32 }}
{{- end -}}
{{- end }}

{{/* Container and volumes of a pod that runs the command line; call with root, name, args, resources, pipelines. */}}
{{- define "qwenops.command" -}}
containers:
  - name: {{ .name }}
    image: {{ include "qwenops.image" (dict "root" .root "image" .root.Values.images.server) }}
    imagePullPolicy: {{ .root.Values.images.server.pullPolicy }}
    command: [qwenops]
    args:
      {{- toYaml .args | nindent 6 }}
    env:
      {{- include "qwenops.serverEnv" .root | nindent 6 }}
      {{- include "qwenops.kubeflowEnv" .root | nindent 6 }}
      - name: POD_NAMESPACE
        valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
      - {name: PIPELINE_ACCOUNT, value: {{ include "qwenops.serviceAccount" (dict "root" .root "account" "pipeline") }}}
    {{- include "qwenops.containerSecurity" .root | nindent 4 }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- include "qwenops.kubeflowMount" .root | nindent 6 }}
      {{- if .pipelines }}
      - {name: pipelines, mountPath: /etc/qwenops/pipelines, readOnly: true}
      {{- end }}
      {{- with .root.Values.pods.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  {{- include "qwenops.kubeflowVolume" .root | nindent 2 }}
  {{- with .pipelines }}
  - name: pipelines
    configMap: {name: {{ . }}}
  {{- end }}
  {{- with .root.Values.pods.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
