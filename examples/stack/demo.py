"""``make demo``: the service's main job on real input, told step by step; exit code 0 if all of it held.

A file of 200,000 users, some of them bad, goes in over TLS: uploaded, planned, shown, applied in one transaction.
Then the table comes out again and is compared with the file row by row; and at last the platform is backed up, damaged
on purpose and restored (`way_back`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataops.v1 import imports_pb2, uploads_pb2
from dataops_client.client import DataOps
from dataops_client.errors import DataOpsError

from examples.platform.rows import user
from examples.platform.users_csv import UsersFile, csv_line, good_lines, write_users_csv
from examples.stack import launcher
from examples.stack.certificates import write_secret
from examples.stack.launcher import BUILD, Stopped
from examples.stack.narrator import Narrator, megabytes
from examples.stack.processes import ServerStartError
from examples.stack.stack import Stack
from examples.stack.way_back import NotEqual, WayBack

SEED = 1
_SAMPLES = 4


class DemoFailed(Exception):
    """Something did not come out as it went in; the message says what."""


@dataclass(frozen=True)
class Sizes:
    """How big a demo: users there before, rows of the file, bad ones and already known ones among them."""

    before: int
    rows: int
    bad: int
    known: int


class Demo:
    """The story, step by step; each method is one chapter."""

    def __init__(
        self, folder: Path, client: DataOps, sizes: Sizes, tell: Narrator, way_back: WayBack | None = None
    ) -> None:
        self.folder = folder
        self.way_back = way_back
        self.client = client
        self.sizes = sizes
        self.tell = tell
        self.first = sizes.before - sizes.known

    def run(self) -> None:
        """All of it."""
        began = time.monotonic()
        written = self.make_file()
        upload = self.upload(written)
        planned = self.plan(upload)
        self.show_plan(planned)
        applied = self.apply(planned)
        out = self.export()
        self.compare(written, out)
        if self.way_back is not None:
            self.way_back.run()
        self.summary(applied, time.monotonic() - began)

    def make_file(self) -> UsersFile:
        """A file as someone might send it."""
        s = self.sizes
        self.tell.step(
            f"A CSV file of {s.rows:,} users",
            f"{s.bad:,} of its rows are bad on purpose, and the first {s.known:,} users are on the platform already.",
        )
        path = self.folder / "users.csv"
        written = write_users_csv(path, good=s.rows - s.bad, bad=s.bad, seed=SEED, first=self.first)
        self.tell.say(f"{path.name}: {megabytes(path.stat().st_size)}, {s.rows:,} rows")
        return written

    def upload(self, written: UsersFile) -> uploads_pb2.Upload:
        """Bytes in."""
        self.tell.step(
            "Upload over TLS 1.3",
            "In checked pieces; a broken connection would go on where it stopped. Stored sealed with AES-256-GCM.",
        )
        began = time.monotonic()
        upload = self.client.upload(written.path, on_bytes=self.tell.bytes_moved)
        seconds = time.monotonic() - began
        size = upload.committed_size
        self.tell.say(f"{megabytes(size)} in {seconds:.1f} s ({size / 1e6 / seconds:.0f} MB/s)")
        self.tell.say(f"sha256 {upload.sha256.hex()} on both sides")
        return upload

    def plan(self, upload: uploads_pb2.Upload) -> imports_pb2.Import:
        """Validate and plan: nothing changes yet."""
        self.tell.step(
            "Plan an additive import",
            "Every row is checked against the table's own rules. The plan is made in a read-only transaction.",
        )
        created = self.client.create_import(
            imports_pb2.CreateImportRequest(
                upload_id=upload.upload_id,
                import_type=imports_pb2.IMPORT_TYPE_ADDITIVE,
                entity_type="users",
                reason="make demo",
            )
        )
        self.client.wait(created.plan_job_id, on_event=self.tell.on_event)
        self.tell.stage_over()
        return self.client.get_import(created.import_id)

    def show_plan(self, planned: imports_pb2.Import) -> None:
        """What a person looks at before saying yes."""
        self.tell.step("Look at the plan", "Nothing has changed so far. This is exactly what applying it will do.")
        counts = planned.plan.counts
        self.tell.say(f"{counts.inserts:>9,} rows will be added")
        self.tell.say(f"{counts.skips:>9,} rows are left out, for their key is there already")
        self.tell.say(f"{counts.failed:>9,} rows are bad; some of them:")
        for error in itertools.islice(self._failed(planned.import_id), _SAMPLES):
            self.tell.say(f"            row {error.row:<7} {error.field:<12} {error.code}: {error.message}")
        for notice in planned.plan.notices:
            self.tell.say(f"note: {notice.message} ({notice.code})")
        self._expect("rows to add", counts.inserts, self.sizes.rows - self.sizes.bad - self._known_good())
        self._expect("bad rows", counts.failed, self.sizes.bad)

    def apply(self, planned: imports_pb2.Import) -> imports_pb2.Import:
        """Exactly that plan, in one transaction."""
        self.tell.step(
            "Apply it", "The plan's digest is sent along: what was looked at is applied, or nothing. One transaction."
        )
        applied = self.client.apply_import(planned, reason="make demo", on_event=self.tell.on_event)
        self.tell.stage_over()
        report = applied.report
        self.tell.say(
            f"{report.total_records:,} rows = {report.inserted:,} added + {report.updated:,} updated + "
            f"{report.unchanged:,} unchanged + {report.skipped:,} left out + {report.failed:,} bad"
        )
        if report.HasField("rows_before"):  # it was locked against other writers, so the sums must agree
            self.tell.say(f"the table had {report.rows_before:,} rows and has {report.rows_after:,}")
            self._expect("rows after", report.rows_after, report.rows_before + planned.plan.counts.inserts)
        self._expect("rows added", report.inserted, planned.plan.counts.inserts)
        return applied

    def export(self) -> Path:
        """Bytes out."""
        self.tell.step("Export the table", "All rows of one moment, streamed by COPY. No password hash ever leaves.")
        path = self.folder / "exported.csv"
        began = time.monotonic()
        export = self.client.export_to(path, ["users"], reason="make demo", on_bytes=self.tell.bytes_moved)
        seconds = time.monotonic() - began
        self.tell.say(
            f"{export.record_count:,} rows, {megabytes(export.file_size_bytes)} in {seconds:.1f} s "
            f"({export.record_count / seconds:,.0f} rows/s), sha256 {export.sha256.hex()}"
        )
        return path

    def compare(self, written: UsersFile, out: Path) -> None:
        """Every row that was there, plus every good row of the file, and nothing else."""
        self.tell.step("Compare row by row", "What came out must be what was there, plus the file's good rows.")
        with out.open(encoding="utf-8", newline="") as file:
            next(file)
            exported = {line[:36]: line.rstrip("\r\n") for line in file}
        same = 0
        for line in self._expected(written):
            found = exported.pop(line[:36], None)
            if found != line.rstrip("\n"):
                raise DemoFailed(f"expected {line!r}, found {found!r}")
            same += 1
        self._expect("rows nobody asked for", len(exported), 0)
        self.tell.say(f"{same:,} rows are equal, character for character; none is missing, none too many")

    def summary(self, applied: imports_pb2.Import, seconds: float) -> None:
        """What a newcomer takes home."""
        report = applied.report
        print(
            f"\nDone in {seconds:.0f} s. A file of {report.total_records:,} rows was checked row by row, shown as a\n"
            f"plan, applied in one transaction, and read back equal: {report.inserted:,} users added,\n"
            f"{report.failed:,} bad rows and {report.skipped:,} known ones left out, each with a reason.\n"
            "The platform was backed up, damaged, and restored in one transaction, equal to what it was.\n"
            "`make up` keeps such a stack running for you to try."
        )

    def _expected(self, written: UsersFile) -> Iterator[str]:
        for index in range(self.sizes.before):
            yield csv_line(user(SEED, index))
        known_rows = self.sizes.known
        bad = {row.row for row in written.bad_rows}
        skip = known_rows - sum(1 for number in bad if number <= known_rows)
        for position, line in enumerate(good_lines(written, seed=SEED, first=self.first)):
            if position >= skip:
                yield line

    def _known_good(self) -> int:
        """Rows of the file whose user is on the platform and which are not bad themselves."""
        s = self.sizes
        bad_known = sum(1 for n in range(s.bad) if (2 * n + 1) * s.rows // (2 * s.bad) + 1 <= s.known)
        return s.known - bad_known

    def _failed(self, import_id: str) -> Iterator[imports_pb2.ImportRowError]:
        errors = self.client.import_errors(import_id, page_size=1000)
        return (error for error in errors if error.severity == imports_pb2.ROW_ERROR_SEVERITY_FAILED)

    def _expect(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise DemoFailed(f"{what}: expected {expected:,}, found {found:,}")


def main() -> int:
    """The command line."""
    args = _arguments()
    sizes = Sizes(before=args.users, rows=args.rows, bad=args.rows // 200, known=min(500, args.users))
    launcher.stop_on_signals()
    try:
        if args.die_with_parent:
            launcher.die_with_parent()
        with launcher.private_folder(args.build, "demo") as folder:
            return _run(folder, sizes)
    except Stopped:
        print("\nstopped")
        return 130
    except (DemoFailed, NotEqual, DataOpsError, ServerStartError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1


def _run(folder: Path, sizes: Sizes) -> int:
    tell = Narrator()
    tell.step(
        "Start everything",
        "PostgreSQL, Valkey, a server with TLS 1.3 and two workers, on loopback, from this checkout alone.",
    )
    began = time.monotonic()
    with Stack(folder, users=sizes.before, seed=SEED, workers=2, durable=True) as stack:
        tell.say(f"ready in {time.monotonic() - began:.1f} s at {stack.address}")
        tell.say(f"a sample platform with {sizes.before:,} users and what belongs to them")
        sheet = folder / "recovery-sheet.txt"
        write_secret(sheet, stack.recovery_sheet.encode())
        tell.say(f"a key that seals all of it; what an operator would print and keep: {os.path.relpath(sheet)}")
        with stack.client("admin") as client, stack.client() as super_admin:
            Demo(folder, client, sizes, tell, WayBack(stack.platform_dsn, super_admin, tell)).run()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the file (default: 200000)")
    parser.add_argument("--users", type=int, default=20_000, help="users before (default: 20000)")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder to keep files in (default: build)")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the parent process ends")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
