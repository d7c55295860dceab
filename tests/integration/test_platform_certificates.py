"""Certificates of edge nodes: who may have one, what is signed, what is revoked. The broker's side of it is
in test_broker_identities.py."""

from __future__ import annotations

import base64
import io
import stat
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from qilu_contract.errors import ConfigError
from qilu_platform.app import create_app
from qilu_platform.audit import audit
from qilu_platform.broker.authority import Authority
from qilu_platform.broker.bundle import new_key
from qilu_platform.broker.certificates import MAX_VALID, Node
from qilu_platform.broker.rules import MAX_LINES_FOR, acl
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
OWNER, OTHER = "370202-e00007", "370203-e00001"
DAY_MS = 86_400_000


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def platform(database_url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(db_url=database_url, api_key=SecretStr(ADMIN), ca=folder / "ca"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://platform", headers=bearer(ADMIN)) as client,
    ):
        for id_ in (OWNER, OTHER):
            body = {"id": id_, "name": "Works", "county": id_[:6], "industry": "C31"}
            assert (await client.post("/v1/enterprises", json=body)).status_code == 201
        yield client
        assert audit(app.state.runtime.database.engine) == []


async def sign(client: httpx.AsyncClient, enterprise: str = OWNER, **body: Any) -> httpx.Response:
    content = {"csr": new_key()[1]} | body
    return await client.post(f"/v1/enterprises/{enterprise}/certificates", json=content)


def files_with(content: bytes, folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


async def revoked(client: httpx.AsyncClient) -> dict[str, x509.ReasonFlags | None]:
    """Serial numbers and reasons on the revocation list, which the authority must have signed."""
    ca = x509.load_pem_x509_certificate((await client.get("/v1/authority/ca.pem")).content)
    listed = x509.load_pem_x509_crl((await client.get("/v1/authority/crl.pem")).content)
    public: Any = ca.public_key()
    assert listed.is_signature_valid(public)
    found = {}
    for line in listed:
        held = line.extensions
        found[f"{line.serial_number:040x}"] = held[0].value.reason if len(held) else None
    return found


def signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def of_version(csr: str, version: int) -> str:
    """The request with another version number, which is the first integer in it."""
    der = x509.load_pem_x509_csr(csr.encode()).public_bytes(serialization.Encoding.DER)
    other = der.replace(b"\x02\x01\x00", bytes((2, 1, version)), 1)
    body = base64.encodebytes(other).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


async def test_a_request_is_signed_in_the_enterprises_name_whatever_name_it_gives(
    database_url: str, tmp_path: Path
) -> None:
    async with platform(database_url, tmp_path) as client:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OTHER)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        answer = await sign(client, csr=pem, days=30)
        assert answer.status_code == 201, answer.text
        made = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
        ca = x509.load_pem_x509_certificate(answer.json()["ca"].encode())
        made.verify_directly_issued_by(ca)
        serial = f"{made.serial_number:040x}"
        code = Authority.open(tmp_path / "ca").code(made.serial_number)
        assert made.subject.rfc4514_string({NameOID.SERIAL_NUMBER: "SERIALNUMBER"}) == (
            f"SERIALNUMBER={serial}{code},CN={OWNER}"
        )
        assert made.public_key() == key.public_key()
        assert answer.json()["id"] == f"{made.serial_number:040x}"
        left = made.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29) < left < timedelta(days=31)
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        noted = (await client.get("/v1/audit")).json()["items"][0]
        assert (noted["action"], noted["subject"]) == ("issued", f"certificates/{answer.json()['id']}")
        assert noted["detail"] == {"enterprise": OWNER}


async def test_what_cannot_be_signed_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db", tmp_path) as client:
        der = x509.load_pem_x509_csr(new_key()[1].encode()).public_bytes(serialization.Encoding.DER)
        other = der[:-1] + bytes([der[-1] ^ 1])  # the signature's last bit
        broken = x509.load_der_x509_csr(other).public_bytes(serialization.Encoding.PEM).decode()
        cases = [
            ("hello", "not a certificate signing request"),
            (signed(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
            (signed(rsa.generate_private_key(3, 2048)), "public exponent 3; use 65537"),
            (signed(ec.generate_private_key(ec.SECP192R1())), "secp192r1; use P-256, P-384 or P-521"),
            (signed(ec.generate_private_key(ec.SECP256K1())), "secp256k1; use P-256"),
            (of_version(new_key()[1], 3), "not a certificate signing request"),
            (broken, "its signature is not by its own key"),
        ]
        for csr, said in cases:
            answer = await sign(client, csr=csr)
            assert answer.status_code == 422, csr
            assert said in answer.json()["detail"]
        assert (await sign(client, "nobody")).status_code == 404
        assert (await sign(client, days=0)).status_code == 422
        # With a service's name a certificate would have the service's rights, or its session.
        for name in ("gateway", "operator", "qilu-gateway-qilu"):
            body = {"id": name, "name": "Works", "county": "370202", "industry": "C31"}
            assert (await client.post("/v1/enterprises", json=body)).status_code == 201
            answer = await sign(client, name)
            assert answer.status_code == 409
            assert "service" in answer.json()["detail"]
        for _ in range(MAX_VALID):
            assert (await sign(client)).status_code == 201
        assert (await sign(client)).status_code == 409


async def test_certificates_are_listed_revoked_and_held(database_url: str, tmp_path: Path) -> None:
    async with platform(database_url, tmp_path) as client:
        short, long = [(await sign(client, days=days)).json()["id"] for days in (10, 300)]
        theirs = (await sign(client, OTHER)).json()["id"]

        async def ids(**query: Any) -> set[str]:
            found = []
            cursor = None
            while True:
                given = query | ({"limit": 2} if cursor is None else {"limit": 2, "cursor": cursor})
                page = (await client.get("/v1/certificates", params=given)).json()
                found += page["items"]
                cursor = page["next"]
                if cursor is None:
                    return {item["id"] for item in found}

        assert await ids() == {short, long, theirs}
        assert await ids(enterprise=OWNER) == {short, long}
        assert await ids(ends_within_days=30) == {short}
        assert await revoked(client) == {}
        for _ in range(2):
            ended = await client.post(f"/v1/certificates/{short}/revoke")
            assert ended.json()["state"] == "revoked"
        assert await ids(ends_within_days=30) == set()
        assert await revoked(client) == {short: None}
        await client.post(f"/v1/enterprises/{OTHER}/suspend")
        assert await revoked(client) == {short: None, theirs: x509.ReasonFlags.certificate_hold}
        assert (await sign(client, OTHER)).status_code == 409
        await client.post(f"/v1/enterprises/{OTHER}/resume")
        assert await revoked(client) == {short: None}
        assert (await client.post(f"/v1/certificates/{'0' * 40}/revoke")).status_code == 404


async def test_a_bundle_holds_a_key_that_is_kept_nowhere(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/platform.db"
    async with platform(database, tmp_path) as client:
        await client.post("/v1/units", json={"id": "u-1", "class": "motor", "enterprise": OWNER})
        answer = await client.post(f"/v1/enterprises/{OWNER}/certificates/bundle")
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert set(files) == {"node.key", "node.crt", "ca.crt", "publish.sh", "README.txt"}
        modes = {name: archive.getinfo(f"{OWNER}/{name}").external_attr >> 16 for name in files}
        assert stat.S_IMODE(modes["node.key"]) == 0o600
        key = serialization.load_pem_private_key(files["node.key"], None)
        certificate = x509.load_pem_x509_certificate(files["node.crt"])
        assert key.public_key() == certificate.public_key()
        assert b"u-1" in files["publish.sh"]
    secret = files["node.key"].splitlines()[2]  # the first line of any such key is the same
    assert files_with(secret, tmp_path) == []
    assert files_with(b"PRIVATE KEY", tmp_path) == ["ca.key"]


async def test_keys_of_other_roles_and_enterprises_get_no_certificate(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db", tmp_path) as client:
        mine, theirs = [(await sign(client, id_)).json()["id"] for id_ in (OWNER, OTHER)]

        async def key(role: str, **more: str) -> dict[str, str]:
            made = await client.post("/v1/keys", json={"name": role, "role": role} | more)
            return bearer(made.json()["key"])

        async def status(method: str, path: str, headers: dict[str, str]) -> int:
            body = {"csr": new_key()[1]} if path.endswith("certificates") and method == "POST" else None
            return (await client.request(method, f"/v1/{path}", headers=headers, json=body)).status_code

        owner = await key("enterprise", enterprise=OWNER)
        assert await status("POST", f"enterprises/{OWNER}/certificates", owner) == 201
        assert await status("POST", f"enterprises/{OTHER}/certificates", owner) == 404
        assert await status("POST", f"enterprises/{OTHER}/certificates/bundle", owner) == 404
        assert await status("POST", f"certificates/{theirs}/revoke", owner) == 404
        assert await status("GET", f"certificates/{theirs}", owner) == 404
        assert await status("GET", f"certificates/{mine}", owner) == 200
        assert await status("POST", f"enterprises/{OWNER}/suspend", owner) == 403
        listed = (await client.get("/v1/certificates", headers=owner)).json()["items"]
        assert {item["enterprise"] for item in listed} == {OWNER}
        others = await client.get("/v1/certificates", headers=owner, params={"enterprise": OTHER})
        assert others.json() == {"items": [], "next": None}
        viewer = await key("viewer")
        for path in (
            f"enterprises/{OWNER}/certificates",
            f"enterprises/{OWNER}/certificates/bundle",
            f"certificates/{mine}/revoke",
            f"enterprises/{OWNER}/suspend",
        ):
            assert await status("POST", path, viewer) == 403
        assert await status("GET", f"certificates/{mine}", viewer) == 200
        for role in ("ingest", "fleet"):
            assert await status("POST", f"enterprises/{OWNER}/certificates", await key(role)) == 403
        for path in ("certificates", "enterprises"):
            assert (await client.get(f"/v1/{path}", headers={"Authorization": ""})).status_code == 401


def test_the_authority_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    first, again = Authority.open(tmp_path / "ca"), Authority.open(tmp_path / "ca")
    assert first.pem == again.pem
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == ["ca.crt", "ca.key"]
    (tmp_path / "ca" / "ca.crt").write_bytes(Authority.open(tmp_path / "other").pem)
    with pytest.raises(ConfigError, match="not of the key beside it"):
        Authority.open(tmp_path / "ca")
    (tmp_path / "ca" / "ca.key").write_text("nonsense")
    with pytest.raises(ConfigError, match="damaged"):
        Authority.open(tmp_path / "ca")


def test_a_brokers_certificate_stays_until_its_names_or_its_authority_change(tmp_path: Path) -> None:
    authority, folder = Authority.open(tmp_path / "ca"), tmp_path / "broker"

    def made(authority: Authority, *names: str) -> bytes:
        authority.ensure_server(folder, names)
        assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o600
        return (folder / "server.crt").read_bytes()

    first = made(authority, "localhost", "127.0.0.1")
    assert made(authority, "localhost", "127.0.0.1") == first
    second = made(authority, "works.example", "127.0.0.1")
    assert second != first
    assert made(Authority.open(tmp_path / "other"), "works.example", "127.0.0.1") != second


def test_more_nodes_than_mosquitto_can_search_share_patterns() -> None:
    few = acl([Node("a", "370202"), Node("b", "370203")])
    assert few.count("user ") == 2
    assert "topic readwrite spBv1.0/370203/+/b/#" in few
    many = acl([Node(f"e-{number}", "370202") for number in range(MAX_LINES_FOR + 1)])
    assert "user" not in many
    assert "%u" in many


async def test_rabbitmq_needs_the_password_of_its_management_api(tmp_path: Path) -> None:
    settings = Settings(
        db_url=f"sqlite:///{tmp_path}/platform.db", ca=tmp_path / "ca", rabbitmq=("http://127.0.0.1:1",)
    )
    app = create_app(settings)
    with pytest.raises(ConfigError, match="needs QILU_RABBITMQ_PASSWORD"):
        async with app.router.lifespan_context(app):
            pass


@asynccontextmanager
async def platform_of_rabbitmq(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator's client of a platform that decides who may log in at RabbitMQ."""
    settings = Settings(
        db_url=f"sqlite:///{folder}/platform.db",
        api_key=SecretStr(ADMIN),
        ca=folder / "ca",
        rabbitmq=("http://127.0.0.1:1",),
        rabbitmq_password=SecretStr("of the manager"),
        broker_for_devices="127.0.0.1:8884",
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://platform", headers=bearer(ADMIN)) as client,
    ):
        yield client


async def test_rabbitmq_is_told_which_certificates_may_log_in(tmp_path: Path) -> None:
    async with platform_of_rabbitmq(tmp_path) as client:
        body = {"id": OWNER, "name": "Works", "county": OWNER[:6], "industry": "C31"}
        await client.post("/v1/enterprises", json=body)
        id_ = (await sign(client)).json()["id"]
        code = Authority.open(tmp_path / "ca").code(int(id_, 16))
        user = f"SERIALNUMBER={id_}{code},CN={OWNER}"
        good = {"username": user, "client_id": OWNER, "password": "none", "vhost": "/"}

        async def may(question: str, **more: str) -> bool:
            text = (await client.post(f"/v1/rabbitmq/{question}", data=good | more)).text
            assert text in ("allow", "deny"), text
            return text == "allow"

        assert await may("user")
        assert await may("vhost")
        assert await may("resource", resource="exchange", name="amq.topic")
        key = f"spBv1___0.{OWNER[:6]}.NBIRTH.{OWNER}"
        topic = {"permission": "write", "routing_key": key, "variable_map.client_id": OWNER}
        assert await may("topic", **topic)
        assert not await may("topic", **topic | {"variable_map.client_id": OTHER})
        for wrong in (
            {"password": "another"},
            {"client_id": OTHER},
            {"username": OWNER},
            {"vhost": "devices"},
            {"username": f"SERIALNUMBER={id_},CN={OWNER}"},
            {"username": f"SERIALNUMBER={id_}{'0' * len(code)},CN={OWNER}"},
            {"username": f"SERIALNUMBER={id_}{code},CN={OTHER}"},
            {"username": f"SERIALNUMBER={'0' * 40}{code},CN={OWNER}"},
        ):
            assert not await may("user", **wrong), wrong
        await client.post(f"/v1/certificates/{id_}/revoke")
        assert not await may("user")
        assert not await may("vhost")
        assert (await client.post("/v1/rabbitmq/user?username=a", data=good)).status_code == 422


async def test_rabbitmq_is_told_which_devices_may_log_in(tmp_path: Path) -> None:
    async with platform_of_rabbitmq(tmp_path) as client:
        county = OWNER[:6]
        body = {"id": OWNER, "name": "Works", "county": county, "industry": "C31"}
        (await client.post("/v1/enterprises", json=body)).raise_for_status()
        unit = {"id": "m1", "enterprise": OWNER, "class": "motor"}
        (await client.post("/v1/units", json=unit)).raise_for_status()
        made = (await client.post("/v1/units/m1/password")).raise_for_status().json()
        user = made["username"]
        good = {"username": user, "client_id": user, "password": made["password"], "vhost": "devices"}

        async def may(question: str, **more: str) -> bool:
            return (await client.post(f"/v1/rabbitmq/{question}", data=good | more)).text == "allow"

        assert await may("user")
        assert await may("vhost")
        assert await may("resource", resource="exchange", name="amq.topic")
        topic = {"permission": "write", "variable_map.client_id": user}
        own = f"qilu.v1.{county}.{OWNER}.m1.telemetry"
        assert await may("topic", **topic, routing_key=own)
        assert not await may("topic", **topic | {"permission": "read"}, routing_key=own)
        for key in (f"qilu.v1.{county}.{OWNER}.m2.telemetry", f"spBv1___0.{county}.NBIRTH.{OWNER}"):
            assert not await may("topic", **topic, routing_key=key)
        for wrong in (
            {"password": "none"},
            {"password": ""},
            {"vhost": "/"},
            {"vhost": "another"},
            {"client_id": "qilu-gateway-a"},
            {"username": "device.m2", "client_id": "device.m2"},
        ):
            assert not await may("user", **wrong), wrong
        await client.post("/v1/units/m1/password")
        assert not await may("user")  # a new password ends the one before
        await client.delete("/v1/units/m1/password")
        assert not await may("vhost")
