"""Restores for a program: plan, look, confirm, approve. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from dataops.v1 import restores_pb2, restores_pb2_grpc

from dataops_client.errors import typed_errors
from dataops_client.jobs import JobCalls, OnEvent, no_event
from dataops_client.paging import pages


class RestoreCalls(JobCalls):
    """The calls that are about restores."""

    restores: restores_pb2_grpc.RestoreServiceStub

    def create_restore(
        self,
        backup_id: str,
        entities: Sequence[str] = (),
        *,
        renames: Sequence[restores_pb2.ColumnRename] = (),
        reason: str = "",
        wait: bool = True,
        on_event: OnEvent = no_event,
    ) -> restores_pb2.Restore:
        """Plan the way back to a backup, of all that it holds if no entity is named, and return it with its plan.

        Nothing is touched. Without `wait` the restore as it was recorded; `follow_restore` waits for its plan.

        Raises:
            JobFailed: it cannot be restored; the reason says why.
        """
        request = restores_pb2.CreateRestoreRequest(
            request_id=str(uuid.uuid4()), backup_id=backup_id, entity_types=entities, renames=renames, reason=reason
        )
        with typed_errors():
            recorded = self.restores.CreateRestore(request).restore
        return self.follow_restore(recorded, on_event=on_event) if wait else recorded

    def confirm_restore(
        self,
        planned: restores_pb2.Restore,
        phrase: str,
        *,
        max_losses: int | None = None,
        reason: str = "",
        wait: bool = True,
        on_event: OnEvent = no_event,
    ) -> restores_pb2.Restore:
        """Confirm the plan that `planned` shows, and no other, with its typed phrase; return the restore at its end.

        Where another person must approve it, the restore waits for that instead: AWAITING_APPROVAL.

        Raises:
            JobFailed: everything is as before; the reason says why.
        """
        request = restores_pb2.ConfirmRestoreRequest(
            request_id=str(uuid.uuid4()),
            restore_id=planned.restore_id,
            plan_digest=planned.plan.plan_digest,
            confirmation_phrase=phrase,
            max_losses=max_losses,
            reason=reason,
        )
        with typed_errors():
            confirmed = self.restores.ConfirmRestore(request).restore
        return self.follow_restore(confirmed, on_event=on_event) if wait else confirmed

    def approve_restore(
        self,
        planned: restores_pb2.Restore,
        *,
        reason: str = "",
        wait: bool = True,
        on_event: OnEvent = no_event,
    ) -> restores_pb2.Restore:
        """Approve what another person has confirmed, and return the restore at its end.

        Raises:
            JobFailed: everything is as before; the reason says why.
        """
        request = restores_pb2.ApproveRestoreRequest(
            restore_id=planned.restore_id, plan_digest=planned.plan.plan_digest, reason=reason
        )
        with typed_errors():
            approved = self.restores.ApproveRestore(request).restore
        return self.follow_restore(approved, on_event=on_event) if wait else approved

    def follow_restore(self, restore: restores_pb2.Restore, *, on_event: OnEvent = no_event) -> restores_pb2.Restore:
        """Wait for the job that works for a restore now: its own, else that of its plan; the restore then.

        Raises:
            JobFailed: it ended badly; everything is as before.
        """
        job_id = restore.restore_job_id or restore.plan_job_id
        if job_id:
            self.wait(job_id, on_event=on_event)
        return self.get_restore(restore.restore_id)

    def get_restore(self, restore_id: str) -> restores_pb2.Restore:
        """One restore as it stands."""
        with typed_errors():
            return self.restores.GetRestore(restores_pb2.GetRestoreRequest(restore_id=restore_id)).restore

    def list_restores(
        self,
        *,
        statuses: Sequence[restores_pb2.RestoreStatus.ValueType] = (),
        backup_id: str = "",
        limit: int = 50,
    ) -> list[restores_pb2.Restore]:
        """The newest restores, at most `limit` and at most 1,000."""
        request = restores_pb2.ListRestoresRequest(statuses=statuses, backup_id=backup_id, page_size=limit)
        with typed_errors():
            return list(self.restores.ListRestores(request).restores)

    def restore_losses(
        self, restore_id: str, *, entity: str = "", page_size: int = 1000
    ) -> Iterator[restores_pb2.RestoreLoss]:
        """The rows that a restore deletes or changes, page by page as they are read."""
        request = restores_pb2.ListRestoreLossesRequest(restore_id=restore_id, entity=entity, page_size=page_size)
        for page in pages(self.restores.ListRestoreLosses, request):
            yield from page.losses

    def cancel_restore(self, restore_id: str, reason: str = "") -> restores_pb2.Restore:
        """Ask a restore to stop; one that runs is rolled back whole."""
        request = restores_pb2.CancelRestoreRequest(restore_id=restore_id, reason=reason)
        with typed_errors():
            return self.restores.CancelRestore(request).restore
