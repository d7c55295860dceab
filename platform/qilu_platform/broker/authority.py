"""A small certificate authority: one key on this machine, certificates of edge nodes and brokers, revocation
lists.

Knows nothing of the registry: who may have a certificate is decided in certificates.py.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from qilu_contract.errors import ConfigError

CA_YEARS = 20
SERVER_DAYS = 730
RENEW_SERVER_DAYS = 60
"""A broker's or a service's certificate with fewer days left is renewed."""
CRL_DAYS = 30
"""Validity of the revocation list, after which a broker rejects all clients. The list is signed every day, so
29 failures are tolerated."""
CLOCK_SKEW = timedelta(minutes=5)
"""Backdating of certificates, because devices' clocks may be late."""
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
"""NIST SP 800-57: 2048 bits at least. More than 8192 cost a broker too much in each handshake (assumed)."""
RSA_EXPONENT = 65537
"""NIST SP 800-56B allows no smaller one, and no tool makes another by itself."""
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

CODE_DIGITS = 24
"""Hexadecimal digits of the code in a subject: with the serial number 64, the most that X.520 allows."""

_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class BadRequest(ValueError):
    """A certificate signing request is malformed, or its key is too weak; the message says which."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A line of the revocation list. `held` certificates may come off it again."""

    serial: int
    at_ms: int
    held: bool = False


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def requested_key(csr: str) -> _PublicKey:
    """The public key of a PEM request that was signed with it. Nothing else of a request is looked at: names
    are the authority's to give. Raises BadRequest."""
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise BadRequest(
            "csr: not a certificate signing request in PEM (openssl req -new makes one)"
        ) from error
    if not signed:
        raise BadRequest("csr: its signature is not by its own key")
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise BadRequest(
                f"csr: an RSA key of {key.key_size} bits; use {MIN_RSA_BITS} to {MAX_RSA_BITS}, or P-256"
            )
        if key.public_numbers().e != RSA_EXPONENT:
            raise BadRequest(
                f"csr: an RSA key with the public exponent {key.public_numbers().e}; use {RSA_EXPONENT}"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            raise BadRequest(f"csr: a key on the curve {key.curve.name}; use P-256, P-384 or P-521")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise BadRequest("csr: use an elliptic curve (P-256), Ed25519 or RSA key")
    return key


class Authority:
    """The key and certificate in `folder`: `ca.key` (mode 0600) and `ca.crt`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._secret = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
        self.certificate = certificate

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """Made on first use. Of several processes that come at once the first makes it. Raises
        ConfigError."""
        key_file, certificate_file = folder / "ca.key", folder / "ca.crt"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not key_file.exists():
                _write_once(key_file, key_pem(make_key()))
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ConfigError(f"{key_file} holds no elliptic-curve key: put back the one that was there.")
            if not certificate_file.exists():
                _write_once(certificate_file, certificate_pem(_self_signed(key)))
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"The certificate authority in {folder} cannot be used: {error.strerror}."
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"The certificate authority in {folder} is damaged ({error}): put back its files."
            ) from error
        if certificate.public_key() != key.public_key():
            raise ConfigError(
                f"{certificate_file} is not of the key beside it: put back the files that were."
            )
        return cls(key, certificate)

    @property
    def pem(self) -> bytes:
        return certificate_pem(self.certificate)

    def sign_node(self, key: _PublicKey, node: str, begins: datetime, ends: datetime) -> x509.Certificate:
        """A client certificate whose common name is the edge node's id. RabbitMQ takes the subject, with
        serial number and code, as the user name, and the DNS name as the client id."""
        return self._sign(
            key, node, begins, ends, [ExtendedKeyUsageOID.CLIENT_AUTH], [x509.DNSName(node)], numbered=True
        )

    def code(self, serial: int) -> str:
        """Stands behind the serial number in a subject. Only this authority can compute it, so a client that
        knows a serial number does not know the subject."""
        words = b"subject of a certificate" + serial.to_bytes(20, "big")
        return hmac.new(self._secret, words, hashlib.sha256).hexdigest()[:CODE_DIGITS]

    def sign_service(self, key: _PublicKey, service: str) -> x509.Certificate:
        """A client certificate of one of our services; RabbitMQ knows it by its common name."""
        now = datetime.now(UTC)
        ends = now + timedelta(days=SERVER_DAYS)
        return self._sign(key, service, now - CLOCK_SKEW, ends, [ExtendedKeyUsageOID.CLIENT_AUTH], [])

    def sign_server(self, key: _PublicKey, names: Sequence[str]) -> x509.Certificate:
        """A broker's certificate for host names and addresses."""
        now = datetime.now(UTC)
        usage = [ExtendedKeyUsageOID.SERVER_AUTH]
        ends = now + timedelta(days=SERVER_DAYS)
        return self._sign(
            key, names[0], now - CLOCK_SKEW, ends, usage, [_general_name(name) for name in names]
        )

    def _sign(
        self,
        key: _PublicKey,
        name: str,
        begins: datetime,
        ends: datetime,
        usage: list[x509.ObjectIdentifier],
        names: list[x509.GeneralName],
        *,
        numbered: bool = False,
    ) -> x509.Certificate:
        """`numbered`: the serial number and its code are part of the subject."""
        serial = x509.random_serial_number()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name, f"{serial:040x}{self.code(serial)}" if numbered else None))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(min(ends, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def crl(self, revoked: Iterable[Revoked]) -> bytes:
        """The revocation list in PEM, signed now. Its number, which must grow, is the time in ms."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CLOCK_SKEW)
            .next_update(now + timedelta(days=CRL_DAYS))
            .add_extension(x509.CRLNumber(time.time_ns() // 1_000_000), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for each in revoked:
            line = (
                x509.RevokedCertificateBuilder()
                .serial_number(each.serial)
                .revocation_date(datetime.fromtimestamp(each.at_ms // 1000, UTC))
            )
            if each.held:
                line = line.add_extension(x509.CRLReason(x509.ReasonFlags.certificate_hold), critical=False)
            builder = builder.add_revoked_certificate(line.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def vouches_for(self, crl: bytes, revoked: Iterable[Revoked], within: timedelta) -> bool:
        """Whether a revocation list in PEM is this authority's, was signed `within` that time, and has
        exactly these entries. False for anything else, an empty file included."""
        try:
            there = x509.load_pem_x509_crl(crl)
        except ValueError:
            return False
        public_key = self._key.public_key()
        if not there.is_signature_valid(public_key):
            return False
        if not timedelta() <= datetime.now(UTC) - CLOCK_SKEW - there.last_update_utc <= within:
            return False
        return {(each.serial_number, _is_held(each)) for each in there} == {
            (each.serial, each.held) for each in revoked
        }

    def ensure_server(self, folder: Path, names: Sequence[str]) -> None:
        """`server.key` (mode 0600) and `server.crt` in `folder`, and `ca.crt` beside them; renewed when they
        are near their end or the names change."""
        wanted = x509.SubjectAlternativeName([_general_name(name) for name in names])
        self._ensure(folder, "server", wanted, lambda key: self.sign_server(key, names))

    def ensure_service(self, folder: Path, service: str) -> None:
        """`client.key` (mode 0600) and `client.crt` of a service in `folder`, and `ca.crt` beside them;
        renewed when they are near their end."""
        self._ensure(folder, "client", None, lambda key: self.sign_service(key, service))

    def _ensure(
        self,
        folder: Path,
        name: str,
        wanted: x509.SubjectAlternativeName | None,
        sign: Callable[[_PublicKey], x509.Certificate],
    ) -> None:
        key_file, certificate_file = folder / f"{name}.key", folder / f"{name}.crt"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "ca.crt").write_bytes(self.pem)
        if key_file.exists() and certificate_file.exists():
            there = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            left = there.not_valid_after_utc - datetime.now(UTC)
            ours = there.issuer == self.certificate.subject and _is_signed_by(there, self.certificate)
            if ours and left > timedelta(days=RENEW_SERVER_DAYS) and _names(there) == wanted:
                return
        key = make_key()
        key_file.unlink(missing_ok=True)
        _write_once(key_file, key_pem(key))
        certificate_file.write_bytes(certificate_pem(sign(key.public_key())))

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _is_held(line: x509.RevokedCertificate) -> bool:
    try:
        reason = line.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return False
    return reason is x509.ReasonFlags.certificate_hold


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now, name = datetime.now(UTC), _name("Clouds in Qilu certificate authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    with suppress(InvalidSignature, ValueError, TypeError):
        certificate.verify_directly_issued_by(issuer)
        return True
    return False


def _name(common: str, number: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if number is not None:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, number))
    return x509.Name(parts)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})


def _write_once(path: Path, content: bytes) -> None:
    """A file of mode 0600, whole or not at all; the one that is there stays."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with suppress(FileExistsError):
            os.link(partial, path)
    finally:
        os.unlink(partial)
