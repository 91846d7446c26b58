"""``make bench``: ours beside what people would use instead, in one run, with peak memory; writes build/bench.json.

Imports and exports of users stand beside psql's ``\\copy`` of the same rows, backups beside pg_dump, restores beside
pg_restore, transfers beside a bare echo. Every round
works on fresh copies of two databases: one that holds as many other users as the file has rows, one that holds none.
The reference and ours alternate, on one durable PostgreSQL, so that what slows one down slows the other too.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from dataops.v1 import backups_pb2, common_pb2, imports_pb2, jobs_pb2
from dataops_client.client import DataOps

from engine.backups.chain import CONTENT_EVERY
from examples.platform import generate
from examples.platform.users_csv import CSV_COLUMNS, write_users_csv
from examples.stack.servers import PostgresServer, ValkeyServer
from examples.stack.stack import Stack
from tests.benchmarks import transfers, watchers
from tests.benchmarks.memory import forget_peak, peak_megabytes
from tests.benchmarks.results import Results

_COLUMNS = ", ".join(CSV_COLUMNS)
_JSON = f"select row_to_json(u) from (select {_COLUMNS} from public.users) u"


class Bench:
    """Imports and exports: two base databases, a file, and a stack for each of our rounds."""

    def __init__(
        self, postgres: PostgresServer, valkey: ValkeyServer, folder: Path, rows: int, results: Results
    ) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.folder = folder
        self.rows = rows
        self.results = results

    def prepare(self) -> None:
        """The tables that are there before, and the file."""
        for name, users in (("filled", self.rows), ("empty", 0)):
            dsn = self.postgres.create_database(name)
            generate.create_schema(dsn)
            if users:
                generate.load(dsn, users=users, only={"public.users"})
            with self.postgres.connect(name) as connection:
                # what the catalog's fill does for ours, so that both can load the same file
                connection.execute("ALTER TABLE public.users ALTER password_hash SET DEFAULT '!'")
                connection.execute("VACUUM (FREEZE, ANALYZE) public.users")
        self.file, self.few = self.folder / "users.csv", self.folder / "few.csv"
        write_users_csv(self.file, good=self.rows, first=self.rows)
        write_users_csv(self.few, good=100, first=2 * self.rows)

    def round(self) -> None:
        """Everything once, the reference first."""
        for base in ("filled", "empty"):
            with self._copy_of(base) as dsn:
                self._reference(dsn, base)
            with self._copy_of(base) as dsn:
                self._ours(dsn, base)

    def _reference(self, dsn: str, base: str) -> None:
        with self._timed(f"import_{base}", ours=False):
            self._psql(dsn, f"\\copy public.users ({_COLUMNS}) from '{self.file}' csv header")
        if base == "filled":
            self._settle(dsn)
            out = self.folder / "reference"
            with self._timed("export_csv", ours=False):
                self._psql(dsn, f"\\copy (select {_COLUMNS} from public.users) to '{out}' csv header")
            with self._timed("export_json", ours=False):
                self._psql(dsn, f"\\copy ({_JSON}) to '{out}'")
            out.unlink()
            self._dump_and_restore(dsn)

    def _dump_and_restore(self, dsn: str) -> None:
        """What a backup and a restore of the same table cost by PostgreSQL's own tools, into a database without it."""
        dump = self.folder / "dump"
        with self._timed("backup", ours=False):
            self._tool("pg_dump", "-Fc", "-t", "public.users", "-f", str(dump), dsn)
        self.results.note("backup_size", dump.stat().st_size / 1e6, ours=False)
        with self._copy_of("empty", "restored") as empty:
            self._psql(empty, "DROP TABLE public.users CASCADE")
            with self._timed("restore", ours=False):
                self._tool("pg_restore", "--single-transaction", "-d", empty, str(dump))
        dump.unlink()

    def _ours(self, dsn: str, base: str) -> None:
        """The same through upload, plan, apply; and export, download."""
        env = {"DATAOPS_CATALOG_FILE": str(generate.CATALOG)}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        stack = Stack(folder, postgres=self.postgres, valkey=self.valkey, platform_dsn=dsn, env=env)
        with stack, stack.client() as client:
            client.plan_import(self.few, "users")  # a service that runs, as the server beside it does
            for part in stack.programs:
                forget_peak(part.pid)
            self._import(client, base)
            if base == "filled":
                self._settle(dsn)
                for name, file_format in (("csv", common_pb2.FILE_FORMAT_CSV), ("json", common_pb2.FILE_FORMAT_JSON)):
                    out = self.folder / f"ours.{name}"
                    with self._timed(f"export_{name}", ours=True):
                        client.export_to(out, ["users"], file_format=file_format)
                    out.unlink()
                self._back_up_and_restore(client)
                self._increments(client, dsn)
            for part in stack.programs:
                self.results.note_peak(part.name, peak_megabytes(part.pid))

    def _import(self, client: DataOps, base: str) -> None:
        """Upload to committed; the backup that every import takes first is told beside it."""
        stages = _Stages()
        self._checkpoint()
        began = monotonic()
        done = client.plan_import(
            self.file, "users", options=imports_pb2.ImportOptions(auto_apply=True), on_event=stages
        )
        seconds = monotonic() - began
        if done.status != imports_pb2.IMPORT_STATUS_COMPLETED or done.report.inserted != self.rows:
            raise RuntimeError(f"import came to {done.status} with {done.report.inserted} of {self.rows} rows")
        backup = stages.seconds("BACKUP")
        self.results.note(f"import_{base}", seconds - backup, ours=True)
        if base == "filled":
            self.results.note("pre_import_backup", backup, ours=True)
        stages.print()

    def _back_up_and_restore(self, client: DataOps) -> None:
        """Request to COMPLETED; a confirmed restore without the backup that it takes first."""
        with self._timed("backup", ours=True):
            backup = client.create_backup(["users"])
        self.results.note("backup_size", backup.file_size_bytes / 1e6, ours=True)
        planned = client.create_restore(backup.backup_id)
        stages = _Stages()
        self._checkpoint()
        began = monotonic()
        client.confirm_restore(planned, planned.plan.confirmation_phrase, on_event=stages)
        seconds = monotonic() - began
        taken = stages.seconds("BACKUP")
        self.results.note("restore", seconds - taken, ours=True)
        self.results.note("pre_restore_backup", taken, ours=True)
        stages.print()

    def _increments(self, client: DataOps, dsn: str) -> None:
        """Increments of one full backup: with nothing changed, and with 1 % of the rows changed at random."""
        self._checkpoint()
        began = monotonic()
        full = client.create_backup(["users"])
        seconds = monotonic() - began
        for link in range(1, CONTENT_EVERY + 1):
            name = {1: "increment_candidates", CONTENT_EVERY: "increment_content"}.get(link)
            if name is None:
                client.create_backup(["users"], incremental=True)
                continue
            self.results.note(name, seconds, ours=False)
            with self._timed(name, ours=True):
                client.create_backup(["users"], incremental=True)
        self._psql(dsn, "UPDATE public.users SET phone = md5(id::text) WHERE hashtext(id::text) % 100 = 0")
        changed = client.create_backup(["users"], incremental=True)
        if changed.backup_type != backups_pb2.BACKUP_TYPE_INCREMENTAL:
            raise RuntimeError("a full backup was made where an increment was measured")
        self.results.note("increment_size", full.file_size_bytes / 1e6, ours=False)
        self.results.note("increment_size", changed.file_size_bytes / 1e6, ours=True)

    def _settle(self, dsn: str) -> None:
        """The table as autovacuum leaves it: who reads rows for the first time writes to their pages."""
        self._psql(dsn, "VACUUM (ANALYZE) public.users")

    def _checkpoint(self) -> None:
        with self.postgres.connect() as connection:
            connection.execute("CHECKPOINT")

    @contextmanager
    def _timed(self, name: str, *, ours: bool) -> Iterator[None]:
        self._checkpoint()
        with self.results.timed(name, ours=ours):
            yield

    def _psql(self, dsn: str, command: str) -> None:
        subprocess.run([self.postgres.bin / "psql", "-qX", "-v", "ON_ERROR_STOP=1", dsn, "-c", command], check=True)

    def _tool(self, name: str, *arguments: str) -> None:
        subprocess.run([self.postgres.bin / name, *arguments], check=True)

    @contextmanager
    def _copy_of(self, base: str, name: str = "copy") -> Iterator[str]:
        dsn = self.postgres.create_database(name, base)
        try:
            yield dsn
        finally:
            self.postgres.drop_database(name)


class _Stages:
    """Where the time went, by the job's own events."""

    def __init__(self) -> None:
        self._began: list[tuple[str, float]] = []

    def __call__(self, event: jobs_pb2.JobEvent) -> None:
        if event.WhichOneof("event") == "stage_change":
            self._began.append((event.stage_change.new_stage, event.time.ToNanoseconds() / 1e9))
        elif event.WhichOneof("event") == "state_change":
            self._began.append(("", event.time.ToNanoseconds() / 1e9))

    def seconds(self, stage: str) -> float:
        """What the stage took, each time it was entered."""
        return sum(took for name, took in self._each() if name == stage)

    def print(self) -> None:
        """One line per stage."""
        for stage, took in self._each():
            if stage:
                print(f"    {stage:<14} {took:7.2f} s")

    def _each(self) -> Iterator[tuple[str, float]]:
        for (stage, began), (_, ended) in zip(self._began, self._began[1:], strict=False):
            yield stage, ended - began


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows before, and rows of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the transferred file; 0 leaves them out")
    parser.add_argument("--watchers", action=argparse.BooleanOptionalAction, default=True, help="1,000 of one job")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    args = parser.parse_args()
    results = Results()
    with PostgresServer(durable=True) as postgres, ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        bench = Bench(postgres, valkey, Path(folder), args.rows, results)
        bench.prepare()
        for _ in range(args.rounds):
            bench.round()
        if args.mebibytes:
            transfers.measure(results, mebibytes=args.mebibytes, rounds=args.rounds)
        if args.watchers:
            with Stack(Path(folder) / "watched", postgres=postgres, valkey=valkey, workers=0) as stack:
                results.watchers_ms = 1000 * watchers.measure(stack)
    size = f"{bench.rows:,} rows"
    print(f"\nimports of {size} into a table that held as many others, and into one that held none; exports of {size}")
    results.print()
    results.write(args.output)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
