{{/*
Combinations that pass the schema and cannot work, each refused with a sentence. Templates render in no promised order, so whatever would
fail less readably on such values asks this first.
*/}}
{{- define "kubernetes-sidecar-injector.validate" -}}
{{- $fullname := include "kubernetes-sidecar-injector.fullname" . }}
{{- $certificate := "-----BEGIN CERTIFICATE-----" }}
{{- with .Values.certificates }}
{{- if eq .mode "provided" }}
  {{- if not .provided.secretName }}
    {{- fail "certificates.mode is \"provided\": set certificates.provided.secretName to the Secret with the certificate and its key (docs/certificates.md has the steps)" }}
  {{- end }}
  {{- if eq .provided.secretName $fullname }}
    {{- fail (printf "certificates.provided.secretName must not be %q: this is the Secret that the chart makes in mode \"helm\", and changing the mode deletes it" $fullname) }}
  {{- end }}
  {{- if and .provided.externalCaBundle .provided.caBundle }}
    {{- fail "certificates.provided: set either caBundle or externalCaBundle, not both (two writers of one field make upgrades fail)" }}
  {{- end }}
  {{- if not .provided.externalCaBundle }}
    {{- if not .provided.caBundle }}
      {{- fail "certificates.mode is \"provided\": set certificates.provided.caBundle to the CA that signed the certificate, e.g. --set-file certificates.provided.caBundle=ca.crt (or externalCaBundle: true when something else writes it)" }}
    {{- end }}
    {{- if not (contains $certificate (include "kubernetes-sidecar-injector.pem" .provided.caBundle)) }}
      {{- fail "certificates.provided.caBundle is neither a PEM certificate nor base64 of one" }}
    {{- end }}
  {{- end }}
{{- else }}
  {{- if or .provided.secretName .provided.caBundle .provided.externalCaBundle }}
    {{- fail (printf "certificates.provided is set, but certificates.mode is %q: set certificates.mode to \"provided\"" .mode) }}
  {{- end }}
{{- end }}
{{- if eq .mode "helm" }}
  {{- if ne (empty .helm.ca.certificate) (empty .helm.ca.privateKey) }}
    {{- fail "certificates.helm.ca: certificate and privateKey belong together, set both or neither" }}
  {{- end }}
  {{- if and .helm.ca.certificate (not (contains $certificate (include "kubernetes-sidecar-injector.pem" .helm.ca.certificate))) }}
    {{- fail "certificates.helm.ca.certificate is neither a PEM certificate nor base64 of one" }}
  {{- end }}
{{- else if or .helm.ca.certificate .helm.ca.privateKey .helm.rotate }}
  {{- fail (printf "certificates.helm is set, but certificates.mode is %q: set certificates.mode to \"helm\"" .mode) }}
{{- end }}
{{- if eq .mode "selfManaged" }}
  {{- $lives := dict }}
  {{- range $name := list "caLifetime" "certificateLifetime" }}
    {{- $text := get $.Values.certificates.selfManaged $name }}
    {{- $unit := regexFind "[hms]$" $text }}
    {{- $_ := set $lives $name (mul (trimSuffix $unit $text | int64) (get (dict "h" 3600 "m" 60 "s" 1) $unit)) }}
  {{- end }}
  {{- if gt (mul $lives.certificateLifetime 3) $lives.caLifetime }}
    {{- fail (printf "certificates.selfManaged.certificateLifetime (%s) must be at most a third of caLifetime (%s), or certificates would end with their CA" .selfManaged.certificateLifetime .selfManaged.caLifetime) }}
  {{- end }}
{{- end }}
{{- if and (ne .mode "certManager") .certManager.issuerRef }}
  {{- fail (printf "certificates.certManager.issuerRef is set, but certificates.mode is %q: set certificates.mode to \"certManager\"" .mode) }}
{{- end }}
{{- end }}
{{- if and (include "kubernetes-sidecar-injector.hasRights" .) (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
  {{- fail "serviceAccount.create is false and serviceAccount.name is empty: every pod of the namespace would get the injector's rights (docs/security.md) with the service account \"default\". Name an account" }}
{{- end }}
{{- range $where := list "commonLabels" "podLabels" }}
  {{- if hasKey (get $.Values $where | default dict) "sidecar.me/inject" }}
    {{- fail (printf "%s must not have sidecar.me/inject: the injector's own pods are never injected, they could not start without themselves" $where) }}
  {{- end }}
{{- end }}
{{- range $name, $spec := .Values.definitions }}
  {{- if has $name (list "true" "false") }}
    {{- fail (printf "definitions: %q is a value of sidecar.me/inject, no definition can be called that" $name) }}
  {{- end }}
  {{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $name) }}
    {{- fail (printf "definitions: %q is no name for a definition: lower-case letters, digits and inner hyphens, 63 at most" $name) }}
  {{- end }}
{{- end }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add .Values.shutdownDelaySeconds 10 | int) }}
  {{- fail (printf "terminationGracePeriodSeconds (%d) must exceed shutdownDelaySeconds (%d) by 10 or more, else pods are killed before open requests are answered" (int .Values.terminationGracePeriodSeconds) (int .Values.shutdownDelaySeconds)) }}
{{- end }}
{{- $replicas := include "kubernetes-sidecar-injector.minReplicas" . | int }}
{{- $counted := ternary "replicas" "autoscaling.minReplicas" (empty .Values.autoscaling.enabled) }}
{{- with .Values.podDisruptionBudget }}
  {{- /* Kubernetes rounds both percentages up: of maxUnavailable at least one pod is left. */}}
  {{- if and .enabled (gt $replicas 1) (not .maxUnavailable) }}
    {{- $least := int .minAvailable }}
    {{- if kindIs "string" .minAvailable }}
      {{- $least = div (add (mul (trimSuffix "%" .minAvailable | int) $replicas) 99) 100 | int }}
    {{- end }}
    {{- if ge $least $replicas }}
      {{- fail (printf "podDisruptionBudget.minAvailable (%v: %d pods) must be smaller than %s (%d), else no node with a pod can be drained" .minAvailable $least $counted $replicas) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with .Values.autoscaling }}
  {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
    {{- fail (printf "autoscaling.minReplicas (%d) must not be more than autoscaling.maxReplicas (%d)" (int .minReplicas) (int .maxReplicas)) }}
  {{- end }}
{{- end }}
{{- $strategy := default dict .Values.updateStrategy }}
{{- if and (eq (toString (get $strategy "type")) "Recreate") (get $strategy "rollingUpdate") }}
  {{- fail "updateStrategy.type is \"Recreate\", which stops all pods first; if that is meant, set updateStrategy.rollingUpdate to null" }}
{{- end }}
{{- if .Values.hostNetwork }}
  {{- range $name, $port := dict "containerPort" .Values.containerPort "metrics.port" .Values.metrics.port }}
    {{- if has (int $port) (list 10248 10249 10250 10255 10256) }}
      {{- fail (printf "%s (%d) with hostNetwork is a port of the node, and the kubelet's or kube-proxy's: take another, 10260 for example" $name (int $port)) }}
    {{- end }}
  {{- end }}
  {{- if .Values.networkPolicy.enabled }}
    {{- fail "networkPolicy.enabled with hostNetwork: network policies do not hold for pods in the node's network" }}
  {{- end }}
  {{- if not .Values.hostUsers }}
    {{- fail "hostUsers: false with hostNetwork: Kubernetes refuses pods that have a user namespace of their own and the node's network" }}
  {{- end }}
{{- end }}
{{- if and .Values.webhook.url (ne .Values.certificates.mode "provided") (regexMatch "^([0-9.]+|.*:.*)$" (include "kubernetes-sidecar-injector.dnsName" .)) }}
  {{- fail (printf "webhook.url has the address %s: the chart's own certificate is for names only, so set certificates.mode to \"provided\" or take a name" (include "kubernetes-sidecar-injector.dnsName" .)) }}
{{- end }}
{{- with .Values.webhook.clientVerification }}
  {{- if and .names (not .configMap) }}
    {{- fail "webhook.clientVerification.names is set, but no configMap with the CA that such a certificate is of: without it callers need none" }}
  {{- end }}
{{- end }}
{{- range .Values.extraVolumes }}
  {{- if has .name (list "certs" "clients" "definitions") }}
    {{- fail (printf "extraVolumes must not have %q: the chart has a volume of this name" .name) }}
  {{- end }}
{{- end }}
{{- if and (eq (toString .Values.missedPods.mode) "repair") (not .Values.definitionResources.watch) }}
  {{- fail "missedPods.mode is \"repair\", but definitionResources.watch is false, and without it the injector looks at no pod: set definitionResources.watch to true, or missedPods.mode to \"off\"" }}
{{- end }}
{{- if and .Values.selfProbe.enabled (has (include "kubernetes-sidecar-injector.selfProbeNamespace" .) .Values.webhook.excludedNamespaces) }}
  {{- fail (printf "selfProbe.namespace: nothing is injected in %q (webhook.excludedNamespaces), so the probe would always fail" (include "kubernetes-sidecar-injector.selfProbeNamespace" .)) }}
{{- end }}
{{- if and .Values.selfProbe.enabled (ne .Values.webhook.scope "Requested") (eq (include "kubernetes-sidecar-injector.selfProbeNamespace" .) (include "kubernetes-sidecar-injector.namespace" .)) }}
  {{- fail (printf "selfProbe with webhook.scope %q: the API server does not ask about pods of the injector's own namespace, so name another in selfProbe.namespace" .Values.webhook.scope) }}
{{- end }}
{{- if not .Values.metrics.enabled }}
  {{- range $name := list "serviceMonitor" "prometheusRule" }}
    {{- if (get $.Values $name).enabled }}
      {{- fail (printf "%s needs metrics.enabled: there is nothing to scrape without" $name) }}
    {{- end }}
  {{- end }}
{{- else if eq (int .Values.metrics.port) (int .Values.containerPort) }}
  {{- fail (printf "metrics.port and containerPort are both %d: a port can be listened on once" (int .Values.containerPort)) }}
{{- end }}
{{- if .Values.demo.enabled }}
  {{- if and (not .Values.existingDefinitionsConfigMap) (not (compact (values (default dict .Values.definitions)))) }}
    {{- fail "demo.enabled: nothing is in definitions, so there is no sidecar for the demo's pod" }}
  {{- end }}
  {{- if has .Values.demo.namespace (list .Release.Namespace (include "kubernetes-sidecar-injector.namespace" .)) }}
    {{- fail "demo.namespace must not be the namespace of the injector: it is made with the release and deleted with it" }}
  {{- end }}
  {{- if has .Values.demo.namespace .Values.webhook.excludedNamespaces }}
    {{- fail (printf "demo.namespace: nothing is injected in %q (webhook.excludedNamespaces)" .Values.demo.namespace) }}
  {{- end }}
{{- end }}
{{- $own := list "HTTPS_ENABLED" "HTTPS_PORT" "TLS_CERT_FILE" "TLS_PRIVATE_KEY_FILE" "CERTIFICATE_NAMES" "CERTIFICATE_SECRET" "MUTATING_WEBHOOK_CONFIGURATION" "VALIDATING_WEBHOOK_CONFIGURATION" "CA_LIFETIME" "CERTIFICATE_LIFETIME" "CA_PROPAGATION" "CA_OVERLAP" "DEFINITIONS" "DEFINITION_RESOURCES" "DEFINITION_STATUS" "MISSED_PODS" "MAX_REPAIRS_PER_MINUTE" "LEASE" "WEBHOOK_SCOPE" "WEBHOOK_NAMESPACE_SELECTOR" "EXCLUDED_NAMESPACES" "CLIENT_CA_FILE" "CLIENT_NAMES" "METRICS_PORT" "EVENTS" "SELF_PROBE_NAMESPACE" "SELF_PROBE_INTERVAL" "LOG_LEVEL" "LOG_FORMAT" "SHUTDOWN_DELAY" "DRAIN_TIMEOUT" }}
{{- range .Values.extraEnv }}
  {{- if has .name $own }}
    {{- fail (printf "extraEnv must not have %s: the chart sets it; use the value for it (containerPort, certificates, definitions, definitionResources, definitionStatus, missedPods, webhook.scope, webhook.namespaceSelector, webhook.excludedNamespaces, webhook.clientVerification, metrics, events, selfProbe, logging, shutdownDelaySeconds, terminationGracePeriodSeconds)" .name) }}
  {{- end }}
{{- end }}
{{- end }}
