"""Every kind of job and its handler, by hand: what is not listed here is left to a worker that knows it."""

from __future__ import annotations

from functools import cache

from engine.jobs.handlers import Handlers


@cache
def handlers() -> Handlers:
    """The handlers of this release. Imported late: handlers import the engine that imports this."""
    from engine.backups.run import BackupHandler, DiffHandler, VerifyHandler
    from engine.exports.run import ExportHandler
    from engine.imports.changesjob import ChangesHandler
    from engine.imports.run import ApplyHandler, PlanHandler
    from engine.jobs.model import JobKind
    from engine.restores.run import RestoreHandler, RestorePlanHandler

    return {
        JobKind.IMPORT_PLAN: PlanHandler(),
        JobKind.IMPORT_APPLY: ApplyHandler(),
        JobKind.IMPORT_CHANGES: ChangesHandler(),
        JobKind.EXPORT: ExportHandler(),
        JobKind.BACKUP: BackupHandler(),
        JobKind.BACKUP_VERIFY: VerifyHandler(),
        JobKind.BACKUP_DIFF: DiffHandler(),
        JobKind.RESTORE_PLAN: RestorePlanHandler(),
        JobKind.RESTORE: RestoreHandler(),
    }
