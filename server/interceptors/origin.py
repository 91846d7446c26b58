"""Where a call comes from, as far as the wire tells."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from engine.access import CallContext
from engine.ids import new_id

CORRELATION_KEY = "x-request-id"
_CORRELATION = re.compile(r"[\w.:-]{1,64}", re.ASCII)
MAX_CLIENT = 200


def context_of(method: str, context: Any) -> CallContext:
    """Peer, client name and correlation id. What a client says of itself is cut and cleaned, never believed."""
    metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    given = metadata.get(CORRELATION_KEY, "")
    return CallContext(
        peer=_peer(context.peer() or ""),
        client="".join(c for c in metadata.get("user-agent", "") if c.isprintable())[:MAX_CLIENT],
        request_id=given if _CORRELATION.fullmatch(given) else str(new_id()),
        rpc=method[:200],
    )


def host_of(peer: str) -> str:
    """The peer without its port: what rate limits go by."""
    return peer.rpartition(":")[0] or peer


def _peer(text: str) -> str:
    """grpc's `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000` as `host:port`."""
    family, _, address = unquote(text).partition(":")
    return address if family in ("ipv4", "ipv6") else unquote(text)
