"""TLS 1.3 only, with certificates that are read again when their files change.

grpcio has no setting for a least version. Naming one cipher suite that BoringSSL knows only for 1.2, and that needs a
pre-shared key which nobody has, leaves 1.2 without any and 1.3, whose suites are not configurable, as it is. Since that
hangs on the inner life of a library, `require_tls13` proves it at every start.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import structlog

CIPHERS = "ECDHE-PSK-AES256-CBC-SHA"
# Read by grpc when it makes its first credentials; the entry point imports this module before grpc, for that reason.
os.environ["GRPC_SSL_CIPHER_SUITES"] = CIPHERS

import grpc  # noqa: E402  after the environment above

from engine.errors import FailedPrecondition, InvalidRequest  # noqa: E402

log = structlog.get_logger(__name__)

HANDSHAKE_SECONDS = 5.0


class Certificates:
    """A chain and its key, as files that are replaced in place when they are renewed."""

    def __init__(self, cert_file: Path | None, key_file: Path | None) -> None:
        if cert_file is None or key_file is None:
            raise InvalidRequest("tls_cert_file and tls_key_file: expected both", reason="CONFIG_INVALID")
        self._cert_file, self._key_file = cert_file, key_file
        self._lock = threading.Lock()
        self._seen = self._stat()
        try:
            self._current = self._read()
        except (OSError, ssl.SSLError, ValueError) as error:
            raise InvalidRequest(
                f"tls_cert_file, tls_key_file: expected a PEM chain and its key, found {type(error).__name__}",
                reason="CONFIG_INVALID",
            ) from None

    def credentials(self) -> grpc.ServerCredentials:
        """Server credentials that look at the files before each handshake: two stats, some 5 us.

        grpc's belong to the port they are first used for: each listener asks for its own.
        """
        return grpc.dynamic_ssl_server_credentials(self._current, self._renewed, False)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What grpc asks before a handshake; None: as before. In the middle of a renewal it stays as it was."""
        with self._lock:
            with suppress(OSError):
                seen = self._stat()
                if seen == self._seen:
                    return None
                try:
                    self._current = self._read()
                except (OSError, ssl.SSLError, ValueError) as error:
                    log.warning("tls.certificate_unreadable", error=type(error).__name__)
                    return None
                self._seen = seen
                log.info("tls.certificate_renewed")
                return self._current
            return None

    def _stat(self) -> tuple[int, ...]:
        found = [path.stat() for path in (self._cert_file, self._key_file) if path.exists()]
        return tuple(value for stat in found for value in (stat.st_mtime_ns, stat.st_size, stat.st_ino))

    def _read(self) -> grpc.ServerCertificateConfiguration:
        # OpenSSL refuses a key that does not belong to the certificate; grpc would find out at each handshake.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert_file, self._key_file)
        pair = (self._key_file.read_bytes(), self._cert_file.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair])


async def require_tls13(certificates: Certificates) -> None:
    """Prove on a loopback port of its own that these certificates are served by TLS 1.3 and not by 1.2.

    Raises:
        FailedPrecondition: TLS_VERSION.
    """
    probe = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = probe.add_secure_port("127.0.0.1:0", certificates.credentials())
    await probe.start()
    try:
        old = await asyncio.to_thread(handshake, "127.0.0.1", port, ssl.TLSVersion.TLSv1_2)
        new = await asyncio.to_thread(handshake, "127.0.0.1", port, ssl.TLSVersion.TLSv1_3)
    finally:
        await probe.stop(None)
    if old is not None or new != "TLSv1.3":
        raise FailedPrecondition(
            f"tls: expected 1.3 alone, found 1.2 {'accepted' if old else 'refused'} and 1.3"
            f" {'accepted' if new else 'refused'}",
            reason="TLS_VERSION",
        )


def handshake(host: str, port: int, version: ssl.TLSVersion) -> str | None:
    """The version agreed on when only `version` is offered, with every cipher there is; None when refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            return encrypted.version()
    except (ssl.SSLError, OSError):
        return None
