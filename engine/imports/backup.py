"""The stage between plan and apply in which the entities to be written are backed up.

No import runs without passing it, and one whose backup fails does not start.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from engine.backups.model import Trigger
from engine.backups.record import take_before

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


def back_up(run: JobRun, entities: list[str]) -> uuid.UUID:
    """The id of the backup taken before the import: of every entity that it writes, by itself or by foreign keys.

    Raises:
        NotFound, FailedPrecondition, Aborted, DataLoss, Unavailable: what `engine.backups.take` raises.
    """
    row, _ = take_before(run, Trigger.PRE_IMPORT, entities)
    return row.id
