{{- define "kubernetes-sidecar-injector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* One name for all objects: the release's when it contains the chart's, else both. 63 characters is the limit of a Service's. */}}
{{- define "kubernetes-sidecar-injector.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kubernetes-sidecar-injector.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* The name that the API server calls and that the certificate must carry. */}}
{{- define "kubernetes-sidecar-injector.dnsName" -}}
{{- if .Values.webhook.url }}
{{- (urlParse .Values.webhook.url).hostname }}
{{- else }}
{{- printf "%s.%s.svc" (include "kubernetes-sidecar-injector.fullname" .) (include "kubernetes-sidecar-injector.namespace" .) }}
{{- end }}
{{- end }}

{{/* How the API server reaches a path of the injector: the arguments are the root and the path. */}}
{{- define "kubernetes-sidecar-injector.clientConfig" -}}
{{- $path := index . 1 }}
{{- with index . 0 }}
{{- if .Values.webhook.url }}
url: {{ trimSuffix "/" .Values.webhook.url }}{{ $path }}
{{- else }}
service:
  name: {{ include "kubernetes-sidecar-injector.fullname" . }}
  namespace: {{ include "kubernetes-sidecar-injector.namespace" . }}
  path: {{ $path }}
  port: {{ .Values.service.port }}
{{- end }}
{{- end }}
{{- end }}

{{/* Never change: a Deployment's selector is immutable. Nothing that users or the injection decide by belongs here. */}}
{{- define "kubernetes-sidecar-injector.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kubernetes-sidecar-injector.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kubernetes-sidecar-injector.ownLabels" -}}
{{- $own := include "kubernetes-sidecar-injector.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml $own }}
{{- end }}

{{/* The chart's own labels win over commonLabels. */}}
{{- define "kubernetes-sidecar-injector.labels" -}}
{{- merge (include "kubernetes-sidecar-injector.ownLabels" . | fromYaml) (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{/* Labels and annotations of an object: those of all objects, and the `labels` and `annotations` of this one. */}}
{{- define "kubernetes-sidecar-injector.metadata" -}}
labels:
  {{- $own := include "kubernetes-sidecar-injector.ownLabels" .root | fromYaml }}
  {{- merge $own (default dict .labels) (default dict .root.Values.commonLabels) | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* AKS rewrites the namespace selectors of webhooks that do not say that it must not, and then owns the field. */}}
{{- define "kubernetes-sidecar-injector.webhookMetadata" -}}
{{- $root := index . 0 }}
{{- $annotations := include "kubernetes-sidecar-injector.webhookAnnotations" . | fromYaml }}
{{- include "kubernetes-sidecar-injector.metadata" (dict "root" $root "annotations" $annotations "labels" $root.Values.webhook.labels) }}
{{- end }}

{{/* Labels of the injector's pods: never injected themselves, whatever else is set. A version label would roll the pods for nothing. */}}
{{- define "kubernetes-sidecar-injector.podLabels" -}}
{{- $own := include "kubernetes-sidecar-injector.selectorLabels" . | fromYaml }}
{{- $_ := set $own "sidecar.me/inject" "false" }}
{{- merge $own (default dict .Values.podLabels) (default dict .Values.commonLabels) | toYaml }}
{{- end }}

{{/* Of the pod of `helm test`; a network policy lets it in by them. */}}
{{- define "kubernetes-sidecar-injector.testLabels" -}}
app.kubernetes.io/name: {{ printf "%s-test" (include "kubernetes-sidecar-injector.name" . | trunc 58 | trimSuffix "-") }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
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

{{/* Whether anything is bound to the service account; without it no token is mounted. */}}
{{- define "kubernetes-sidecar-injector.hasRights" -}}
{{- if or .Values.definitionResources.watch .Values.events.enabled .Values.selfProbe.enabled (eq .Values.certificates.mode "selfManaged") }}
{{- true }}
{{- end }}
{{- end }}

{{/*
Not empty if it looks whether the webhooks trust its certificate. With a certificate from files only where it watches the cluster anyway: so who takes
the watch away has an injector without any right, and without a token.
*/}}
{{- define "kubernetes-sidecar-injector.seesWebhooks" -}}
{{- if or .Values.definitionResources.watch (eq .Values.certificates.mode "selfManaged") }}
{{- true }}
{{- end }}
{{- end }}

{{- define "kubernetes-sidecar-injector.definitionsConfigMap" -}}
{{- $name := printf "%s-definitions" (include "kubernetes-sidecar-injector.fullname" .) }}
{{- default $name .Values.existingDefinitionsConfigMap }}
{{- end }}

{{/* Where the pods run; the test pod runs there too. */}}
{{- define "kubernetes-sidecar-injector.scheduling" -}}
{{- $fields := dict }}
{{- with merge (dict) (default dict .Values.nodeSelector) (default dict .Values.global.nodeSelector) }}
{{- $_ := set $fields "nodeSelector" . }}
{{- end }}
{{- with default .Values.global.tolerations .Values.tolerations }}
{{- $_ := set $fields "tolerations" . }}
{{- end }}
{{- with $fields }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* The pods that there are at least. */}}
{{- define "kubernetes-sidecar-injector.minReplicas" -}}
{{- if .Values.autoscaling.enabled }}
{{- .Values.autoscaling.minReplicas }}
{{- else }}
{{- .Values.replicas }}
{{- end }}
{{- end }}

{{/*
A security context, without the ids on OpenShift: there they come from the range of the namespace, and pods that ask for others are refused.
The arguments are the root and the context.
*/}}
{{- define "kubernetes-sidecar-injector.securityContext" -}}
{{- $context := index . 1 | default dict }}
{{- with index . 0 }}
{{- $adapt := .Values.global.compatibility.openshift.adaptSecurityContext }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "kubernetes-sidecar-injector.selfProbeNamespace" -}}
{{- default (include "kubernetes-sidecar-injector.namespace" .) .Values.selfProbe.namespace }}
{{- end }}

{{/* The Service of the metrics, and by it Prometheus' `job`: alerts and dashboard ask for it. */}}
{{- define "kubernetes-sidecar-injector.metricsName" -}}
{{- printf "%s-metrics" (include "kubernetes-sidecar-injector.fullname" . | trunc 55 | trimSuffix "-") }}
{{- end }}

{{/* Beside its own labels: what tells the Service of the metrics from the one that the API server calls. */}}
{{- define "kubernetes-sidecar-injector.metricsLabels" -}}
{{- include "kubernetes-sidecar-injector.selectorLabels" . }}
app.kubernetes.io/component: metrics
{{- end }}

{{/* What is done about pods that run without their sidecar. YAML makes `false` of `off` without quotes. */}}
{{- define "kubernetes-sidecar-injector.missedPods" -}}
{{- ternary (default "off" .Values.missedPods.mode) "off" .Values.definitionResources.watch }}
{{- end }}
