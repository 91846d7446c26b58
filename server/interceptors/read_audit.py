"""Reads that the contract wants kept: one ACCESS row, written before the answer leaves. No row, no answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dataops.v1 import options_pb2
from google.protobuf.message import Message

from engine.audit import record_access
from engine.clock import Clock
from engine.db.database import Database
from server.caller import Call, current_caller
from server.contract import RPCS, Rpc
from server.interceptors.access_log import MAX_ID
from server.interceptors.base import Context, Interceptor
from server.offload import Offload


class ReadAudit(Interceptor):
    """Writes the row of rpcs whose audit option is READ; the other kinds are written by what does the work."""

    def __init__(self, db: Database, offload: Offload, clock: Clock) -> None:
        self._db = db
        self._offload = offload
        self._clock = clock

    @asynccontextmanager
    async def around(self, call: Call, context: Context) -> AsyncIterator[None]:
        yield
        rpc = RPCS.get(call.method)
        if rpc is not None and rpc.audit == options_pb2.AUDIT_KIND_READ:
            await self._offload.call(self._write, call, rpc)

    def message(self, call: Call, request: Message) -> None:
        """Note which resource the request names: `import_id` for `imports`; of what a job found, the job."""
        rpc = RPCS.get(call.method)
        if rpc is not None and not call.resource_id:
            call.resource_id = str(getattr(request, f"{rpc.noun[:-1]}_id", ""))[:MAX_ID]
            if job_id := "" if call.resource_id else str(getattr(request, "job_id", "")):
                call.facts["job"] = job_id[:MAX_ID]

    def _write(self, call: Call, rpc: Rpc) -> None:
        details = {"job_id": call.facts["job"]} if "job" in call.facts else {}
        with self._db.transaction() as session:
            record_access(session, current_caller(), rpc.permission, rpc.noun, call.resource_id, details, self._clock())
