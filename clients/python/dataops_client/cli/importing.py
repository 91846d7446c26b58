"""`dataops import`: upload a file, show what it would do, ask, and apply exactly that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dataops_client.cli import exits
from dataops_client.cli import import_options as options
from dataops_client.cli import output as out
from dataops_client.cli.asking import agreed, ask, can_ask
from dataops_client.cli.course import Course, on_course
from dataops_client.cli.options import JsonOption, Output, OutputOption, QuietOption, ReasonOption, wants_json
from dataops_client.cli.plain import enum_word, plain, size_text
from dataops_client.cli.plan import show_decision, waits_for_another
from dataops_client.cli.progress import telling
from dataops_client.cli.rejects import write_rejects, write_rejects_of_failed
from dataops_client.cli.settings import Settings

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2, jobs_pb2, uploads_pb2

    from dataops_client.client import DataOps
    from dataops_client.resume import UploadMemory


@dataclass(frozen=True)
class Manner:
    """How a plan is met."""

    yes: bool = False
    """Apply it without asking."""
    confirm_deletes: int | None = None
    plan_only: bool = False
    strict: bool = False
    reason: str = ""
    as_json: bool = False
    quiet: bool = False


def import_file(
    context: typer.Context,
    file: options.FileArgument,
    entity: options.EntityOption = "",
    mode: options.ModeOption = "additive",
    key: options.KeyOption = "",
    mapping: options.MappingOption = None,
    column: options.MapOption = None,
    ignore: options.IgnoreOption = None,
    file_format: options.FormatOption = "",
    delimiter: options.DelimiterOption = "",
    quote: options.QuoteOption = "",
    null_text: options.NullOption = None,
    encoding: options.EncodingOption = "",
    absent_is_null: options.AbsentOption = False,
    undo_formula_guard: options.GuardOption = False,
    error_budget: options.BudgetOption = None,
    allow_cascade: options.CascadeOption = None,
    max_deletes: options.MaxDeletesOption = None,
    confirm_deletes: options.DeletesOption = None,
    on_drift: options.DriftOption = "abort",
    on_refused: options.RefusedOption = "",
    auto_apply: options.AutoApplyOption = False,
    yes: options.YesOption = False,
    plan_only: options.PlanOnlyOption = False,
    strict: options.StrictOption = False,
    rejects: options.RejectsOption = None,
    changes: options.ChangesOption = None,
    fresh: options.FreshOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Output.TEXT,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Upload a file, show what its import would do, and apply exactly that.

    An interrupted upload goes on when the same command is given again. Ctrl-C later stops nothing: the import goes
    on, and the command says how to follow and how to cancel it.
    """
    request = options.request_of(file, context.params)  # the options above by their names
    manner = Manner(yes or auto_apply, confirm_deletes, plan_only, strict, reason, wants_json(output, json), quiet)
    settings: Settings = context.obj
    with settings.connect() as client, on_course("nothing was started") as course:
        steps = _Steps(client, settings.memory(), manner, course)
        planned = steps.plan(file, request, fresh=fresh, rejects=rejects)
        if changes is not None:
            steps.write_changes(planned, changes)
        done = planned if plan_only else decide(client, planned, manner, course)
        show_end(client, done, manner, course)
        if rejects is not None:
            write_rejects(client, done, rejects)
        exit_as(done, manner)


class _Steps:
    """What comes before the decision."""

    def __init__(self, client: DataOps, memory: UploadMemory, manner: Manner, course: Course) -> None:
        self._client = client
        self._memory = memory
        self._manner = manner
        self._course = course

    def plan(
        self, file: Path, request: imports_pb2.CreateImportRequest, *, fresh: bool, rejects: Path | None
    ) -> imports_pb2.Import:
        """Upload and plan; with auto_apply on to the end."""
        from dataops_client.errors import JobFailed

        request.upload_id = self._upload(file, request.reason, fresh).upload_id
        recorded = self._client.create_import(request)
        self._course.words = goes_on(recorded.import_id, recorded.plan_job_id)
        if not request.options.auto_apply:
            self._course.words += (
                f"; its plan will wait and change nothing: dataops imports apply {recorded.import_id} applies it"
            )
        try:
            with telling(quiet=self._manner.quiet, job_of=self._client.get_job) as narration:
                return self._client.follow_import(recorded, on_event=narration.happened)
        except JobFailed:
            if rejects is not None:  # too many bad rows: just then they are wanted
                write_rejects_of_failed(self._client, recorded.import_id, rejects)
            raise

    def _upload(self, file: Path, reason: str, fresh: bool) -> uploads_pb2.Upload:
        self._course.words = "nothing is changed; the same command again goes on with the upload"
        with telling(quiet=self._manner.quiet) as narration:
            return self._client.upload(
                file,
                reason=reason,
                memory=self._memory,
                fresh=fresh,
                on_bytes=narration.uploaded,
                on_checked=narration.checked,
                on_resumed=lambda begun: narration.say(
                    f"goes on with the upload of an earlier command at {size_text(begun.committed_size)}"
                ),
            )

    def write_changes(self, planned: imports_pb2.Import, path: Path) -> None:
        from dataops.v1 import imports_pb2

        with telling(quiet=self._manner.quiet) as narration:
            self._client.download_report(
                planned.import_id,
                imports_pb2.REPORT_PART_CHANGES,
                path,
                on_bytes=narration.downloaded,
                on_waiting=narration.waiting,
            )


def goes_on(import_id: str, job_id: str) -> str:
    """What to say of an import whose job runs."""
    return f"the import goes on: dataops jobs watch {job_id} follows it, dataops imports cancel {import_id} stops it"


def decide(client: DataOps, planned: imports_pb2.Import, manner: Manner, course: Course) -> imports_pb2.Import:
    """Apply the plan if that was said or a person says so now; else give the import back as it stands."""
    from dataops.v1 import imports_pb2

    if planned.status != imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL:
        return planned  # there is no plan to apply; the end says where it stands
    if waits_for_another(planned):
        if manner.yes:
            out.complain("not applied: another person must approve the plan first")
        return planned
    course.words = (
        f"nothing is changed: dataops imports apply {planned.import_id} applies it, "
        f"dataops imports cancel {planned.import_id} drops it"
    )
    if not _agreed(client, planned, manner, course):
        return planned
    course.words = (
        f"the import goes on: dataops imports show {planned.import_id} shows it, "
        f"dataops imports cancel {planned.import_id} stops it"
    )
    with telling(quiet=manner.quiet, job_of=client.get_job) as narration:

        def happened(event: jobs_pb2.JobEvent) -> None:
            course.words = goes_on(planned.import_id, event.job_id)
            narration.happened(event)

        return client.apply_import(
            planned, confirmed_deletes=_confirmed(planned, manner), reason=manner.reason, on_event=happened
        )


def _confirmed(planned: imports_pb2.Import, manner: Manner) -> int | None:
    """The number of deletes to repeat: `_agreed` has compared it with what a person typed or an option says."""
    if planned.plan.deletes_need_confirmation:
        return planned.plan.counts.deletes
    return manner.confirm_deletes


def _agreed(client: DataOps, planned: imports_pb2.Import, manner: Manner, course: Course) -> bool:
    """Whether the plan may be applied; says why if not, where nobody was asked."""
    deletes, needed = planned.plan.counts.deletes, planned.plan.deletes_need_confirmation
    said = manner.confirm_deletes
    if said is not None and said != deletes:
        out.complain(f"not applied: the plan deletes {deletes} rows, --confirm-deletes says {said}")
        return False
    if manner.yes:
        if needed and said is None:
            out.complain(f"not applied: the plan deletes {deletes} rows; it needs --confirm-deletes {deletes}")
            return False
        return True
    if manner.as_json or not can_ask():
        return False
    _show_once(client, planned, course)
    if needed and said is None:
        return _typed_the_number(deletes)
    return agreed("Apply this plan?")


def _typed_the_number(deletes: int) -> bool:
    answer = ask(f"The plan deletes {deletes:,} rows. To apply it, type the number of deletes:")
    if answer.replace(",", "") == str(deletes):
        return True
    out.complain(f"not applied: found {answer!r}, expected {deletes}")
    return False


def show_end(client: DataOps, done: imports_pb2.Import, manner: Manner, course: Course) -> None:
    """Print where the import stands."""
    from dataops.v1 import imports_pb2

    applied = done.status == imports_pb2.IMPORT_STATUS_COMPLETED
    waits = done.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
    if manner.as_json:
        out.as_json(plain(done))
    elif applied:
        out.show_report(done)
    elif waits:
        _show_once(client, done, course)
        if waits_for_another(done):
            print(f"\nnothing is changed; another person approves it: dataops imports approve {done.import_id}")
        else:
            print(f"\nnothing is changed; to apply it: dataops imports apply {done.import_id}")
    else:
        out.show_import(done)
        print(f"\nnothing was done: it is {enum_word(done, 'status')}; only AWAITING_APPROVAL can be applied")


def exit_as(done: imports_pb2.Import, manner: Manner) -> None:
    """End the command with the exit code that says what a script must know."""
    from dataops.v1 import imports_pb2

    applied = done.status == imports_pb2.IMPORT_STATUS_COMPLETED
    waits = done.status == imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL
    if not applied and not manner.plan_only:
        raise typer.Exit(exits.NOT_APPLIED if waits else exits.REFUSED)
    failed = done.report.failed if applied else done.plan.counts.failed
    if manner.strict and failed:
        raise typer.Exit(exits.ROWS_REFUSED)


def _show_once(client: DataOps, planned: imports_pb2.Import, course: Course) -> None:
    """Whoever was asked has seen the plan."""
    if not course.plan_shown:
        show_decision(client, planned)
    course.plan_shown = True
