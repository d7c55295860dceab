"""A raw InfluxQL query as a Grafana target: the SDK has no builder for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models.common import DataSourceRef

PROVISIONED = "qilu-influxdb"
"""Uid of the data source that `dashboards/provisioning/datasources` and `qilu dashboards push` make. Alert
rules name it, because Grafana gives rules no variables."""
DATA_SOURCE = DataSourceRef(type_val="influxdb", uid="${source}")
"""The data source that the dashboard's variable names, so that a dashboard can be imported into a Grafana
whose data source has another uid."""


@dataclass(frozen=True, slots=True)
class Influxql(variants.Dataquery):
    """The query model of Grafana's InfluxDB data source. `alias` names a series: `$col`, `$tag_code` or
    text."""

    query: str
    alias: str
    ref_id: str
    result_format: Literal["time_series", "table"]

    def to_json(self) -> dict[str, object]:
        return {
            "refId": self.ref_id,
            "datasource": DATA_SOURCE,
            "rawQuery": True,
            "query": self.query,
            "alias": self.alias,
            "resultFormat": self.result_format,
        }


@dataclass(frozen=True, slots=True)
class Target(builder.Builder[Influxql]):
    """The builder that panels of the SDK accept."""

    query: str
    alias: str = "$col"
    ref_id: str = "A"
    result_format: Literal["time_series", "table"] = "time_series"

    def build(self) -> Influxql:
        return Influxql(self.query, self.alias, self.ref_id, self.result_format)
