"""Increments on a cluster whose transaction ids begin anew, after 4,294,967,295, between a backup and the next."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from engine.backups.model import BackupType
from examples.stack.processes import spawn
from examples.stack.servers import PostgresServer
from tests.engine.backups.chains import THINGS, backed_up, delta_of, increment
from tests.world import World

LEFT = 2_000
"""Ids before the end: fewer than `BURN` takes."""
BURN = (
    "DO $$BEGIN FOR n IN 1..2500 LOOP BEGIN INSERT INTO public.burnt VALUES (n); EXCEPTION WHEN OTHERS THEN NULL; END;"
    " END LOOP; END$$"
)
LOG_SEGMENT_BYTES = 1 << 18
"""Of pg_xact: two bits for each of 2^20 transactions."""


@pytest.fixture
def old_server() -> Iterator[PostgresServer]:
    """As after four billion transactions: all rows are frozen, the next id is one of the last."""
    with PostgresServer() as server:
        for database in ("postgres", "template1"):
            with server.connect(database) as connection:
                connection.execute("VACUUM FREEZE")
        server.halt()
        log, account = server._data / "pg_xact" / "0FFF", server.account
        log.write_bytes(bytes(LOG_SEGMENT_BYTES))
        if account is not None:
            os.chown(log, account.uid, account.gid)
        process = spawn(
            [server.bin / "pg_resetwal", "-x", str((1 << 32) - LEFT), "-D", server._data],
            death_signal=signal.SIGKILL,
            account=account,
            env={"LANG": "C.UTF-8"},
            cwd=server.folder.path,
            log=server.log,
        )
        assert process.wait(60) == 0, server.log.read_text()
        server.start()
        yield server


def test_ids_that_begin_anew_between_two_backups(old_server: PostgresServer, make_world: Callable[..., World]):
    """Rows written behind the end have smaller ids than those before it, and are candidates."""
    world = make_world(old_server.create_database("platform"))
    world.sql(f"{THINGS}; CREATE TABLE public.burnt (n int)")
    with psycopg.connect(world.resources.platform.dsn) as slow:
        slow.execute("UPDATE public.things SET note = 'open' WHERE id = 1")
        slow.execute("SAVEPOINT a")
        world.sql("UPDATE public.things SET note = 'before' WHERE id > 2900")
        slow.execute("UPDATE public.things SET note = 'open' WHERE id = 2")  # of WAL the last, and nobody flushes it
        backed_up(world, BackupType.FULL, "things")
        world.sql("UPDATE public.things SET note = 'since' WHERE id IN (3, 4)")
        world.sql(BURN)
        world.sql("UPDATE public.things SET note = 'behind' WHERE id IN (5, 6, 7)")
        slow.commit()
    assert world.sql("SELECT min(xmin::text::bigint) < 1000 FROM public.things") == [(True,)]

    assert delta_of(world, increment(world)) == ("CANDIDATES", 7, 7)
    world.sql("UPDATE public.things SET note = 'later' WHERE id = 8")
    assert delta_of(world, increment(world)) == ("CANDIDATES", 1, 1)
