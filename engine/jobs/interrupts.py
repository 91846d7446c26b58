"""What ends a job from outside. These are no errors, and no `except Exception` may swallow them."""

from __future__ import annotations


class JobInterrupt(BaseException):
    """Raised on the job's thread at the next look; `rank` decides when two come together."""

    rank = 0


class WorkerStopping(JobInterrupt):
    """This process was told to stop: the job goes back to the queue, the attempt is not counted."""

    rank = 1


class JobCancelled(JobInterrupt):
    """Somebody asked the job to stop. Not raised any more once the effect is committed."""

    rank = 2


class LeaseLost(JobInterrupt):
    """Another worker has, or may have, taken the job over: nothing may be written for it any more."""

    rank = 3
