"""Grafana dashboards as code, and the JSON and provisioning files that Grafana reads."""

import warnings

# The SDK's classic model warns when it is first imported, but it is what Grafana's file provisioning takes.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import bargauge, dashboard  # noqa: F401
