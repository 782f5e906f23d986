{{/* Where the namespace is shared, only what a compiled pipeline and its launcher label: others run workflows and Ray there too. */}}
{{- define "qwenops.ours" -}}
{{- if eq .Values.networkPolicy.scope "chart" }}
- {key: app.kubernetes.io/part-of, operator: In, values: [qwenops]}
{{- end }}
{{- end }}

{{/* Selectors of the pods that are not the chart's own, as other components label them. */}}
{{- define "qwenops.stepSelector" -}}
matchExpressions:
  - {key: workflows.argoproj.io/workflow, operator: Exists}
  {{- include "qwenops.ours" . | nindent 2 }}
{{- end }}

{{- define "qwenops.raySelector" -}}
matchExpressions:
  - {key: ray.io/node-type, operator: Exists}
  {{- include "qwenops.ours" . | nindent 2 }}
{{- end }}

{{/* KubeRay gives the pod that submits a job no label of its own; it is a Job's pod, and the launcher's label marks it. */}}
{{- define "qwenops.submitterSelector" -}}
matchExpressions:
  - {key: batch.kubernetes.io/job-name, operator: Exists}
  - {key: app.kubernetes.io/component, operator: NotIn, values: [trigger]}
  {{- include "qwenops.ours" . | nindent 2 }}
{{- end }}

{{/* Egress rules that more than one policy has; each is a list, for nindent. */}}
{{- define "qwenops.egressToDns" -}}
{{- with .Values.networkPolicy.dns }}
- to:
    - namespaceSelector:
        matchLabels:
          {{- toYaml .namespaceLabels | nindent 10 }}
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

{{- define "qwenops.egressToServices" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "qwenops.selectorLabels" (dict "root" . "component" "mlflow") | nindent 10 }}
  ports: [{port: 5000, protocol: TCP}]
- to:
    - podSelector:
        matchLabels:
          {{- include "qwenops.selectorLabels" (dict "root" . "component" "object-store") | nindent 10 }}
  ports: [{port: 8333, protocol: TCP}]
{{- end }}

{{- define "qwenops.egressToExternal" -}}
{{- with .Values.networkPolicy.external }}
{{- if .cidrs }}
- to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "qwenops.egressToDownloads" -}}
{{- with .Values.networkPolicy.downloads }}
{{- if .enabled }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "qwenops.egressToApiServer" -}}
{{- with .Values.networkPolicy.apiServer }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .cidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "qwenops.egressToKubeflow" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.kubeflow.namespace }}
{{- end }}

{{- define "qwenops.ingressOfMetrics" -}}
{{- with .Values.networkPolicy.monitoringNamespaces }}
- from:
    {{- range . }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ . }}
    {{- end }}
  ports:
    {{- range $.Values.networkPolicy.metricsPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
