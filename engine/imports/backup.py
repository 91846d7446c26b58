"""The stage between plan and apply in which the entities to be written are backed up.

It stands in the chain so that no import runs without passing it; this release has no backups, and the plan and the
report say so.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

NOT_BACKED_UP = {
    "code": "NOT_BACKED_UP",
    "message": "no backup of the entity is taken before the import: this release has none",
}


def back_up(run: JobRun, entities: list[str]) -> uuid.UUID | None:
    """The id of the backup taken before the import; None where none is."""
    run.notice(NOT_BACKED_UP["code"], NOT_BACKED_UP["message"], entities=", ".join(entities))
    return None
