"""The Prometheus and OpenTelemetry metrics; the former need `prometheus_client`."""
