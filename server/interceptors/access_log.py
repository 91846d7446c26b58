"""One line for each call: what was asked, by whom, how it ended and how long it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from google.protobuf.message import Message

from engine.errors import DataOpsError
from server.caller import Call
from server.interceptors.base import Context, Interceptor

log = structlog.get_logger(__name__)

QUIET = ("/grpc.health.v1.Health/",)
"""Probes come every few seconds from every balancer; their failures are logged all the same."""


MAX_ID = 64
"""Of a UUID that is none."""


class AccessLog(Interceptor):
    """Binds the request to every line of the call, and writes the call's own line at its end."""

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        structlog.contextvars.bind_contextvars(request=call.context.request_id)
        ending = "OK", ""
        try:
            yield
        except DataOpsError as error:
            ending = error.kind.name, error.reason
            raise
        except asyncio.CancelledError:
            ending = "CANCELLED", ""
            raise
        except Exception:
            ending = "INTERNAL", "INTERNAL"
            raise
        finally:
            if ending[0] != "OK" or not call.method.startswith(QUIET):
                _write(call, *ending)

    def message(self, call: Call, request: Message) -> None:
        """The request's own id and reason belong to the call from here on, in rows and in log lines.

        Cut, since the rules are looked at later: a log line must not be as long as a hostile field.
        """
        request_id = getattr(request, "request_id", "")[:MAX_ID]
        call.describe(request_id=request_id, reason=getattr(request, "reason", "")[:500])
        structlog.contextvars.bind_contextvars(request=call.context.request_id)


def _write(call: Call, code: str, reason: str) -> None:
    log.info(
        "rpc",
        method=call.method,
        code=code,
        reason=reason,
        seconds=round(time.monotonic() - call.started, 4),
        peer=call.context.peer,
        client=call.context.client,
        principal=str(call.caller.principal_id) if call.caller else "",
        resource=call.resource_id,
        **call.facts,
    )
