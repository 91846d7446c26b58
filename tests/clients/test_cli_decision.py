"""What is applied, and by whose word: --yes, a person at a terminal, a number of deletes; and Ctrl-C on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataops.v1 import imports_pb2, jobs_pb2
from dataops_client.cli import main

from tests.clients.fake_world import IMPORT_ID, JOB_ID, OTHER_JOB_ID, World
from tests.clients.terminal import at_terminal, interrupted

pytestmark = pytest.mark.usefixtures("configured")


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([], "not applied: the plan deletes 1234 rows; it needs --confirm-deletes 1234"),
        (["--confirm-deletes", "1233"], "not applied: the plan deletes 1234 rows, --confirm-deletes says 1233"),
    ],
)
def test_deletes_that_nobody_confirmed_are_not_applied(
    said: list[str], complaint: str, planned: imports_pb2.Import, users_csv: Path, world: World, capsys
):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "-q", "--json", *said]) == 9

    captured = capsys.readouterr()
    assert captured.err == f"dataops: {complaint}\n"
    assert json.loads(captured.out)["status"] == "AWAITING_APPROVAL"
    assert not world.applied_with


def test_deletes_are_confirmed_by_their_number(planned: imports_pb2.Import, users_csv: Path, world: World):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "--confirm-deletes", "1234", "-q"]) == 0

    (applied,) = world.applied_with
    assert applied.confirmed_deletes == 1234


def test_a_plan_that_needs_no_confirmation_sends_none(users_csv: Path, world: World):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "-q"]) == 0

    assert not world.applied_with[0].HasField("confirmed_deletes")


@pytest.mark.parametrize(
    ("answer", "code", "applied"),
    [(b"1234\n", 0, True), (b"1,234\n", 0, True), (b"y\n", 9, False), (b"1233\n", 9, False), (b"\x04", 9, False)],
)
def test_a_person_types_the_number_of_deletes(
    answer: bytes, code: int, applied: bool, planned: imports_pb2.Import, users_csv: Path, world: World
):
    command = ["import", str(users_csv), "--entity", "users", "--mode", "replace"]
    got, screen = at_terminal(command, "type the number of deletes:", answer)

    assert (got, bool(world.applied_with)) == (code, applied)
    assert screen.count("some of the changes:") == 1
    if answer == b"y\n":
        assert "not applied: found 'y', expected 1234" in screen


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 9), (b"\n", 9), (b"\x04", 9)])
def test_a_person_says_yes_or_nothing_is_changed(answer: bytes, code: int, users_csv: Path, world: World):
    got, screen = at_terminal(["import", str(users_csv), "--entity", "users"], "[y/N]", answer)

    assert (got, bool(world.applied_with)) == (code, code == 0)
    assert "1,200" in screen


def test_a_plan_that_another_person_must_approve_is_neither_asked_for_nor_applied(
    planned: imports_pb2.Import, users_csv: Path, world: World, capsys
):
    planned.plan.approval_needed = True
    for command in (["import", str(users_csv), "--entity", "users"], ["imports", "apply", IMPORT_ID]):
        assert main([*command, "--yes", "--confirm-deletes", "1234", "-q"]) == 9
        captured = capsys.readouterr()
        assert captured.err == "dataops: not applied: another person must approve the plan first\n"
        assert captured.out.endswith(f"another person approves it: dataops imports approve {IMPORT_ID}\n")
    assert not world.applied_with

    assert main(["imports", "approve", IMPORT_ID]) == 9
    assert "not approved: nobody can be asked; --yes" in capsys.readouterr().err
    assert main(["imports", "approve", IMPORT_ID, "--yes", "--reason", "seen"]) == 0
    shown = capsys.readouterr().out
    assert "approval  given by 0197a000-0000-7000-8000-0000000000ad" in shown
    assert shown.endswith(f"anybody but you applies it: dataops imports apply {IMPORT_ID}\n")
    request = world.asked[-1]
    assert isinstance(request, imports_pb2.ApproveImportRequest)
    assert (request.plan_digest, request.reason) == (planned.plan.plan_digest, "seen")
    assert main(["imports", "apply", IMPORT_ID, "--yes", "--confirm-deletes", "1234", "-q"]) == 0
    assert world.applied_with


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 9)])
def test_a_person_approves_below_the_counts(answer: bytes, code: int, planned: imports_pb2.Import, world: World):
    planned.plan.approval_needed = True
    got, screen = at_terminal(["imports", "approve", IMPORT_ID], "Approve this plan? [y/N]", answer)

    assert (got, bool(planned.approved_by_admin_id)) == (code, code == 0)
    assert "1,234" in screen


def test_what_does_not_wait_is_not_approved(world: World):
    world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED
    assert main(["imports", "approve", IMPORT_ID]) == 5
    assert not world.asked


def test_ctrl_c_at_the_question_changes_nothing_and_says_how_to_go_on(users_csv: Path, world: World):
    command = ["import", str(users_csv), "--entity", "users"]
    got, screen = at_terminal(command, "[y/N]", b"", interrupts=True)

    assert got == 130
    assert f"nothing is changed: dataops imports apply {IMPORT_ID} applies it" in screen
    assert not world.applied_with


def test_ctrl_c_while_it_is_planned_leaves_the_job_and_says_how_to_follow_it(users_csv: Path, world: World):
    world.stall_watch = True

    got, out, err = interrupted(["import", str(users_csv), "--entity", "users", "--yes"], lambda: bool(world.watches))

    assert (got, out) == (130, "")
    assert f"dataops jobs watch {JOB_ID} follows it, dataops imports cancel {IMPORT_ID} stops it" in err
    assert f"its plan will wait and change nothing: dataops imports apply {IMPORT_ID} applies it" in err
    assert not world.applied_with


def test_ctrl_c_while_it_is_applied_leaves_the_job_too(world: World):
    world.stall_watch = True

    got, _, err = interrupted(["imports", "apply", IMPORT_ID, "--yes"], lambda: bool(world.watches))

    assert got == 130
    assert f"dataops imports cancel {IMPORT_ID} stops it" in err


def test_a_blocked_job_is_said_to_wait_for_another_by_its_kind(users_csv: Path, world: World, capsys):
    world.other_jobs[OTHER_JOB_ID] = jobs_pb2.Job(job_id=OTHER_JOB_ID, kind=jobs_pb2.JOB_KIND_BACKUP)
    unseen = [f"{IMPORT_ID[:-1]}{n}" for n in range(3)]
    change = jobs_pb2.JobStateChange(new_state=jobs_pb2.JOB_STATE_PENDING, blocked_by=[OTHER_JOB_ID, *unseen])
    world.events.insert(0, jobs_pb2.JobEvent(job_id=JOB_ID, sequence=1, state_change=change))
    for sequence, event in enumerate(world.events, 1):
        event.sequence = sequence
    world.job.last_sequence = len(world.events)

    assert main(["import", str(users_csv), "--entity", "users", "--yes"]) == 0

    err = capsys.readouterr().err
    assert f"waits: for BACKUP job {OTHER_JOB_ID}, job {unseen[0]}, job {unseen[1]} and 1 more" in err
