"""Who calls: the bearer token, believed, and the roles that principal holds now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from engine.access import Caller, resolve_caller
from engine.clock import Clock
from engine.db.database import Database
from engine.errors import Unauthenticated
from server.caller import Call
from server.interceptors.base import Context, Interceptor
from server.offload import Offload
from server.tokens import Identity, TokenVerifier

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection."

MAX_TOKEN = 8_192


class Authentication(Interceptor):
    """Puts the caller on the call. Health is for everybody; reflection too when the installation says so."""

    def __init__(
        self, verifier: TokenVerifier, db: Database, offload: Offload, clock: Clock, *, anonymous_reflection: bool
    ) -> None:
        self._verifier = verifier
        self._db = db
        self._offload = offload
        self._clock = clock
        self._anonymous = (HEALTH, REFLECTION) if anonymous_reflection else (HEALTH,)

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        if not call.method.startswith(self._anonymous):
            token = _bearer(context)
            identity, caller = await self._offload.call(self._identify, call, token)
            call.caller, call.token_expires_at = caller, identity.expires_at
            structlog.contextvars.bind_contextvars(principal=str(caller.principal_id))
        yield

    def _identify(self, call: Call, token: str) -> tuple[Identity, Caller]:
        """On a thread: a signature costs 90 to 170 us, and a renewed key set is read from its file."""
        identity = self._verifier.verify(token)
        with self._db.transaction() as session:
            caller = resolve_caller(
                session,
                identity.issuer,
                identity.subject,
                "USER",
                identity.display_name,
                call.context,
                self._clock(),
            )
        return identity, caller


def _bearer(context: Context) -> str:
    found = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    if not found:
        raise Unauthenticated("authorization: found none, expected `Bearer <token>`", reason="TOKEN_MISSING")
    scheme, _, token = str(found[0]).partition(" ")
    # Two tokens would leave it to chance whose call this is.
    if len(found) > 1 or scheme.lower() != "bearer" or not token.strip() or len(token) > MAX_TOKEN:
        raise Unauthenticated("authorization: expected one `Bearer <token>` of at most 8 KiB", reason="TOKEN_INVALID")
    return token.strip()
