"""A watch lasts as long as its token and its caller's roles, and asking for them is cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from dataops.v1 import jobs_pb2
from sqlalchemy.exc import OperationalError

from engine.errors import PermissionDenied, Unauthenticated, Unavailable
from engine.ids import new_id
from server import standing as standing_module
from server.caller import Call
from server.standing import Standings
from server.tokens import LEEWAY_SECONDS
from tests.server.edge import Refusal, running_edge
from tests.server.journal import Journal
from tests.server.rpc import Edge

WATCH = "/dataops.v1.JobService/WatchJob"
JOB = new_id()


@pytest.fixture
def edge(control_dsn: str, tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(control_dsn, tmp_path)
    yield edge
    edge.close()


class Counted(Standings):
    lookups = 0
    away = False

    def _look_up(self, caller):
        self.lookups += 1
        if self.away:
            raise OperationalError("SELECT", {}, Exception("away"))
        return super()._look_up(caller)


def counted(edge: Edge) -> Counted:
    return Counted(edge.db, edge.offload, edge.resources.clock, lambda _job_id: ["users"], every=0)


def watch(standings: Standings, edge: Edge, subject: str = "admin", expires: datetime | None = None):
    caller = edge.caller(subject)
    return standings.of(Call("", caller.context, token_expires_at=expires), caller, JOB)


async def test_a_thousand_watches_of_one_principal_read_its_roles_once(edge, monkeypatch):
    monkeypatch.setattr(standing_module, "FRESH_SECONDS", 3600.0)
    standings = counted(edge)
    caller = edge.caller()
    watches = [standings.of(Call("", caller.context), caller, JOB) for _ in range(1_000)]

    await asyncio.gather(*(watch.check() for watch in watches))
    await asyncio.gather(*(watch.check() for watch in watches))

    assert standings.lookups == 1


async def test_a_watch_that_goes_away_takes_no_others_answer_along(edge):
    standings = counted(edge)
    first, second = (asyncio.create_task(watch(standings, edge).check()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    await second
    await asyncio.wait([first])
    assert first.cancelled()


async def test_roles_are_read_again_after_a_moment(edge, monkeypatch):
    monkeypatch.setattr(standing_module, "FRESH_SECONDS", 0.0)
    standings = counted(edge)
    edge.grant("ida", "jobs.read")
    standing = watch(standings, edge, "ida")
    await standing.check()
    edge.regrant("ida", "jobs.cancel")

    with pytest.raises(PermissionDenied, match="PERMISSION_MISSING"):
        await standing.check()


async def test_a_control_database_that_is_away_for_a_moment_ends_no_watch(edge, monkeypatch):
    monkeypatch.setattr(standing_module, "FRESH_SECONDS", 0.0)
    standings = counted(edge)
    standing = watch(standings, edge)
    standings.away = True
    await standing.check()
    standings.away = False
    await standing.check()

    standings.away = True
    monkeypatch.setattr(standing_module, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(Unavailable, match="CONTROL_UNREACHABLE"):
        await standing.check()


async def test_a_token_holds_as_long_as_it_lets_callers_in(edge):
    standings = counted(edge)
    now = datetime.now(UTC)
    await watch(standings, edge, expires=now - timedelta(seconds=LEEWAY_SECONDS - 60)).check()
    with pytest.raises(Unauthenticated, match="TOKEN_EXPIRED"):
        await watch(standings, edge, expires=now - timedelta(seconds=LEEWAY_SECONDS)).check()


async def test_a_watch_ends_with_its_token(
    tmp_path: Path, control_dsn: str, platform_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(tmp_path, control_dsn, platform_dsn, watch_heartbeat_seconds=0.2) as edge:
        with Journal(control_dsn) as journal:
            request = jobs_pb2.WatchJobRequest(job_id=str(journal.job(events=1))).SerializeToString()
        call = edge.channel.unary_stream(WATCH)(request, metadata=edge.bearer(), timeout=60)
        assert await call.read()
        monkeypatch.setattr(standing_module, "LEEWAY_SECONDS", -2 * 86_400)  # as if two days had passed
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read():
                pass

    refusal = Refusal(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
