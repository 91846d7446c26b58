"""Outermost: whatever happens inside becomes one status with a reason.

A library's own text never reaches the caller: grpc would send `Unexpected <class …>: <text>`, and that text has been
seen to hold a DSN. An exception we do not know is INTERNAL with an id; all else of it stands in the log beside that id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog

from engine.errors import DataOpsError, InternalError
from engine.ids import new_id
from server.caller import Call
from server.interceptors.base import Context, Interceptor
from server.status import CODES, DETAILS_KEY, from_foreign, status_of

log = structlog.get_logger(__name__)


class Errors(Interceptor):
    """Maps exceptions to statuses."""

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AbortError:
            raise  # a library's servicer has answered by itself
        except DataOpsError as error:
            await _answer(context, error)
        except Exception as error:
            known = from_foreign(error)
            if known is not None:
                log.warning("rpc.dependency_failed", method=call.method, reason=known.reason, exc_info=True)
            await _answer(context, known or _internal(call))


def _internal(call: Call) -> InternalError:
    error_id = str(new_id())
    log.error("rpc.internal_error", method=call.method, error_id=error_id, exc_info=True)
    return InternalError(f"internal error {error_id}", reason="INTERNAL", metadata={"error_id": error_id})


async def _answer(context: Context, error: DataOpsError) -> None:
    status = status_of(error)
    await context.abort(
        CODES[error.kind], status.message, trailing_metadata=((DETAILS_KEY, status.SerializeToString()),)
    )
