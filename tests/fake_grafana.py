"""A fake of Grafana's HTTP API: data sources, folders and dashboards in dictionaries, with the documented
answers of Grafana (200, 401, 404, 409, 412). It renders nothing and validates no dashboard.
"""

from __future__ import annotations

from typing import Any

from json_server import Answer, Asked, JsonServer


class FakeGrafana:
    """`with FakeGrafana("token") as grafana`: serves at `grafana.url` inside."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.sources: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self._server = JsonServer(self._answer)
        self.url = self._server.url

    def __enter__(self) -> FakeGrafana:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _answer(self, asked: Asked) -> Answer:
        path, key = asked.path, asked.headers["Authorization"]
        return self._get(path, key) if asked.method == "GET" else self._post(path, key, asked.body)

    def _denied(self, key: str | None) -> Answer | None:
        return None if key == f"Bearer {self.token}" else (401, {"message": "Invalid API key"})

    def _get(self, path: str, key: str | None) -> Answer:
        denied = self._denied(key)
        if denied:
            return denied
        kind, _, uid = path.removeprefix("/api/").rpartition("/")
        kept = {"datasources/uid": self.sources, "folders": self.folders, "dashboards/uid": self.boards}.get(
            kind
        )
        if kept is None or uid not in kept:
            return 404, {"message": f"{kind or path} not found"}
        return 200, kept[uid]

    def _post(self, path: str, key: str | None, body: dict[str, Any]) -> Answer:
        denied = self._denied(key)
        if denied:
            return denied
        self.writes.append(path)
        if path == "/api/dashboards/db":
            return self._save(body)
        kept = {"/api/datasources": self.sources, "/api/folders": self.folders}.get(path)
        if kept is None:
            return 404, {"message": "Not found"}
        if body["uid"] in kept:
            return 409, {"message": "the uid is taken"}
        kept[body["uid"]] = body
        return 200, {"id": len(kept), **body}

    def _save(self, body: dict[str, Any]) -> Answer:
        wanted, folder = body["dashboard"], body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        known = self.boards.get(wanted["uid"])
        version = 0
        if known is not None:
            version = known["dashboard"]["version"]
            if wanted.get("version") != version and not body.get("overwrite"):
                message = "The dashboard has been changed by someone else"
                return 412, {"message": message, "status": "version-mismatch"}
        for other in self.boards.values():
            same = other["dashboard"]["title"] == wanted["title"] and other["meta"]["folderUid"] == folder
            if same and other["dashboard"]["uid"] != wanted["uid"]:
                message = "A dashboard with the same name in the folder already exists"
                return 412, {"message": message, "status": "name-exists"}
        number = wanted.get("id") or len(self.boards) + 1
        kept = {**wanted, "id": number, "version": version + 1}
        self.boards[wanted["uid"]] = {"dashboard": kept, "meta": {"folderUid": folder}}
        return 200, {"id": number, "uid": wanted["uid"], "status": "success", "version": version + 1}
