{{/*
The certificates of mode `helm`, as JSON: ca, previousCa, certificate, privateKey (PEM), dnsName, notAfter, rotate.

What is in the cluster's Secret is used again, so that `helm upgrade` changes nothing. New ones are made when there is no complete
Secret, when it was made for another name or for another CA than `ca.certificate`, when `rotate` has changed, and in the last third of the
certificate's life. The CA that was in use until then stays in the caBundle as `previous-ca.crt`, until the next rotation: pods that serve
the old certificate are trusted as long as they live, so admission is never interrupted, in fail-closed namespaces neither.
The CA's key is thrown away; a rotation makes a new CA.

Limits: without a cluster (`helm template`, Argo CD, client-side dry runs) `lookup` finds nothing and every render has a new CA; the
installing user must be allowed to read the Secret; nothing renews the certificate but an upgrade. Mode `provided` has none of these.

The result is remembered in .Values for the rest of the render: the Secret, the pod annotation and the webhooks must speak of one and the
same certificate, and each call of this template would make another one.
*/}}
{{- define "kubernetes-sidecar-injector.certificates" -}}
{{- $_ := include "kubernetes-sidecar-injector.validate" . }}
{{- if not (hasKey .Values "renderedCertificates") }}
  {{- $values := .Values.certificates.helm }}
  {{- $rotate := toString $values.rotate }}
  {{- $dnsName := include "kubernetes-sidecar-injector.dnsName" . }}
  {{- $wantedCa := include "kubernetes-sidecar-injector.pem" $values.ca.certificate }}
  {{- $secret := lookup "v1" "Secret" (include "kubernetes-sidecar-injector.namespace" .) (include "kubernetes-sidecar-injector.fullname" .) | default dict }}
  {{- $data := get $secret "data" | default dict }}
  {{- $notes := dig "metadata" "annotations" dict $secret | default dict }}
  {{- $notAfter := get $notes "sidecar.me/certificate-not-after" }}
  {{- $rest := sub (toDate "2006-01-02T15:04:05Z" $notAfter | unixEpoch | int64) (now | unixEpoch | int64) }}
  {{- $old := dict
        "ca" (get $data "ca.crt" | b64dec)
        "previousCa" (get $data "previous-ca.crt" | b64dec)
        "certificate" (get $data "tls-cert-file" | b64dec)
        "privateKey" (get $data "tls-private-key-file" | b64dec)
        "dnsName" (get $notes "sidecar.me/certificate-dns-name")
        "rotate" (get $notes "sidecar.me/certificate-rotate")
        "notAfter" $notAfter }}
  {{- $keep := and $old.ca $old.certificate $old.privateKey
        (eq $old.dnsName $dnsName)
        (or (not $rotate) (eq $old.rotate $rotate))
        (or (not $wantedCa) (eq (trim $wantedCa) (trim $old.ca)))
        (gt (mul $rest 3) (mul $values.days 86400)) }}
  {{- if $keep }}
    {{- $_ := set .Values "renderedCertificates" $old }}
  {{- else }}
    {{- $days := int $values.days }}
    {{- /* What the API server trusts until now: pods of another mode, which this upgrade replaces, serve with that. */}}
    {{- $live := lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" (include "kubernetes-sidecar-injector.fullname" .) | default dict }}
    {{- $trusted := dig "clientConfig" "caBundle" "" (first (get $live "webhooks" | default (list dict))) | b64dec }}
    {{- $ca := "" }}
    {{- if $wantedCa }}
      {{- $ca = buildCustomCert (b64enc $wantedCa) (include "kubernetes-sidecar-injector.pem" $values.ca.privateKey | b64enc) }}
    {{- else }}
      {{- /* Differs from the certificate's CN after cutting, too: with one name both would count as self-signed. */}}
      {{- $ca = genCAWithKey (printf "CA of %s" $dnsName | trunc 64) $days (genPrivateKey "ecdsa") }}
    {{- end }}
    {{- /* A CN holds 64 characters at most; what the API server verifies is the SAN. */}}
    {{- $leaf := genSignedCertWithKey ($dnsName | trunc 64) nil (list $dnsName) $days $ca (genPrivateKey "ecdsa") }}
    {{- $_ := set .Values "renderedCertificates" (dict
          "ca" $ca.Cert
          "previousCa" (ternary "" ($old.ca | default $trusted) (eq (trim $old.ca) (trim $ca.Cert)))
          "certificate" $leaf.Cert
          "privateKey" $leaf.Key
          "dnsName" $dnsName
          "rotate" (default $old.rotate $rotate)
          "notAfter" (dateInZone "2006-01-02T15:04:05Z" (now | dateModify (printf "+%dh" (mul $days 24))) "UTC")) }}
  {{- end }}
{{- end }}
{{- toJson .Values.renderedCertificates }}
{{- end }}

{{/* PEM from PEM, or from base64 of PEM. */}}
{{- define "kubernetes-sidecar-injector.pem" -}}
{{- $text := default "" . | trim }}
{{- if or (not $text) (hasPrefix "-----BEGIN " $text) }}
{{- $text }}
{{- else }}
{{- b64dec ($text | replace "\n" "" | replace " " "") | trim }}
{{- end }}
{{- end }}

{{/* The Secret of mode `selfManaged`. Not the one of mode `helm`: what an upgrade replaces goes on serving from that one until it is gone. */}}
{{- define "kubernetes-sidecar-injector.managedSecretName" -}}
{{- printf "%s-certificates" (include "kubernetes-sidecar-injector.fullname" . | trunc 240) }}
{{- end }}

{{/*
What of the caBundle that is there has to stay, so that pods that still serve are trusted.

In the modes `selfManaged` and `certManager`, and with `externalCaBundle`, the chart does not render a caBundle, for it is the injector's, cert-manager's or
somebody else's. But where another mode of the chart has rendered it before, leaving it out would take it away: so what is there is rendered as it
is, this time and from then on (the annotation remembers it). In mode `provided` it stays beside the one that is given as long as there are pods that
may need it: those of mode `selfManaged`, and of an upgrade that is not finished. JSON of a map from kind to caBundle; empty on every other cluster, and
without one.
*/}}
{{- define "kubernetes-sidecar-injector.keptCaBundles" -}}
{{- if not (hasKey .Values "renderedKeptCaBundles") }}
  {{- $kept := dict }}
  {{- $isProvided := not (empty (include "kubernetes-sidecar-injector.providedCaBundle" .)) }}
  {{- if or $isProvided (ne .Values.certificates.mode "helm") }}
    {{- /* The release that there is, not who wrote the field last: that is the injector, after a rollback to another mode, too. */}}
    {{- $deployment := lookup "apps/v1" "Deployment" (include "kubernetes-sidecar-injector.namespace" .) (include "kubernetes-sidecar-injector.fullname" .) }}
    {{- $isSelfManaged := contains "CERTIFICATE_SECRET" (toJson $deployment) }}
    {{- $status := get $deployment "status" | default dict }}
    {{- /* One that nobody has looked at yet has no pods. */}}
    {{- $isUnfinished := and (hasKey $status "observedGeneration")
          (or (ne (get $status "replicas" | int64) (get $status "updatedReplicas" | int64))
            (ne (dig "metadata" "generation" 0 $deployment | int64) (get $status "observedGeneration" | int64))) }}
    {{- range $kind := list "MutatingWebhookConfiguration" "ValidatingWebhookConfiguration" }}
      {{- $live := lookup "admissionregistration.k8s.io/v1" $kind "" (include "kubernetes-sidecar-injector.fullname" $) | default dict }}
      {{- $annotations := dig "metadata" "annotations" dict $live | default dict }}
      {{- $isKept := hasKey $annotations "sidecar.me/kept-ca-bundle" }}
      {{- $isInjected := and (ne $.Values.certificates.mode "selfManaged") (hasKey $annotations "cert-manager.io/inject-ca-from") }}
      {{- range (get $live "webhooks" | default list) }}
        {{- with dig "clientConfig" "caBundle" "" . }}
          {{- if ternary (or $isSelfManaged $isUnfinished) (or $isKept (not (or $isSelfManaged $isInjected))) $isProvided }}
            {{- $_ := set $kept $kind . }}
          {{- end }}
        {{- end }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- $_ := set .Values "renderedKeptCaBundles" $kept }}
{{- end }}
{{- toJson .Values.renderedKeptCaBundles }}
{{- end }}

{{/* Annotations of a webhook configuration, called with a list of the root and the kind. */}}
{{- define "kubernetes-sidecar-injector.webhookAnnotations" -}}
{{- $root := index . 0 }}
{{- $own := dict "admissions.enforcer/disabled" "true" }}
{{- $kept := include "kubernetes-sidecar-injector.keptCaBundles" $root | fromJson }}
{{- if and (hasKey $kept (index . 1)) (not (include "kubernetes-sidecar-injector.providedCaBundle" $root)) }}
{{- $_ := set $own "sidecar.me/kept-ca-bundle" "true" }}
{{- end }}
{{- if eq $root.Values.certificates.mode "certManager" }}
{{- $_ := set $own "cert-manager.io/inject-ca-from" (printf "%s/%s" (include "kubernetes-sidecar-injector.namespace" $root) (include "kubernetes-sidecar-injector.fullname" $root)) }}
{{- end }}
{{- merge (dict) (default dict $root.Values.webhook.annotations) $own | toYaml }}
{{- end }}

{{/* The caBundle of a webhook configuration, called with a list of the root and the kind; empty when it is somebody else's to write. */}}
{{- define "kubernetes-sidecar-injector.caBundleOf" -}}
{{- $kept := get (include "kubernetes-sidecar-injector.keptCaBundles" (index . 0) | fromJson) (index . 1) }}
{{- $own := include "kubernetes-sidecar-injector.caBundle" (index . 0) }}
{{- if and $kept $own }}
{{- $pem := b64dec $own }}
{{- range regexFindAll "-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----" (b64dec $kept) -1 }}
{{- if not (contains . $pem) }}
{{- $pem = printf "%s%s\n" $pem . }}
{{- end }}
{{- end }}
{{- b64enc $pem }}
{{- else }}
{{- default $own $kept }}
{{- end }}
{{- end }}

{{/* Base64 of the CA certificates that the API server trusts; empty when the chart does not own the field. */}}
{{- define "kubernetes-sidecar-injector.caBundle" -}}
{{- $_ := include "kubernetes-sidecar-injector.validate" . }}
{{- if eq .Values.certificates.mode "helm" }}
{{- $certificates := include "kubernetes-sidecar-injector.certificates" . | fromJson }}
{{- list $certificates.ca $certificates.previousCa | compact | join "\n" | replace "\n\n" "\n" | b64enc }}
{{- else }}
{{- include "kubernetes-sidecar-injector.providedCaBundle" . }}
{{- end }}
{{- end }}

{{/* The same of mode `provided` alone. */}}
{{- define "kubernetes-sidecar-injector.providedCaBundle" -}}
{{- if eq .Values.certificates.mode "provided" }}
{{- with include "kubernetes-sidecar-injector.pem" .Values.certificates.provided.caBundle }}
{{- printf "%s\n" . | b64enc }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kubernetes-sidecar-injector.secretName" -}}
{{- $fullname := include "kubernetes-sidecar-injector.fullname" . }}
{{- $names := dict "helm" $fullname "certManager" (printf "%s-cert-manager" $fullname) "provided" .Values.certificates.provided.secretName }}
{{- get $names .Values.certificates.mode }}
{{- end }}
