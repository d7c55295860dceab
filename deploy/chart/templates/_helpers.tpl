{{/* The beginning of every name. */}}
{{- define "qilu.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-qilu" .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select the pods of a part: (list $ "gateway"). */}}
{{- define "qilu.selector" -}}
app.kubernetes.io/name: clouds-in-qilu
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "qilu.labels" -}}
{{ include "qilu.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{/* An image of ours: (list $ "gateway"). */}}
{{- define "qilu.image" -}}
{{- with (index . 0) }}{{ .Values.image.registry }}clouds-in-qilu/{{ index $ 1 }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What every pod has: (list $ user). Nothing runs as root. */}}
{{- define "qilu.pod" -}}
{{- with (index . 0).Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 }}
  runAsGroup: {{ index . 1 }}
  fsGroup: {{ index . 1 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What every container has. */}}
{{- define "qilu.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* A claim of a StatefulSet: (list $ "state" "5Gi"). */}}
{{- define "qilu.claim" -}}
metadata: {name: {{ index . 1 }}}
spec:
  accessModes: [ReadWriteOnce]
  {{- with (index . 0).Values.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ index . 2 }}}}
{{- end }}

{{/* The store, as the services and as Grafana name it. */}}
{{- define "qilu.influxdb" -}}
{{- if .Values.influxdb.enabled }}http://{{ include "qilu.name" . }}-influxdb:8086{{ else }}{{ required "influxdb.url: where is the InfluxDB that influxdb.enabled=false asks for? Such as http://influxdb.example.org:8086." .Values.influxdb.url }}{{ end }}
{{- end }}
{{- define "qilu.store" -}}
{{ include "qilu.influxdb" . | replace "https://" "influxdbs://" | replace "http://" "influxdb://" }}/{{ .Values.influxdb.database }}
{{- end }}

{{- define "qilu.db" -}}
{{- if .Values.postgres.enabled }}postgresql://qilu@{{ include "qilu.name" . }}-postgres/qilu{{ else }}{{ required "postgres.url: where is the PostgreSQL that postgres.enabled=false asks for? Such as postgresql://qilu@postgres.example.org/qilu." .Values.postgres.url }}{{ end }}
{{- end }}

{{/* The name by which edge nodes reach the broker. */}}
{{- define "qilu.nodesHost" -}}
{{- $service := eq .Values.broker "rabbitmq" | ternary "nodes" "mosquitto" -}}
{{- $default := printf "%s-%s.%s.svc" (include "qilu.name" .) $service .Release.Namespace -}}
{{- if eq .Values.broker "rabbitmq" }}{{ $default = first (append .Values.rabbitmq.hosts $default) }}{{ end -}}
{{ (index .Values .Values.broker).nodes.host | default $default }}
{{- end }}

{{/* Whether the chart runs RabbitMQ: "true" or empty. */}}
{{- define "qilu.runsRabbitmq" -}}
{{- if and (eq .Values.broker "rabbitmq") (not .Values.rabbitmq.hosts) }}true{{ end }}
{{- end }}

{{/* The domain of RabbitMQ's nodes: each pod has its name in it. */}}
{{- define "qilu.rabbitmqDomain" -}}
{{ include "qilu.name" . }}-rabbitmq.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The names of RabbitMQ's nodes, a JSON list. */}}
{{- define "qilu.rabbitmqHosts" -}}
{{- $found := .Values.rabbitmq.hosts -}}
{{- if include "qilu.runsRabbitmq" . -}}
{{- range until (int .Values.rabbitmq.replicas) -}}
{{- $found = append $found (printf "%s-rabbitmq-%d.%s" (include "qilu.name" $) . (include "qilu.rabbitmqDomain" $)) -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end }}

{{/* How a service reaches the broker, environment variables: (list $ "gateway"). */}}
{{- define "qilu.broker" -}}
{{- with (index . 0) -}}
{{- if eq .Values.broker "rabbitmq" -}}
- {name: QILU_BROKER, value: "mqtts://{{ include "qilu.rabbitmqHosts" . | fromJsonArray | join "," }}"}
- {name: QILU_MQTT_CA_FILE, value: /run/qilu/mqtt/ca.crt}
- {name: QILU_MQTT_CERTIFICATE_FILE, value: /run/qilu/mqtt/client.crt}
- {name: QILU_MQTT_KEY_FILE, value: /run/qilu/mqtt/client.key}
{{- else -}}
- {name: QILU_BROKER, value: "mqtt://{{ include "qilu.name" . }}-mosquitto:1883"}
- {name: QILU_MQTT_USER, value: {{ index $ 1 }}}
- {name: QILU_MQTT_PASSWORD_FILE, value: /run/qilu/{{ index $ 1 }}/mqtt.password}
{{- end }}
{{- end }}
{{- end }}

{{/* The addresses of all gateways, a JSON list. */}}
{{- define "qilu.gateways" -}}
{{- $name := include "qilu.name" . -}}
{{- $found := list -}}
{{- range until (int .Values.gateway.replicas) -}}
{{- $found = append $found (printf "http://%s-gateway-%d.%s-gateway:8081" $name . $name) -}}
{{- end -}}
{{ toJson $found }}
{{- end }}
