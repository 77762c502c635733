{{- define "kubernetes-sidecar-injector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* One name for all objects: the release's when it contains the chart's, else both. 63 characters is the limit of a Service's. */}}
{{- define "kubernetes-sidecar-injector.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name that the API server calls and that the certificate must carry. */}}
{{- define "kubernetes-sidecar-injector.dnsName" -}}
{{- printf "%s.%s.svc" (include "kubernetes-sidecar-injector.fullname" .) .Release.Namespace }}
{{- end }}

{{/* Never change: a Deployment's selector is immutable. Nothing that users or the injection decide by belongs here. */}}
{{- define "kubernetes-sidecar-injector.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kubernetes-sidecar-injector.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The chart's own labels win over commonLabels. */}}
{{- define "kubernetes-sidecar-injector.labels" -}}
{{- $own := include "kubernetes-sidecar-injector.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- merge $own (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{/* Labels of the injector's pods: never injected themselves, whatever else is set. A version label would roll the pods for nothing. */}}
{{- define "kubernetes-sidecar-injector.podLabels" -}}
{{- $own := include "kubernetes-sidecar-injector.selectorLabels" . | fromYaml }}
{{- $_ := set $own "sidecar.me/inject" "false" }}
{{- merge $own (default dict .Values.podLabels) (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{- define "kubernetes-sidecar-injector.image" -}}
{{- $repository := .Values.image.repository }}
{{- with .Values.global.imageRegistry }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "kubernetes-sidecar-injector.imagePullSecrets" -}}
{{- with concat (default list .Values.global.imagePullSecrets) (default list .Values.imagePullSecrets) | uniq }}
{{- dict "imagePullSecrets" . | toYaml }}
{{- end }}
{{- end }}

{{- define "kubernetes-sidecar-injector.serviceAccountName" -}}
{{- $default := ternary (include "kubernetes-sidecar-injector.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $default .Values.serviceAccount.name }}
{{- end }}

{{- define "kubernetes-sidecar-injector.definitionsConfigMap" -}}
{{- $name := printf "%s-definitions" (include "kubernetes-sidecar-injector.fullname" .) }}
{{- default $name .Values.existingDefinitionsConfigMap }}
{{- end }}

{{/* Where the pods run; the test pod runs there too. */}}
{{- define "kubernetes-sidecar-injector.scheduling" -}}
{{- $fields := dict }}
{{- range $field := list "nodeSelector" "tolerations" }}
{{- with get $.Values $field }}
{{- $_ := set $fields $field . }}
{{- end }}
{{- end }}
{{- with $fields }}
{{- toYaml . }}
{{- end }}
{{- end }}
