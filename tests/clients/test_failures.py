"""What a failed job says at a command line: all that is wrong, in the command's words, its ids and the next step."""

from __future__ import annotations

import pytest
from dataops.v1 import common_pb2, jobs_pb2
from dataops_client.cli.failures import lines_of
from dataops_client.errors import FailedPrecondition, InvalidRequest, JobFailed, NotFound, Violation

from tests.clients.fake_world import EXPORT_ID, IMPORT_ID, JOB_ID


def _failed(reason: str, message: str, *, retryable: bool = False, resource: str = f"imports/{IMPORT_ID}") -> JobFailed:
    error = common_pb2.OperationError(reason=reason, message=message, retryable=retryable)
    return JobFailed.of(jobs_pb2.Job(job_id=JOB_ID, state=jobs_pb2.JOB_STATE_FAILED, resource=resource, error=error))


def _with(error: JobFailed, *violations: tuple[str, str]) -> JobFailed:
    for subject, description in violations:
        error.job.error.violations.add(subject=subject, description=description)
    return JobFailed.of(error.job)


def test_every_violation_is_a_line_if_the_message_has_not_all():
    wrong = [(name, f"COLUMN_UNKNOWN: found the column '{name}', which is no field of users") for name in "abcd"]
    shown = "; ".join(description.removeprefix("COLUMN_UNKNOWN: ") for _, description in wrong[:3])
    error = _failed("COLUMN_UNKNOWN", f"columns: {shown}; and 1 more")

    first, *more = lines_of(_with(error, *wrong))
    assert first.endswith("and 1 more")
    assert more[:4] == [f"  {subject}: {description}" for subject, description in wrong]
    assert len(list(lines_of(_with(_failed("COLUMN_UNKNOWN", f"columns: {shown}"), *wrong[:3])))) == 2


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        (
            "COLUMN_UNKNOWN",
            "columns: found the column 'nick', which is no field of users; a mapping to no field leaves it out",
            "which is no field of users; --ignore COLUMN leaves it out",
        ),
        (
            "CASCADE_NOT_ALLOWED",
            "3 rows of tokens refer: DELETE CASCADE; and are no part of allow_cascade, or of the file itself",
            "DELETE CASCADE; and no --allow-cascade ENTITY allows it, nor are they in the file itself",
        ),
        ("FILE_NOT_UTF8", "file: found é at byte 7, expected UTF-8", "--encoding NAME says how it is written"),
        ("ERROR_BUDGET_EXCEEDED", "file: found 3 failed records", "--error-budget N bears more"),
        ("COLUMN_UNKNOWN", "found the column 'id;email', which", "--delimiter ';'"),
        ("COLUMN_UNKNOWN", "found the column 'id\\temail', which", "--delimiter tab"),
        ("FILE_NOT_CSV", "set max_deletes", "set --max-deletes N"),
        ("COLUMN_UNKNOWN", "found the column 'max_deletes'", "found the column 'max_deletes'"),
    ],
)
def test_the_servers_words_become_the_commands(reason: str, message: str, said: str):
    assert said in next(iter(lines_of(_failed(reason, message))))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            _failed("KEY_UNREADABLE", "m"),
            f"import {IMPORT_ID}, job {JOB_ID}: dataops imports errors {IMPORT_ID} lists the rows",
        ),
        (
            _failed("ROW_REFUSED", "m"),
            f"import {IMPORT_ID}, job {JOB_ID}: with --on-refused skip such rows are found, listed and left out",
        ),
        (
            _failed("WORKER_LOST", "m", retryable=True),
            f"import {IMPORT_ID}, job {JOB_ID}: dataops jobs retry {JOB_ID} runs it again",
        ),
        (
            _failed("FILE_EMPTY", "m"),
            f"import {IMPORT_ID}, job {JOB_ID}: dataops imports show {IMPORT_ID} shows it",
        ),
        (
            _failed("INTERNAL", "m", resource=f"exports/{EXPORT_ID}"),
            f"export {EXPORT_ID}, job {JOB_ID}: dataops exports show {EXPORT_ID} shows it",
        ),
        (_failed("INTERNAL", "m", resource=""), f"job {JOB_ID}: dataops jobs show {JOB_ID} shows it"),
    ],
)
def test_the_ids_and_the_next_step_are_named(error: JobFailed, said: str):
    assert list(lines_of(error))[-1] == said


def test_what_the_message_says_is_not_said_again():
    violations = (Violation("spec.cron", "found 6 fields, expected five"),)
    refused = InvalidRequest("cron: found 6 fields, expected five", "SCHEDULE_INVALID", violations=violations)

    assert list(lines_of(refused)) == ["SCHEDULE_INVALID: cron: found 6 fields, expected five"]


def test_of_several_the_message_says_one_and_the_others_are_named():
    """As the rules of the contract are refused: the same is wrong with all of them."""
    none = "expected a value, found none"
    violations = (Violation("spec.name", none), Violation("plan_digest", none), Violation("", "name it"))
    refused = InvalidRequest(f"spec.name: {none}, and 2 more", "INVALID_REQUEST", violations=violations)

    (line,) = lines_of(refused)
    assert line == f"INVALID_REQUEST: spec.name: {none}, and 2 more (plan_digest: {none}; name it)"


def test_a_refused_call_is_one_line():
    refused = FailedPrecondition("wrong", "IMPORT_STATE", violations=(Violation("status", "found FAILED"),))

    assert list(lines_of(refused)) == ["IMPORT_STATE: wrong (status: found FAILED)"]
    assert next(iter(lines_of(NotFound("see ListEntities", "ENTITY_UNKNOWN")))).endswith(
        "`dataops entities` lists them"
    )
