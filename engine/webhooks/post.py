"""One attempt: a POST over TLS, with an end in time whatever the receiver does."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from engine.errors import InvalidRequest
from engine.webhooks.address import Target, connect
from engine.webhooks.failures import NotDelivered

ANSWER_BYTES = 64 << 10
"""Read of the answer, so that a receiver that writes one is not cut off in the middle; nothing of it is kept."""


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later, the system's authorities and those of the file.

    Raises:
        InvalidRequest: CONFIG_INVALID when the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError:  # an SSLError is one
            raise InvalidRequest(
                "webhook_ca_file: cannot read certificates (PEM) from the file it names", reason="CONFIG_INVALID"
            ) from None
    return context


def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    context: ssl.SSLContext,
    private_hosts: frozenset[str],
    seconds: float,
) -> int:
    """The receiver's HTTP status. A redirect is a status like others: it is not followed.

    Raises:
        NotDelivered: there was none within `seconds`.
    """
    until = time.monotonic() + seconds
    plain = connect(target, private_hosts, until)
    try:
        tls = context.wrap_socket(
            plain,
            server_hostname=target.host,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,  # or half a status line, cut off, would be read as a status
        )
    except (OSError, ValueError):
        plain.close()
        raise NotDelivered("TLS_FAILED") from None
    over = threading.Event()
    with closing(tls):
        # A socket's own limit is for each read: a byte now and then would outlast any. This ends the whole.
        watchdog = threading.Timer(max(0.0, until - time.monotonic()), _cut, (tls, over))
        watchdog.daemon = True
        watchdog.start()
        try:
            tls.settimeout(seconds)
            tls.do_handshake()
            return _exchange(tls, target, body, headers)
        except Exception as error:
            raise NotDelivered("TIMEOUT" if over.is_set() else _word(error)) from None
        finally:
            watchdog.cancel()
            watchdog.join()


def _exchange(tls: ssl.SSLSocket, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.auto_open = 0  # this socket or none: never another address
    connection.sock = tls
    connection.request("POST", target.path, body, {"Host": target.authority, "Connection": "close", **headers})
    with closing(connection.getresponse()) as response:
        with suppress(OSError, http.client.HTTPException):
            response.read(ANSWER_BYTES)  # the status has been given: how the rest ends is all the same
        return response.status


def _cut(tls: ssl.SSLSocket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):
        socket.socket.shutdown(tls, socket.SHUT_RDWR)  # not the TLS object's own, which is another thread's


def _word(error: Exception) -> str:
    """In this order: a certificate's error is an SSLError, that is an OSError, and a peer that went is all
    sorts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "CERTIFICATE_REFUSED"
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return "CONNECTION_LOST"
    if isinstance(error, ssl.SSLError):
        return "TLS_FAILED"
    if isinstance(error, TimeoutError):
        return "TIMEOUT"
    return "ANSWER_INVALID" if isinstance(error, http.client.HTTPException | ValueError) else "CONNECTION_LOST"
