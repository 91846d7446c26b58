"""Watches outlive what let them in: whether the token and the roles still hold is asked again while they last.

The token's end costs nothing to look at and is looked at before every message. Roles are read again every `every`
seconds for each watch, and at most once in a few seconds for each principal: a thousand watchers of one principal cost
one query.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from engine.access import Caller
from engine.access.permission import ANY
from engine.access.service import caller_of
from engine.clock import Clock
from engine.db.database import Database
from engine.errors import ResourceExhausted, Unauthenticated, Unavailable
from server.caller import Call
from server.offload import Offload
from server.tokens import LEEWAY_SECONDS

FRESH_SECONDS = 3.0
"""How long what a principal may is taken as read for its other watches."""
PATIENCE_SECONDS = 60.0
"""How long a watch goes on although roles cannot be read, as long as the feed keeps it then."""
REMEMBERED = 10_000


class Standings:
    """What watching principals may now. Loop only."""

    def __init__(
        self,
        db: Database,
        offload: Offload,
        clock: Clock,
        entities: Callable[[uuid.UUID], Sequence[str]],
        *,
        every: float = 15.0,
    ) -> None:
        self._db, self._clock = db, clock
        self.offload, self.entities, self.every = offload, entities, every
        self._read: OrderedDict[uuid.UUID, tuple[float, asyncio.Task[Caller]]] = OrderedDict()

    def of(self, call: Call, caller: Caller, job_id: uuid.UUID) -> Standing:
        """For one watch, whose caller was permitted just now."""
        return Standing(self, call.token_expires_at, caller, job_id)

    def expired(self, token_expires_at: datetime) -> bool:
        return self._clock() >= token_expires_at + timedelta(seconds=LEEWAY_SECONDS)  # as when it was let in

    async def now(self, caller: Caller) -> Caller:
        """The caller with the roles it holds now, or held a moment ago.

        Raises:
            PermissionDenied: PRINCIPAL_UNKNOWN.
        """
        loop = asyncio.get_running_loop()
        at, task = self._read.get(caller.principal_id, (0.0, None))
        if task is None or loop.time() - at > FRESH_SECONDS:
            task = asyncio.create_task(self.offload.call(self._look_up, caller))
            task.add_done_callback(_noticed)
            self._read[caller.principal_id] = (loop.time(), task)
            self._read.move_to_end(caller.principal_id)
            if len(self._read) > REMEMBERED:
                self._read.popitem(last=False)
        found = await asyncio.shield(task)  # others wait for it too: one that goes away must not cancel it
        return replace(found, context=caller.context)

    def _look_up(self, caller: Caller) -> Caller:
        """On a thread."""
        with self._db.transaction() as session:
            return caller_of(session, caller.principal_id, caller.context, self._clock())


class Standing:
    """One watch's. `check` before each message."""

    def __init__(
        self, standings: Standings, token_expires_at: datetime | None, caller: Caller, job_id: uuid.UUID
    ) -> None:
        self._all, self._token_expires_at, self._caller, self._job_id = standings, token_expires_at, caller, job_id
        self._entities: Sequence[str] | None = None
        self._checked = asyncio.get_running_loop().time()

    async def check(self) -> None:
        """Return while the caller may go on watching.

        Raises:
            Unauthenticated: TOKEN_EXPIRED.
            PermissionDenied: PERMISSION_MISSING, PRINCIPAL_UNKNOWN.
            Unavailable: CONTROL_UNREACHABLE when roles could not be read for a minute.
        """
        if self._token_expires_at is not None and self._all.expired(self._token_expires_at):
            raise Unauthenticated("token: has expired while the job was watched", reason="TOKEN_EXPIRED")
        now = asyncio.get_running_loop().time()
        if now - self._checked < self._all.every:
            return
        try:
            await self._require()
        except (DBAPIError, PoolTimeout, ResourceExhausted) as error:
            # A restart of the control database ends no watch: nothing new can be told meanwhile.
            if now - self._checked > self._all.every + PATIENCE_SECONDS:
                raise Unavailable(
                    "the control database cannot answer now", reason="CONTROL_UNREACHABLE", retry_after=1.0
                ) from error
        else:
            self._checked = now

    async def _require(self) -> None:
        caller = await self._all.now(self._caller)
        caller.require("jobs.read")
        if caller.may("jobs.read", ANY):
            return
        if self._entities is None:
            self._entities = await self._all.offload.call(self._all.entities, self._job_id)
        for entity in self._entities:
            caller.require("jobs.read", entity)


def _noticed(task: asyncio.Task[Caller]) -> None:
    if not task.cancelled():
        task.exception()  # taken note of: its watches may be gone
