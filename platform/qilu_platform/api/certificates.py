"""Certificate routes: client certificates of edge nodes, and the authority's public certificate."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire.ids import ID_PATTERN
from sqlalchemy import Connection

from qilu_platform.api.common import (
    AWAY,
    CONFLICT,
    INVALID,
    NOT_FOUND,
    PROBLEMS,
    AnId,
    Gateway,
    Owner,
    Reader,
    Responses,
    RuntimeDep,
    answer,
)
from qilu_platform.api.problems import Problem
from qilu_platform.api.resources import Limit, RepeatKey
from qilu_platform.broker.authority import certificate_pem
from qilu_platform.broker.bundle import Place, bundle, new_key
from qilu_platform.broker.certificates import get, issue, page, revoke
from qilu_platform.models.answers import BrokerRulesOut, CertificateOut, CertificatePage, IssuedOut
from qilu_platform.models.bodies import BundleIn, CertificateIn
from qilu_platform.registry import audit_log, security
from qilu_platform.registry.idempotency import Repeatable
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.security import Event
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["certificates"], responses=PROBLEMS)
public = APIRouter(prefix="/v1/authority", tags=["certificates"], responses=INVALID)

Serial = Annotated[str, Path(pattern="^[0-9a-f]{40}$")]
Known = Annotated[str | None, Query(max_length=40, description="The version that the caller has.")]

_PEM = "application/x-pem-file"
_ZIP: Responses = {
    201: {
        "description": "node.key, node.crt, ca.crt, publish.sh, README.txt, in a folder of the node's name.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _pem(what: str) -> Responses:
    return {200: {"description": what, "content": {_PEM: {"schema": {"type": "string"}}}}}


def _check_own(caller: Caller, enterprise: str) -> None:
    if not caller.sees(enterprise):  # what a caller may not see does not exist for it
        raise Problem(404, f"enterprise {enterprise} does not exist.")


def _listener(runtime: Runtime) -> str:
    """The listener that the certificate is valid for. Raises Problem."""
    if runtime.settings.broker_for_nodes is None:
        raise Problem(
            409,
            "The built-in broker takes no certificates, so none is issued: install Mosquitto 2.0.21 or newer "
            "and start the stack again; the log-in in its `env` file works on this machine.",
        )
    return runtime.settings.broker_for_nodes


@router.post(
    "/enterprises/{id}/certificates",
    status_code=201,
    response_model=IssuedOut,
    responses=NOT_FOUND | CONFLICT,
)
async def create_certificate(
    runtime: RuntimeDep, caller: Owner, id: AnId, body: CertificateIn, key: RepeatKey = None
) -> Response:
    """Signs the key of a request for the enterprise's edge node. To renew, ask again before the end: both are
    valid until the older one ends or is revoked."""
    _check_own(caller, id)
    _listener(runtime)
    asked = Repeatable(caller, key, f"enterprises/{id}/certificates", body.row())

    def work(connection: Connection) -> tuple[dict[str, Any], int]:
        serial, made = issue(connection, runtime.authority, id, body.csr, body.days)
        audit_log.record(connection, caller, "issued", f"certificates/{serial}", enterprise=id)
        pems = {"certificate": certificate_pem(made).decode(), "ca": runtime.authority.pem.decode()}
        return get(connection, serial) | pems, 201

    made, status = await runtime.database.write(lambda connection: asked.run(connection, work))
    return answer(made, status)


@router.post(
    "/enterprises/{id}/certificates/bundle",
    status_code=201,
    response_class=Response,
    responses=_ZIP | NOT_FOUND | CONFLICT,
)
async def create_certificate_bundle(
    runtime: RuntimeDep, caller: Owner, id: AnId, body: BundleIn | None = None
) -> Response:
    """Makes key and certificate for the enterprise's edge node, with a script that publishes. The key is in
    this answer and nowhere else."""
    _check_own(caller, id)
    listener = _listener(runtime)
    days = (body or BundleIn()).days

    def work(connection: Connection) -> bytes:
        private, csr = new_key()
        serial, made = issue(connection, runtime.authority, id, csr, days)
        audit_log.record(connection, caller, "issued", f"certificates/{serial}", enterprise=id)
        place, pem = Place.find(connection, id), certificate_pem(made)
        return bundle(place, listener, private, pem, runtime.authority.pem)

    content = await runtime.database.write(work)
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{id}.zip"'}
    return Response(content, 201, headers, media_type="application/zip")


@router.get("/certificates", response_model=CertificatePage)
async def list_certificates(
    runtime: RuntimeDep,
    caller: Reader,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9a-f]{40}$", description="`next` of the page before.")
    ] = None,
    limit: Limit = 100,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    ends_within_days: Annotated[
        int | None, Query(ge=0, le=100_000, description="Only valid ones that end so soon: time to renew.")
    ] = None,
) -> Response:
    """List certificates in the order of their serial numbers."""
    if caller.enterprise is not None:
        if enterprise not in (None, caller.enterprise):
            return answer({"items": [], "next": None})
        enterprise = caller.enterprise
    before = None
    if ends_within_days is not None:
        before = min(int(time.time() * 1000) + ends_within_days * 86_400_000, MAX_TIME_MS)
    return answer(await runtime.database.read(lambda found: page(found, enterprise, before, cursor, limit)))


@router.get("/certificates/{serial}", response_model=CertificateOut, responses=NOT_FOUND)
async def get_certificate(runtime: RuntimeDep, caller: Reader, serial: Serial) -> Response:
    found = await runtime.database.read(lambda connection: get(connection, serial))
    if not caller.sees(found["enterprise"]):
        raise Problem(404, f"certificate {serial} does not exist.")
    return answer(found)


@router.post("/certificates/{serial}/revoke", response_model=CertificateOut, responses=NOT_FOUND)
async def revoke_certificate(runtime: RuntimeDep, caller: Owner, serial: Serial) -> Response:
    """Ends it for good: it is in the revocation list from now on, and its node's rights at the broker end
    with its last valid certificate."""

    def work(connection: Connection) -> dict[str, Any]:
        if not caller.sees(get(connection, serial)["enterprise"]):
            raise Problem(404, f"certificate {serial} does not exist.")
        if revoke(connection, serial):
            of = get(connection, serial)["enterprise"]
            security.record(connection, [Event("revoked_certificate", of, serial, f"By {caller.key}.")])
            audit_log.record(connection, caller, "revoked", f"certificates/{serial}")
        return get(connection, serial)

    return answer(await runtime.database.write(work))


@router.get(
    "/broker/rules", response_model=BrokerRulesOut, responses=AWAY | {204: {"description": "Unchanged."}}
)
async def get_broker_rules(runtime: RuntimeDep, _: Gateway, known: Known = None) -> Any:
    """The rules of edge nodes as files for Mosquitto: the topics of each and of devices with a password,
    the hashes of those passwords, and the revocation list. 204 when
    `known` is still the version."""
    found = await runtime.served_rules.newer_than(known, runtime.database)
    if found is None:
        return Response(status_code=204)
    return answer({"version": found[0], "files": found[1]})


@public.get("/ca.pem", response_class=Response, responses=_pem("The authority's own certificate."))
async def get_ca(runtime: RuntimeDep) -> Response:
    """The certificate authority's certificate. Needs no key."""
    return Response(runtime.authority.pem, media_type=_PEM)


@public.get(
    "/crl.pem",
    response_class=Response,
    responses=_pem("The revocation list.") | AWAY,
)
async def get_crl(runtime: RuntimeDep) -> Response:
    """Certificates that are revoked, or on hold while their enterprise is suspended; needs no key."""
    return Response(await runtime.revocation_list.pem(runtime.database), media_type=_PEM)
