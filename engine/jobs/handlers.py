"""What a kind of job must bring: the contract between the job engine and imports, exports and all later phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.orm import Session

from engine.db.models import JobRow
from engine.errors import DataOpsError

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

Ending = Callable[[Session], None]
"""Runs in the transaction that ends the job COMPLETED: moves the resource on, adopts artifacts, makes follow-up jobs.

It may run more than once (its commit can fail and be repeated), each time in a fresh session; only one run commits.
"""


class JobHandler(Protocol):
    """One kind of job. A handler has no state of its own: any worker may run any attempt."""

    def started(self, session: Session, job: JobRow) -> None:
        """The job is claimed for the first time, or for the first time after RetryJob; same transaction as the claim.

        Not called at later attempts, so the resource may move strictly (PENDING to VALIDATING). A DataOpsError fails
        the job.
        """

    def run(self, run: JobRun) -> Ending:
        """Do the work, outside any control transaction.

        Called once per attempt; an attempt before may have ended anywhere. A handler with an effect in the platform
        database begins with `run.take_over()`: a mark means that the effect is committed and only the Ending is
        missing. A DataOpsError with `retryable` false fails the job; 40P01, 40001, 55P03, a lost connection and
        retryable errors run it again. Interrupts (`engine.jobs.interrupts`) must pass through.
        """

    def failed(self, session: Session, job: JobRow, error: DataOpsError) -> None:
        """The job ends FAILED; same transaction. Not called when another attempt follows."""

    def cancelled(self, session: Session, job: JobRow) -> None:
        """The job ends CANCELLED, before or after it began; same transaction."""

    def retried(self, session: Session, job: JobRow) -> None:
        """RetryJob puts a FAILED job back to PENDING; same transaction. Puts the resource back to before `started`.

        Raises FailedPrecondition where the resource has moved on.
        """


Handlers = Mapping[str, JobHandler]
