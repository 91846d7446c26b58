"""Field rules of the contract, checked before a service sees the request."""

from __future__ import annotations

from google.protobuf.message import Message

from engine.errors import InvalidRequest
from server.caller import Call
from server.interceptors.base import Interceptor
from server.rules import violations_of


class Validation(Interceptor):
    """Refuses requests that break a rule, naming every field that does."""

    def message(self, call: Call, request: Message) -> None:
        found = violations_of(request)
        if found:
            first = found[0]
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise InvalidRequest(
                f"{first.subject}: {first.description}{more}", reason="INVALID_REQUEST", violations=found
            )
