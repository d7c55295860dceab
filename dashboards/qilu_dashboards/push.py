"""Uploads data source, folder and dashboards to any Grafana through its HTTP API.

Idempotent: only differences are written. An existing data source with our uid is never changed, because it
may have other credentials. A dashboard is written over the version that was read, so that Grafana reports
a concurrent change (412) instead of losing it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from qilu_common.influx_address import InfluxAddress
from qilu_contract.errors import ConfigError, QiluError
from requests.exceptions import RequestException

from qilu_dashboards.build import build_all
from qilu_dashboards.influxql import PROVISIONED

FOLDER_UID, FOLDER_TITLE = "clouds-in-qilu", "Clouds in Qilu"
TIMEOUT_S = 30.0
_THEIRS = ("id", "version")
"""Keys that Grafana adds to a dashboard; they are not compared."""

_T = TypeVar("_T")


class PushError(QiluError):
    """Grafana is unavailable, or refuses an upload."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one object; with `--dry-run`, the change that would be made."""

    what: str
    done: Literal["created", "updated", "unchanged"]
    difference: str = ""
    """A unified diff, if the object is updated."""


@dataclass(frozen=True, slots=True)
class Push:
    """An upload. `store` and `store_token` are needed only if the data source does not exist."""

    url: str
    token: str
    store: str | None = None
    store_token: str | None = None
    dry_run: bool = False

    def run(self) -> Iterator[Change]:
        """Upload, and yield each change once it is made. Blocks. Raises ConfigError or PushError."""
        api = self._api()
        yield self._data_source(api)
        yield self._folder(api)
        for text in build_all().values():
            yield self._dashboard(api, json.loads(text))

    def _api(self) -> GrafanaApi:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.url} is not the address of a Grafana: use http://host:3000.")
        path = parts.path.strip("/")
        api = GrafanaApi(
            self.token,
            host=parts.hostname,
            port=parts.port,
            url_path_prefix=f"{path}/" if path else "",
            protocol=parts.scheme,
            timeout=TIMEOUT_S,
        )
        api.client.s.trust_env = False  # ignore proxies of the environment
        return api

    def _ask(self, what: str, call: Callable[[], _T]) -> _T | None:
        """Make a call and return its answer, or None for 404."""
        try:
            return call()
        except GrafanaUnauthorizedError as error:
            raise ConfigError(
                f"Grafana at {self.url} does not know the token: "
                "set QILU_GRAFANA_TOKEN to the token of a service account."
            ) from error
        except GrafanaClientError as error:
            if error.status_code == 404:
                return None
            if error.status_code == 403:
                raise ConfigError(
                    f"The token may not change {what}: its service account needs the role Admin "
                    "(or Editor, if the data source exists)."
                ) from error
            if error.status_code == 412:
                raise PushError(
                    f"{what} was changed in Grafana at the same time, or another dashboard has its name: "
                    f"check with --dry-run, and push again ({error.message})."
                ) from error
            raise PushError(f"Grafana refuses {what}: {error.message}.") from error
        except (GrafanaException, RequestException) as error:
            raise PushError(
                f"Grafana at {self.url} does not answer: is it running, and is this its address?"
            ) from error

    def _data_source(self, api: GrafanaApi) -> Change:
        what = f"data source {PROVISIONED}"
        if self._ask(what, lambda: api.datasource.get_datasource_by_uid(PROVISIONED)) is not None:
            return Change(what, "unchanged")
        body = self._wanted_source()
        if not self.dry_run:
            self._ask(what, lambda: api.datasource.create_datasource(body))
        return Change(what, "created")

    def _wanted_source(self) -> dict[str, Any]:
        address = InfluxAddress.parse(self.store or "")
        if address is None:
            raise ConfigError(
                "Grafana has no data source yet: "
                "add --store influxdb://host:8086/database, with the host as Grafana reaches it."
            )
        body: dict[str, Any] = {
            "name": "Clouds in Qilu",
            "uid": PROVISIONED,
            "type": "influxdb",
            "access": "proxy",
            "url": address.url,
            "jsonData": {
                "version": "InfluxQL",
                "dbName": address.database,
                "httpMode": "POST",
                "timeInterval": "2s",
            },
        }
        for name, value in address.headers(self.store_token).items():
            body["jsonData"]["httpHeaderName1"] = name
            body["secureJsonData"] = {"httpHeaderValue1": value}
        return body

    def _folder(self, api: GrafanaApi) -> Change:
        what = f"folder {FOLDER_TITLE}"
        if self._ask(what, lambda: api.folder.get_folder(FOLDER_UID)) is not None:
            return Change(what, "unchanged")
        if not self.dry_run:
            self._ask(what, lambda: api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID))
        return Change(what, "created")

    def _dashboard(self, api: GrafanaApi, wanted: dict[str, Any]) -> Change:
        what = f"dashboard {wanted['title']}"
        found = self._ask(what, lambda: api.dashboard.get_dashboard(wanted["uid"]))
        if found is not None:
            there, here = _text(found["dashboard"]), _text(wanted)
            if there == here and found["meta"].get("folderUid", FOLDER_UID) == FOLDER_UID:
                return Change(what, "unchanged")
            lines = difflib.unified_diff(
                there.splitlines(), here.splitlines(), "in Grafana", "here", lineterm="", n=1
            )
            wanted = {**wanted, "id": found["dashboard"].get("id"), "version": found["dashboard"]["version"]}
            change = Change(what, "updated", "\n".join(lines))
        else:
            wanted = {**wanted, "id": None}
            change = Change(what, "created")
        if not self.dry_run:
            body = {
                "dashboard": wanted,
                "folderUid": FOLDER_UID,
                "message": "qilu dashboards push",
                "overwrite": False,
            }
            self._ask(what, lambda: api.dashboard.update_dashboard(body))
        return change


def _text(board: dict[str, Any]) -> str:
    kept = {name: value for name, value in board.items() if name not in _THEIRS}
    return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False)
