"""What came of a cancel: stopped, asked to stop, or too late."""

from __future__ import annotations

import typer

from dataops_client.cli import exits
from dataops_client.cli import output as out


def tell_cancelled(before: str, after: str, job_id: str) -> None:
    """Say what came of it; `before` and `after` are the words of its state.

    Raises:
        typer.Exit: REFUSED if nothing was cancelled.
    """
    ended = before in _ENDED
    if ended or (after in _ENDED and after != "CANCELLED"):
        out.complain(f"already {before if ended else after}, nothing was cancelled")
        raise typer.Exit(exits.REFUSED)
    if after != "CANCELLED":
        follow = f"; dataops jobs watch {job_id} follows it to its end" if job_id else ""
        out.remark(f"the cancel is requested, it is {after} until it has stopped{follow}")


_ENDED = frozenset({"COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED", "EXPIRED", "DELETED"})
