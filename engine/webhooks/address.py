"""Where a message may be sent. A webhook's URL is a caller's word, and the worker stands inside the network: it must
not become a way to what only the inside reaches.

The name is resolved once, each address is judged, and the connection goes to a judged address; asking for the name
again could give another one. `webhook_private_hosts` names the hosts that may have an address that is not public.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.errors import InvalidRequest
from engine.webhooks.failures import NotDelivered

HTTPS_PORT = 443
MOST_ADDRESSES = 4
"""Of one name that are tried within one attempt."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_TEXT = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Target:
    """What a URL names."""

    host: str
    """A name in small letters, or an address without brackets: what the certificate must be for."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"


def target_of(url: str) -> Target:
    """Raises:
    InvalidRequest: WEBHOOK_URL_INVALID, saying what is wrong and not the URL, which may hold a secret.
    """
    if not _TEXT.fullmatch(url) or "\\" in url:
        raise _invalid("found white space, a backslash or letters beyond ASCII")
    try:
        parts = urlsplit(url)
        port = HTTPS_PORT if parts.port is None else parts.port
    except ValueError:
        raise _invalid("found no host and port, expected https://host or https://host:port") from None
    if parts.scheme != "https":
        raise _invalid(f"found {'http' if parts.scheme == 'http' else 'no https'}, expected https://host")
    if "@" in parts.netloc or "#" in url:
        raise _invalid("found a user or a fragment, expected https://host with neither")
    host = parts.hostname or ""
    if not (_HOST.fullmatch(host) or _is_address(host)) or not 0 < port < 1 << 16:
        raise _invalid("found no host and port, expected https://host or https://host:port")
    return Target(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def private_hosts_of(setting: str) -> frozenset[str]:
    """The setting `webhook_private_hosts` as a set of names."""
    return frozenset(name for name in (part.strip().lower() for part in setting.split(",")) if name)


def refuse_private(target: Target, private_hosts: frozenset[str]) -> None:
    """Of a URL that holds an address itself: a name is judged when it is resolved, at each attempt.

    Raises:
        InvalidRequest: WEBHOOK_URL_INVALID.
    """
    if _is_address(target.host) and target.host not in private_hosts and not is_public(target.host):
        raise _invalid(
            "found an address that is not public, expected one that is, or a host of DATAOPS_WEBHOOK_PRIVATE_HOSTS"
        )


def is_public(address: str) -> bool:
    """Whether it is an address of the internet at large: not of this host, a link, a private network or a group, and no
    such IPv4 address in an IPv6 one's clothes."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.teredo is not None or ip.is_site_local:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            ip = inner
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def connect(target: Target, private_hosts: frozenset[str], until: float) -> socket.socket:
    """A TCP connection to an address of the target that may be sent to; `until` is on the monotonic clock.

    Raises:
        NotDelivered: NAME_UNKNOWN, ADDRESS_REFUSED, CONNECTION_FAILED, TIMEOUT.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotDelivered("NAME_UNKNOWN") from None
    private = target.host in private_hosts
    allowed = [entry for entry in found if private or is_public(str(entry[4][0]))]
    if not allowed:
        raise NotDelivered("ADDRESS_REFUSED")
    word = "CONNECTION_FAILED"
    for family, kind, protocol, _, address in allowed[:MOST_ADDRESSES]:
        if (left := until - time.monotonic()) <= 0:
            raise NotDelivered("TIMEOUT")
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(left)
            made.connect(address)
        except OSError as error:
            made.close()
            word = "TIMEOUT" if isinstance(error, TimeoutError) else "CONNECTION_FAILED"
        else:
            return made
    raise NotDelivered(word)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest(f"url: {what}", reason="WEBHOOK_URL_INVALID")
