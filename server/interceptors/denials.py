"""Refused callers leave a trace in the audit log, a bounded one: who is refused a thousand times fills no log."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from engine.audit import record_denied
from engine.clock import Clock
from engine.db.database import Database
from engine.errors import DataOpsError, PermissionDenied, Unauthenticated
from server.caller import Call
from server.contract import RPCS
from server.interceptors.base import Context, Interceptor
from server.interceptors.origin import host_of
from server.offload import Offload

log = structlog.get_logger(__name__)

ROWS_AT_ONCE = 10
SECONDS_PER_ROW = 6.0
"""Ten rows at once, then ten a minute, from one principal or, without a believed token, from one host."""

ALL_ROWS_AT_ONCE = 600
ALL_SECONDS_PER_ROW = 0.1
"""From all together, so that many sources do not do what one may not."""

MAX_SOURCES = 10_000


@dataclass
class _Source:
    tokens: float
    at: float
    suppressed: int = 0


class RateLimit:
    """A token bucket for each source, the least recently seen forgotten first."""

    def __init__(
        self,
        burst: int = ROWS_AT_ONCE,
        seconds: float = SECONDS_PER_ROW,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._seconds = seconds
        self._now = now
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def take(self, source: str) -> int | None:
        """How many were refused since the last one that was let through, and lets this one; None: not this one."""
        now = self._now()
        found = self._sources.setdefault(source, _Source(float(self._burst), now))
        self._sources.move_to_end(source)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        found.tokens = min(float(self._burst), found.tokens + (now - found.at) / self._seconds)
        found.at = now
        if found.tokens < 1:
            found.suppressed += 1
            return None
        found.tokens -= 1
        suppressed, found.suppressed = found.suppressed, 0
        return suppressed


class Denials(Interceptor):
    """Writes a DENIED row for calls that authentication, permission or a service refuses."""

    def __init__(self, db: Database, offload: Offload, clock: Clock, limit: RateLimit | None = None) -> None:
        self._db = db
        self._offload = offload
        self._clock = clock
        self._limit = limit or RateLimit()
        self._all = RateLimit(ALL_ROWS_AT_ONCE, ALL_SECONDS_PER_ROW)

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except (Unauthenticated, PermissionDenied) as error:
            await self._record(call, error)
            raise

    async def _record(self, call: Call, error: DataOpsError) -> None:
        source = str(call.caller.principal_id) if call.caller else host_of(call.context.peer)
        suppressed = self._limit.take(source)
        if suppressed is None or self._all.take("") is None:
            return
        try:
            await self._offload.call(self._write, call, error, suppressed)
        except Exception:
            # The refusal stands, whether or not its row could be written; the log has it then.
            log.error("audit.denial_not_written", method=call.method, reason=error.reason, exc_info=True)

    def _write(self, call: Call, error: DataOpsError, suppressed: int) -> None:
        rpc = RPCS.get(call.method)
        details: dict[str, object] = dict(error.metadata)
        if call.resource_id:
            details["resource_id"] = call.resource_id
        if suppressed:
            details["suppressed_before"] = suppressed
        operation = error.metadata.get("operation") or (rpc.permission if rpc else "")
        with self._db.transaction() as session:
            record_denied(session, call.caller, operation, error.reason, call.context, details, self._clock())
