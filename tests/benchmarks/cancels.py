"""How soon a cancel ends REPLACE in its longest statements: `python -m tests.benchmarks.cancels [rows]`.

Prints one line for each cancel: the stage it met, how long that had run, seconds until the import was CANCELLED.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import threading
import time
import uuid

import structlog

from engine.config import Settings
from engine.db import migrate
from engine.db.models import ImportRow
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from engine.resources import open_resources
from examples.stack.servers import PostgresServer
from tests.world import World

# met after so many seconds of the stage, as long as it lasts that long
MOMENTS = (
    *(("COMPARE", seconds) for seconds in (1.0, 10.0, 25.0)),
    *(("PLAN", 2.0), ("LOAD", 2.0)),
    *(("APPLY", seconds) for seconds in (10.0, 40.0)),
)


def main(rows: int) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        control, platform = server.create_database("control"), server.create_database("platform")
        migrate.upgrade(control)
        settings = Settings(
            control_dsn=control,
            platform_dsn=platform,
            artifacts=folder,
            keys="test " + base64.b64encode(bytes(range(32))).decode(),
        )
        world = World(open_resources(settings, name="cancels", pool_size=5))
        world.sql(
            "CREATE TABLE public.things (id int PRIMARY KEY, code text UNIQUE, note text);"
            f"INSERT INTO public.things SELECT n, 'c' || n, 'note ' || n FROM generate_series(1, {rows}) n"
        )
        upload = world.upload(_file(rows))
        planned: uuid.UUID | None = None
        for stage, seconds in MOMENTS:
            if stage in ("COMPARE", "PLAN"):
                row = _create(world, upload)
                _met(world, row.id, row.plan_job_id, stage, seconds)
                continue
            if planned is None:
                started = time.monotonic()
                planned = _create(world, upload).id
                world.work()
                print(f"planned in {time.monotonic() - started:.0f} s", flush=True)
            row = world.apply(world.imports.get(world.caller, planned), work=False, deletes=rows // 2)
            if not _met(world, row.id, row.apply_job_id, stage, seconds):
                break  # it was done before
            planned = None
        world.resources.close()


def _file(rows: int) -> bytes:
    """Half of the rows updated, as many new ones, the other half to be deleted."""
    return b"id,code,note\n" + b"".join(b"%d,d%d,new %d\n" % (n, n, n) for n in range(rows // 2 + 1, rows * 3 // 2 + 1))


def _create(world: World, upload: uuid.UUID) -> ImportRow:
    return world.create("things", upload, import_type="REPLACE", max_deletes=10**9)


def _met(world: World, import_id: uuid.UUID, job_id: uuid.UUID | None, stage: str, seconds: float) -> bool:
    """Runs the job beside, cancels it `seconds` into the stage; whether it ended so."""
    runner = threading.Thread(target=Runner(world.resources, handlers(), "cancels").run_next)
    runner.start()
    while runner.is_alive() and world.job(job_id).stage != stage:
        time.sleep(0.05)
    since = time.monotonic()
    while runner.is_alive() and world.job(job_id).stage == stage and time.monotonic() - since < seconds:
        time.sleep(0.05)
    lasted, asked = time.monotonic() - since, time.monotonic()
    met = world.job(job_id).stage
    world.imports.cancel(world.caller, import_id)
    runner.join()
    status = world.imports.get(world.caller, import_id).status
    print(f"{stage} after {lasted:.1f} s (met in {met}): {status} in {time.monotonic() - asked:.2f} s", flush=True)
    return status == "CANCELLED"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000)
