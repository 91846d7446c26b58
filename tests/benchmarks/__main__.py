"""``make bench``: import and export of users beside psql's ``\\copy`` of the same rows, with peak memory.

Every round works on fresh copies of one database that already holds as many other users as the file has rows. The
reference and ours alternate, on one durable PostgreSQL, so that what slows one down slows the other too.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from dataops.v1 import imports_pb2, jobs_pb2
from dataops_client.client import DataOps

from examples.platform import generate
from examples.platform.users_csv import CSV_COLUMNS, write_users_csv
from examples.stack.servers import PostgresServer, ValkeyServer
from examples.stack.stack import Stack
from tests.benchmarks.memory import forget_peak, peak_megabytes

_COLUMNS = ", ".join(CSV_COLUMNS)


class Bench:
    """One run: a base database, a file, and a stack for each of our rounds."""

    def __init__(self, postgres: PostgresServer, valkey: ValkeyServer, folder: Path, rows: int) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.folder = folder
        self.rows = rows
        self.times: dict[str, list[float]] = {}
        self.peaks: dict[str, float] = {}

    def prepare(self) -> None:
        """The table that is there before, and the file."""
        dsn = self.postgres.create_database("base")
        generate.create_schema(dsn)
        generate.load(dsn, users=self.rows, only={"public.users"})
        with self.postgres.connect("base") as connection:
            # what the catalog's fill does for ours, so that both can load the same file
            connection.execute("ALTER TABLE public.users ALTER password_hash SET DEFAULT '!'")
            connection.execute("VACUUM (FREEZE, ANALYZE) public.users")
        self.file = self.folder / "users.csv"
        write_users_csv(self.file, good=self.rows, first=self.rows)

    def reference(self) -> None:
        """psql: in and out."""
        with self._copy_of_base("reference") as dsn:
            self._timed(
                "copy in", lambda: self._psql(dsn, f"\\copy public.users ({_COLUMNS}) from '{self.file}' csv header")
            )
            out = self.folder / "reference.csv"
            query = f"\\copy (select {_COLUMNS} from public.users) to '{out}' csv header"
            self._timed("copy out", partial(self._psql, dsn, query))
            out.unlink()

    def ours(self) -> None:
        """The same through upload, plan, apply; and export, download."""
        with self._copy_of_base("ours") as dsn:
            env = {"DATAOPS_CATALOG_FILE": str(generate.CATALOG)}
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            stack = Stack(folder, postgres=self.postgres, valkey=self.valkey, platform_dsn=dsn, env=env)
            with stack, stack.client() as client:
                for part in stack.programs:
                    forget_peak(part.pid)
                self._timed("import", lambda: self._import(client))
                self._note_peaks(stack, "import")
                for part in stack.programs:
                    forget_peak(part.pid)
                out = self.folder / "ours.csv"
                self._timed("export", lambda: client.export_to(out, ["users"]))
                self._note_peaks(stack, "export")
                out.unlink()

    def report(self) -> None:
        """The figures, medians over the rounds."""
        took = {name: median(values) for name, values in self.times.items()}
        size = self.file.stat().st_size / 1e6
        print(f"\n{self.rows:,} rows, {size:.0f} MB, into a table that held {self.rows:,} others")
        for name, seconds in took.items():
            runs = ", ".join(f"{value:.2f}" for value in self.times[name])
            print(f"  {name:<22} {seconds:8.2f} s  {self.rows / seconds:>10,.0f} rows/s   ({runs})")
        print(f"  import / \\copy in      {took['import'] / took['copy in']:8.2f}")
        print(f"  export / \\copy out     {took['export'] / took['copy out']:8.2f}")
        for name, peak in self.peaks.items():
            print(f"  peak memory {name:<18} {peak:6.0f} MB")

    def _import(self, client: DataOps) -> None:
        stages = _Stages()
        done = client.plan_import(
            self.file, "users", options=imports_pb2.ImportOptions(auto_apply=True), on_event=stages
        )
        if done.status != imports_pb2.IMPORT_STATUS_COMPLETED or done.report.inserted != self.rows:
            raise RuntimeError(f"import came to {done.status} with {done.report.inserted} of {self.rows} rows")
        stages.print()

    def _note_peaks(self, stack: Stack, what: str) -> None:
        for part in stack.programs:
            name = f"{part.name}, {what}"
            self.peaks[name] = max(self.peaks.get(name, 0), peak_megabytes(part.pid))

    def _timed(self, name: str, action: Callable[[], object]) -> None:
        with self.postgres.connect() as connection:
            connection.execute("CHECKPOINT")
        began = time.monotonic()
        action()
        seconds = time.monotonic() - began
        self.times.setdefault(name, []).append(seconds)
        print(f"{name:<10} {seconds:7.2f} s", flush=True)

    def _psql(self, dsn: str, command: str) -> None:
        subprocess.run([self.postgres.bin / "psql", "-qX", "-v", "ON_ERROR_STOP=1", dsn, "-c", command], check=True)

    @contextmanager
    def _copy_of_base(self, name: str) -> Iterator[str]:
        dsn = self.postgres.create_database(name, "base")
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

    def print(self) -> None:
        """One line per stage."""
        for (stage, began), (_, ended) in zip(self._began, self._began[1:], strict=False):
            if stage:
                print(f"    {stage:<14} {ended - began:7.2f} s")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows before, and rows of the file")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    with PostgresServer(durable=True) as postgres, ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        bench = Bench(postgres, valkey, Path(folder), args.rows)
        bench.prepare()
        for _ in range(args.rounds):
            bench.reference()
            bench.ours()
        bench.report()


if __name__ == "__main__":
    main()
