"""`--rejects FILE`: the rows of an import that were not taken, and a word where there is no such file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataops_client.cli import output as out

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2

    from dataops_client.client import DataOps


def write_rejects(client: DataOps, done: imports_pb2.Import, path: Path) -> None:
    """Write the refused rows of a planned or applied import; a file that is there stays if there are none."""
    from dataops.v1 import common_pb2, imports_pb2

    made = done.report if done.HasField("report") else done.plan
    failed = done.report.failed if done.HasField("report") else done.plan.counts.failed
    if imports_pb2.REPORT_PART_REJECTS in made.parts:
        _download(client, done.import_id, path)
        out.remark(f"{failed:,} refused {'row' if failed == 1 else 'rows'} in {path}")
        return
    why = f"no rows to write into {path}"
    if done.format == common_pb2.FILE_FORMAT_BUNDLE and failed:
        why = f"a bundle has no reject file: dataops imports errors {done.import_id} lists its {failed:,} refused rows"
    out.complain(why + _left(path))


def write_rejects_of_failed(client: DataOps, import_id: str, path: Path) -> None:
    """The same for an import whose plan failed: only the server knows whether there is such a file."""
    from dataops_client.errors import DataOpsError

    try:
        _download(client, import_id, path)
    except DataOpsError as error:
        missing = error.reason == "REPORT_PART_MISSING"
        out.complain((f"no rows to write into {path}" if missing else f"{path} not written: {error}") + _left(path))
    else:
        out.remark(f"the refused rows are in {path}")


def _left(path: Path) -> str:
    """A user's file is never deleted, and must not be taken for that of this import."""
    return "; the file of that name is left as it was" if path.exists() else ""


def _download(client: DataOps, import_id: str, path: Path) -> None:
    from dataops.v1 import imports_pb2

    client.download_report(import_id, imports_pb2.REPORT_PART_REJECTS, path)
