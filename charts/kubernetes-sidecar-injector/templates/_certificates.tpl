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
          "previousCa" (ternary "" $old.ca (eq (trim $old.ca) (trim $ca.Cert)))
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

{{/* Base64 of the CA certificates that the API server trusts; empty when the chart does not own the field. */}}
{{- define "kubernetes-sidecar-injector.caBundle" -}}
{{- $_ := include "kubernetes-sidecar-injector.validate" . }}
{{- if eq .Values.certificates.mode "helm" }}
{{- $certificates := include "kubernetes-sidecar-injector.certificates" . | fromJson }}
{{- list $certificates.ca $certificates.previousCa | compact | join "\n" | replace "\n\n" "\n" | b64enc }}
{{- else }}
{{- with include "kubernetes-sidecar-injector.pem" .Values.certificates.provided.caBundle }}
{{- printf "%s\n" . | b64enc }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kubernetes-sidecar-injector.secretName" -}}
{{- if eq .Values.certificates.mode "helm" }}
{{- include "kubernetes-sidecar-injector.fullname" . }}
{{- else }}
{{- .Values.certificates.provided.secretName }}
{{- end }}
{{- end }}
