"""Certificates of the OPC UA server: its own, and those of clients that it trusts.

pki/own/      the server's certificate and key, self-signed at the first start
pki/trusted/  certificates of clients, or of authorities that signed them
pki/rejected/ certificates of clients that were refused; move one to trusted/ to admit it
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Literal

import structlog
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from qilu_common.private_files import private_folder, write_private
from qilu_contract.errors import ConfigError

MAX_REJECTED = 100
"""Maximum number of refused certificates that are kept, because anybody can send them."""

_log = structlog.get_logger(__name__)


class Pki:
    """The folder `pki` of a server or a client. `peers`: the role of those whose certificates it judges."""

    def __init__(self, folder: Path, peers: Literal["clients", "servers"] = "clients") -> None:
        self._peer = (
            CertificateValidatorOptions.PEER_CLIENT
            if peers == "clients"
            else CertificateValidatorOptions.PEER_SERVER
        )
        self._own, self._trusted = folder / "own", folder / "trusted"
        self._rejected = folder / "rejected"
        self.certificate, self.key = self._own / "certificate.der", self._own / "key.pem"

    async def prepare(self, uri: str, host: str) -> None:
        """Make what is missing. Raises ConfigError when the folder cannot be written."""
        try:
            for folder in (self._own, self._trusted, self._rejected):
                private_folder(folder)
            await setup_self_signed_certificate(
                self.key,
                self.certificate,
                uri,
                host,
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
                {"organizationName": "Clouds in Qilu"},
            )
            self.key.chmod(0o600)
        except OSError as error:
            raise ConfigError(
                f"{error.filename or self._own} cannot be written: {error.strerror}: give another --state."
            ) from error

    async def validate(self, certificate: x509.Certificate, peer: ua.ApplicationDescription) -> None:
        """Admit the certificate of a peer. Raises ServiceError, and keeps the certificate in `rejected`."""
        try:
            if not any(self._trusted.iterdir()):  # the store cannot be empty
                raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)
            store = TrustStore([self._trusted], [])
            await store.load()  # at each log-in: a certificate is admitted without a restart
            options = CertificateValidatorOptions.TRUSTED_VALIDATION | self._peer
            await CertificateValidator(options, store).validate(certificate, peer)
        except ServiceError:
            self._keep(certificate)
            raise

    def _keep(self, certificate: x509.Certificate) -> None:
        body = certificate.public_bytes(Encoding.DER)
        path = self._rejected / f"{sha256(body).hexdigest()[:16]}.der"
        _log.warning("certificate refused", file=str(path))
        if not path.exists() and len(list(self._rejected.iterdir())) < MAX_REJECTED:
            write_private(path, body)
