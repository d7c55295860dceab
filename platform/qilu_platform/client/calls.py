"""Calls to the platform, one method each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import msgspec
from qilu_common.backoff import Backoff
from qilu_common.platform_address import platform_url
from qilu_common.platform_http import (
    RETRY_MOST_S,
    PlatformAway,
    PlatformError,
    check,
    client_settings,
    transport_errors,
)

from qilu_platform.client import answers
from qilu_platform.client.files import Progress, content_type, file_parts

EXPORT_TIMEOUT_S = 600.0
"""Until the first byte: a Parquet file is made whole before it is sent."""
GIVE_UP_S = 120.0
"""Without any progress of an import: a platform that restarts is back by then."""
POLL_S = 0.2
_PAGE = 1000
_T = TypeVar("_T")


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]
    next: str | None = None


class Platform:
    """Client of a platform with one API key, opened by `with`. Every call blocks for a minute at most and may
    raise PlatformError."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = platform_url(url)
        self._http = httpx2.Client(**client_settings(url, key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # -- the registry

    def create_enterprise(
        self, name: str, county: str, industry: str, *, id: str | None = None, uscc: str | None = None
    ) -> answers.Enterprise:
        """Registered now, or before with the same content; without `id` the platform makes one."""
        body = {"id": id, "name": name, "county": county, "industry": industry, "uscc": uscc}
        return self._call(answers.Enterprise, "POST", "/v1/enterprises", json=body)

    def enterprise(self, id: str) -> answers.Enterprise:
        return self._call(answers.Enterprise, "GET", f"/v1/enterprises/{id}")

    def enterprises(self, **filters: str) -> Iterator[answers.Enterprise]:
        """All that the filters leave (county, city, industry, name), in the order of ids."""
        return self._pages(answers.Enterprise, "/v1/enterprises", filters)

    def rename_enterprise(self, id: str, name: str) -> answers.Enterprise:
        return self._call(answers.Enterprise, "PATCH", f"/v1/enterprises/{id}", json={"name": name})

    def suspend_enterprise(self, id: str) -> answers.Enterprise:
        """Bars it and its units until it is resumed."""
        return self._call(answers.Enterprise, "POST", f"/v1/enterprises/{id}/suspend")

    def resume_enterprise(self, id: str) -> answers.Enterprise:
        return self._call(answers.Enterprise, "POST", f"/v1/enterprises/{id}/resume")

    def create_unit(
        self, class_: str, enterprise: str, *, id: str | None = None, name: str | None = None
    ) -> answers.Unit:
        body = {"id": id, "class": class_, "enterprise": enterprise, "name": name}
        return self._call(answers.Unit, "POST", "/v1/units", json=body)

    def unit(self, id: str) -> answers.Unit:
        return self._call(answers.Unit, "GET", f"/v1/units/{id}")

    def units(self, **filters: str) -> Iterator[answers.Unit]:
        """All that the filters leave (county, city, class, enterprise, industry, state, name, identifier)."""
        return self._pages(answers.Unit, "/v1/units", filters)

    def rename_unit(self, id: str, name: str) -> answers.Unit:
        return self._call(answers.Unit, "PATCH", f"/v1/units/{id}", json={"name": name})

    def suspend_unit(self, id: str) -> answers.Unit:
        return self._call(answers.Unit, "POST", f"/v1/units/{id}/suspend")

    def resume_unit(self, id: str) -> answers.Unit:
        return self._call(answers.Unit, "POST", f"/v1/units/{id}/resume")

    def retire_unit(self, id: str) -> answers.Unit:
        """Retire a unit permanently."""
        return self._call(answers.Unit, "POST", f"/v1/units/{id}/retire")

    def problems(self, unit: str) -> list[answers.DeviceProblem]:
        """Why gateways refused, or only partly took, what it sent; the latest first."""
        return list(self._pages(answers.DeviceProblem, f"/v1/units/{unit}/problems"))

    def enterprise_problems(self, enterprise: str) -> list[answers.DeviceProblem]:
        """Problems of all units that send as this enterprise."""
        return list(self._pages(answers.DeviceProblem, f"/v1/enterprises/{enterprise}/problems"))

    def security_events(self, **filters: str) -> answers.SecurityEvents:
        """The latest hundred that the filters leave (kind, city, enterprise), and counts of all of those."""
        return self._call(answers.SecurityEvents, "GET", "/v1/security/events", params=filters)

    def asset_shell(self, unit: str, records: int = 0) -> bytes:
        """Its Asset Administration Shell as an AASX package, with its latest readings."""
        return self._send("GET", f"/v1/units/{unit}/aas", params={"records": records}).content

    def latest(self, unit: str) -> answers.Latest:
        return self._call(answers.Latest, "GET", f"/v1/units/{unit}/latest")

    def command(
        self,
        unit: str,
        command: str,
        name: str | None = None,
        value: float | None = None,
        duration_s: float | None = None,
        onset_s: float | None = None,
        *,
        wait_s: float = 0.0,
    ) -> answers.Command:
        """start, stop, reset, set_point (name, value) or fault (name, severity, duration, onset). Returns its
        state once the unit has answered, or after `wait_s`."""
        path = f"/v1/units/{unit}/commands"
        given = {"name": name, "value": value, "duration_s": duration_s, "onset_s": onset_s}
        body = {"command": command} | {field: each for field, each in given.items() if each is not None}
        sent = self._call(answers.Command, "POST", path, json=body)
        deadline_s = time.monotonic() + wait_s
        while sent.state == "sent" and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            sent = next((each for each in self.commands(unit) if each.id == sent.id), sent)
        return sent

    def commands(self, unit: str) -> list[answers.Command]:
        """Its latest hundred, the newest first."""
        return list(self._pages(answers.Command, f"/v1/units/{unit}/commands"))

    def create_provider(self, name: str, *, id: str | None = None) -> answers.Provider:
        return self._call(answers.Provider, "POST", "/v1/providers", json={"id": id, "name": name})

    def create_contract(
        self, enterprise: str, provider: str, kind: str, *, id: str | None = None
    ) -> answers.Contract:
        """Kinds: infrastructure, platform, business, equipment."""
        body = {"id": id, "enterprise": enterprise, "provider": provider, "kind": kind}
        return self._call(answers.Contract, "POST", "/v1/contracts", json=body)

    def programme(self) -> answers.Programme:
        """Needs no key."""
        return self._call(answers.Programme, "GET", "/v1/programme")

    # -- the catalogue; needs no key

    def replay(self) -> answers.Replay:
        """The run of the programme's model that is played into the platform."""
        return self._call(answers.Replay, "GET", "/v1/programme/replay")

    def pause_replay(self) -> None:
        """Ask the player to pause."""
        self._send("POST", "/v1/programme/replay/pause")

    def resume_replay(self) -> None:
        self._send("POST", "/v1/programme/replay/resume")

    def set_replay_speed(self, speed: float) -> None:
        """Ask the player for another speed, in simulated seconds per second; 0: as fast as possible."""
        self._send("POST", "/v1/programme/replay/speed", json={"speed": speed})

    def start_replay_again(self, scenario: str | None = None) -> None:
        """Ask the stack to begin again, with another scenario if one is given; the platform restarts."""
        self._send("POST", "/v1/programme/replay/again", json={"scenario": scenario})

    def classes(self) -> list[answers.EquipmentClass]:
        """Equipment classes that a unit may have."""
        return list(self._pages(answers.EquipmentClass, "/v1/classes"))

    def counties(self) -> list[answers.County]:
        return list(self._pages(answers.County, "/v1/counties"))

    def industries(self) -> list[answers.Industry]:
        """Valid industries of an enterprise."""
        return list(self._pages(answers.Industry, "/v1/industries"))

    # -- keys

    def whoami(self) -> answers.Whoami:
        return self._call(answers.Whoami, "GET", "/v1/whoami")

    def create_key(self, name: str, role: str, enterprise: str | None = None) -> answers.NewKey:
        body = {"name": name, "role": role, "enterprise": enterprise}
        return self._call(answers.NewKey, "POST", "/v1/keys", json=body)

    def keys(self) -> list[answers.Key]:
        return list(self._pages(answers.Key, "/v1/keys"))

    def rotate_key(self, id: str, grace_s: int = 0) -> answers.NewKey:
        """A new key of the same role; the old one ends after `grace_s`."""
        return self._call(answers.NewKey, "POST", f"/v1/keys/{id}/rotate", json={"grace_s": grace_s})

    def revoke_key(self, id: str) -> None:
        self._send("DELETE", f"/v1/keys/{id}")

    # -- client certificates of edge nodes

    def sign_certificate(self, enterprise: str, csr: str, days: int = 365) -> answers.IssuedCertificate:
        """Issue a certificate for a signing request in PEM."""
        body = {"csr": csr, "days": days}
        return self._call(
            answers.IssuedCertificate, "POST", f"/v1/enterprises/{enterprise}/certificates", json=body
        )

    def certificate_bundle(self, enterprise: str, days: int = 365) -> bytes:
        """A zip: a new key, its certificate, and a script that publishes."""
        path = f"/v1/enterprises/{enterprise}/certificates/bundle"
        return self._send("POST", path, json={"days": days}).content

    def certificates(
        self, enterprise: str | None = None, ends_within_days: int | None = None
    ) -> Iterator[answers.Certificate]:
        """With `ends_within_days` only valid ones that it is time to renew."""
        given = {"enterprise": enterprise, "ends_within_days": ends_within_days}
        filters = {name: value for name, value in given.items() if value is not None}
        return self._pages(answers.Certificate, "/v1/certificates", filters)

    def revoke_certificate(self, id: str) -> answers.Certificate:
        return self._call(answers.Certificate, "POST", f"/v1/certificates/{id}/revoke")

    def issue_device_password(self, unit: str) -> answers.DevicePassword:
        """A new password of the unit at the broker; the one before ends."""
        return self._call(answers.DevicePassword, "POST", f"/v1/units/{unit}/password")

    def revoke_device_password(self, unit: str) -> None:
        self._send("DELETE", f"/v1/units/{unit}/password")

    def ca(self) -> bytes:
        """The authority's certificate in PEM; needs no key."""
        return self._send("GET", "/v1/authority/ca.pem").content

    # -- files

    def open_import(self, book: str) -> answers.Import:
        """A new job for enterprises or units."""
        return self._call(answers.Import, "POST", "/v1/imports", params={"book": book})

    def import_file(self, path: Path, job: str, progress: Progress = lambda _sent: None) -> answers.Import:
        """Send a file from the job's offset to its end, and continue automatically when the connection
        breaks. Returns the job's state; raises PlatformError when it is refused, or without progress for two
        minutes."""
        kind = content_type(path)
        offset, backoff, deadline_s = -1, Backoff(most_s=RETRY_MOST_S), time.monotonic() + GIVE_UP_S
        # An answer is read when all is sent, and what is no such file is refused for its beginning: so that
        # goes first, by itself.
        beginning = True
        while True:
            try:
                stands = self._call(answers.Import, "GET", f"/v1/imports/{job}")
                if stands.state == "done":
                    return stands
                if stands.offset > offset:
                    offset = stands.offset
                    backoff.reset()
                    deadline_s = time.monotonic() + GIVE_UP_S
                beginning = beginning and offset == 0
                headers = {"Content-Type": kind, "Upload-Offset": str(offset)}
                headers["Upload-Complete"] = "?0" if beginning else "?1"
                parts = islice(file_parts(path, offset, progress), 1 if beginning else None)
                beginning = False
                done = self._call(
                    answers.Import, "PATCH", f"/v1/imports/{job}", content=parts, headers=headers
                )
                if done.state == "done":
                    return done
            except PlatformAway as error:
                if time.monotonic() > deadline_s:
                    raise PlatformAway(f"{error} Job {job} can be gone on with later.") from error
                time.sleep(backoff.delay_s(error.retry_after_s))

    def write_import_errors(self, job: str, path: Path) -> None:
        """The job's bad lines as NDJSON."""
        with self._http.stream("GET", f"/v1/imports/{job}/errors") as answer, path.open("wb") as file:
            for part in answer.iter_bytes():
                file.write(part)

    # -- readings

    def export_readings(
        self,
        path: Path,
        class_: str,
        start: str | int,
        end: str | int,
        *,
        units: Sequence[str] = (),
        progress: Progress = lambda _got: None,
        **filters: str,
    ) -> int:
        """Write the stored readings of a class with start <= time < end (ms, or RFC 3339) to a file: Parquet
        when its name ends in .parquet, else CSV. `filters`: city, county, enterprise. Returns the file's
        bytes; what is left of a broken stream is removed."""
        format_ = "parquet" if path.suffix == ".parquet" else "csv"
        query = filters | {"class": class_, "from": start, "to": end, "format": format_, "unit": list(units)}
        scratch = path.with_name(f"{path.name}.new")
        got = 0
        asked = self._http.stream("GET", "/v1/export/readings", params=query, timeout=EXPORT_TIMEOUT_S)
        try:
            with transport_errors(self._url), asked as answer:
                if not answer.is_success:
                    answer.read()
                    check(self._url, answer)
                with scratch.open("wb") as file:
                    for part in answer.iter_bytes():
                        file.write(part)
                        got += len(part)
                        progress(got)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        return got

    # -- calls

    def _pages(self, kind: type[_T], path: str, filters: dict[str, Any] | None = None) -> Iterator[_T]:
        """The items of all pages; without `filters` (empty ones will do) there is one page."""
        query = None if filters is None else filters | {"limit": _PAGE}
        while True:
            page = self._call(_Page, "GET", path, params=query)
            for item in page.items:
                yield msgspec.json.decode(item, type=kind)
            if page.next is None or query is None:
                return
            query["cursor"] = page.next

    def _call(self, kind: type[_T], method: str, path: str, **more: Any) -> _T:
        answer = self._send(method, path, **more)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise PlatformError(f"{self._url}{path} answers something else: is it our platform?") from error

    def _send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        with transport_errors(self._url):
            answer = self._http.request(method, path, **more)
        try:
            return check(self._url, answer)
        except PlatformError as error:
            if error.status == 409 and path.startswith("/v1/imports/"):  # another connection still sends
                raise PlatformAway(str(error), error.status) from error
            raise
