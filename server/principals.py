"""Who somebody is, for showing it: issuer and subject beside the id that rows keep."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from engine.access.service import principals
from engine.db.database import Database
from engine.db.models import PrincipalRow
from server.offload import Offload

REMEMBERED = 10_000
"""Rows kept: a principal's issuer, subject and kind never change, so an old one is as good as a fresh one."""


class Principals:
    """Looks principals up once per server. Loop only."""

    def __init__(self, db: Database, offload: Offload) -> None:
        self._db, self._offload = db, offload
        self._known: OrderedDict[uuid.UUID, PrincipalRow] = OrderedDict()

    async def of(self, ids: Iterable[uuid.UUID]) -> Mapping[uuid.UUID, PrincipalRow]:
        """The principals with these ids; unknown ones are left out."""
        wanted = set(ids)
        found = {row_id: self._known[row_id] for row_id in wanted if row_id in self._known}
        if missing := wanted - found.keys():
            fresh = await self._offload.call(self._look_up, missing)
            self._known.update(fresh)
            found.update(fresh)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _look_up(self, ids: set[uuid.UUID]) -> dict[uuid.UUID, PrincipalRow]:
        with self._db.transaction() as session:
            return principals(session, ids)
