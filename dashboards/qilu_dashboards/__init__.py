"""Grafana dashboards as code, and the JSON and provisioning files that Grafana reads."""

import warnings

# The SDK's classic model warns when it is first imported, but Grafana's file provisioning reads it.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import bargauge, dashboard  # noqa: F401
