"""Counts calls: how many of each rpc, how they ended, how long they took, how many are under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from engine.errors import DataOpsError, ErrorKind
from engine.health.meters import Meters
from server.caller import Call
from server.contract import RPCS
from server.interceptors.base import Context, Interceptor
from server.status import CODES, from_foreign

KNOWN = RPCS.keys() | {
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}


class Metering(Interceptor):
    """Labels are of the contract: a name that a caller made up is `unknown`, or each would be a series for ever."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        method = _label(call.method)
        open_now, code = self._meters.rpcs_open.labels(method), "OK"
        open_now.inc()
        try:
            yield
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED.name
            raise
        except Exception as error:
            code = _code(error)
            raise
        finally:
            open_now.dec()
            self._meters.rpcs.labels(method, code).inc()
            self._meters.rpc_seconds.labels(method).observe(time.monotonic() - call.started)


def _label(method: str) -> str:
    return method[1:] if method in KNOWN else "unknown"


def _code(error: Exception) -> str:
    """As `Errors`, further out, answers it."""
    if isinstance(error, grpc.aio.AbortError):
        return grpc.StatusCode.UNKNOWN.name  # a library's servicer has answered by itself, and does not say how
    known = error if isinstance(error, DataOpsError) else from_foreign(error)
    return CODES[known.kind if known is not None else ErrorKind.INTERNAL].name
