"""A zip file with everything that a device needs to publish for an enterprise: key, certificate, the
authority's certificate, and a ready-to-run script that publishes a reading."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from qilu_contract.catalogue.generic import GENERIC, REGISTRABLE
from sqlalchemy import Connection, select

from qilu_platform.broker.authority import key_pem, make_key
from qilu_platform.database.schema import enterprises, units

_PUBLISH = """\
#!/bin/sh
# Publishes one reading of a unit of {enterprise}:
#   sh publish.sh [UNIT] ['"signal": value, …']
set -eu
cd "$(dirname "$0")"
chmod 600 node.key # not every unzip keeps it to its owner
unit=${{1:{unit}}}
values=${{2:-'{values}'}}
reading="{{\\"ts\\": $(date +%s)000, $values}}"
# It warns, and ends with 0, when the broker refuses the reading.
output=$(mosquitto_pub -V mqttv5 -i {enterprise} -h {host} -p {port} --cafile ca.crt \\
  --cert node.crt --key node.key -q 1 \\
  -t "qilu/v1/{county}/{enterprise}/$unit/telemetry" -m "$reading" 2>&1) && [ -z "$output" ] || {{
  echo "$output" >&2
  exit 1
}}
"""

_README = """\
Edge node {enterprise}, group {county}. Broker: mqtts://{host}:{port}

  node.key   the private key: any client with it can publish for {enterprise}; the platform keeps no copy
  node.crt   the certificate, valid until {ends}
  ca.crt     the authority that signed the broker's certificate

sh publish.sh UNIT '"power_in": 11.2' publishes one reading with Mosquitto's client. Any MQTT 5 client does
the same with these three files, on qilu/v1/{county}/{enterprise}/<unit>/telemetry (JSON) or as Sparkplug B
with group {county} and edge node {enterprise}. The client id is always {enterprise}: one connection at a
time.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Group of an edge node, and one of its units as an example, if there is one."""

    enterprise: str
    county: str
    unit: str
    """What the shell takes when none is given: `-my-motor`, or `?why not`."""
    values: str

    @classmethod
    def find(cls, connection: Connection, enterprise: str) -> Place:
        county = connection.scalar(select(enterprises.c.county).where(enterprises.c.id == enterprise)) or ""
        mine = (units.c.enterprise == enterprise, units.c.retired_ms.is_(None))
        query = select(units.c.id, units.c["class"]).where(*mine).order_by(units.c.id).limit(1)
        row = connection.execute(query).one_or_none()
        if row is None:
            return cls(enterprise, county, "?say which unit", '"signal": 0')
        if row[1] == GENERIC:
            return cls(enterprise, county, f"-{row[0]}", '"temperature": 21.5')
        signal = REGISTRABLE[row[1]].signals[0]
        value = str(bool(signal.nominal)).lower() if signal.type == "bool" else f"{signal.nominal:g}"
        return cls(enterprise, county, f"-{row[0]}", f'"{signal.name}": {value}')


def new_key() -> tuple[bytes, str]:
    """A private key, and a signing request for it, both in PEM."""
    key = make_key()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key_pem(key), _pem(builder.sign(key, hashes.SHA256()))


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def bundle(place: Place, broker: str, key: bytes, certificate: bytes, ca: bytes) -> bytes:
    """The zip; `broker` is `host:port`."""
    host, _, port = broker.rpartition(":")
    ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc.date().isoformat()
    words = {
        "enterprise": place.enterprise, "county": place.county, "host": host, "port": port, "ends": ends,
        "unit": place.unit, "values": place.values,
    }  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in (
            ("node.key", key, 0o600),
            ("node.crt", certificate, 0o644),
            ("ca.crt", ca, 0o644),
            ("publish.sh", _PUBLISH.format(**words).encode(), 0o755),
            ("README.txt", _README.format(**words).encode(), 0o644),
        ):
            entry = zipfile.ZipInfo(f"{place.enterprise}/{name}")
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return out.getvalue()
