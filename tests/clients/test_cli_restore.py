"""`dataops restore`: the plan as it is shown, the phrase by whose word, the approval, and how each command ends."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import jobs_pb2, restores_pb2
from dataops_client.cli import main

from tests.clients.fake_world import BACKUP_ID, DIGEST, IMPORT_ID, JOB_ID, RESTORE_ID, World
from tests.clients.plans import PHRASE
from tests.clients.terminal import at_terminal, interrupted

pytestmark = pytest.mark.usefixtures("restore")

SHOWN = f"""\
restore  {RESTORE_ID}
backup   {BACKUP_ID}
status   AWAITING_CONFIRMATION

entity\trows now\tin the backup\tlost\tchanged
users\t1,503\t1,500\t3\t2
tokens\t2\t2\t0\t0
all\t1,505\t1,502\t3\t2

definitions that differ from the backup's:
  users  ! COLUMN_ADDED: users.nick: it came after the backup

needs     1.0 MB of disk, 2.1 MB of write-ahead log
outage    everybody waits, about 2 s
notice    ! EVERYBODY_WAITS: readers and writers wait
approval  another person must approve it, too
phrase    {PHRASE}
expires   2026-11-27 02:45 UTC

the rows that would be lost or changed: dataops restore losses {RESTORE_ID}

nothing is touched; to restore: dataops restore confirm {RESTORE_ID} --phrase '{PHRASE}'
"""
DONE = f"""\
restore        {RESTORE_ID}
backup         {BACKUP_ID}
status         COMPLETED
backup before  {BACKUP_ID}

entity\trows before\trows after\tlost\tchanged
users\t53\t50\t3\t2

outage  everybody waited 2 s

the way back: dataops restore plan {BACKUP_ID}
"""


def confirmations(world: World) -> list[restores_pb2.ConfirmRestoreRequest]:
    return [request for request in world.started if isinstance(request, restores_pb2.ConfirmRestoreRequest)]


def test_a_plan_is_made_followed_and_shown_with_the_next_command(world: World, capsys):
    renames = ["--rename", "users.nick=name", "--rename", "public.users.fax="]
    assert main(["restore", "plan", BACKUP_ID, "users", "tokens", *renames, "--reason", "a bad import"]) == 0

    captured = capsys.readouterr()
    assert captured.out == SHOWN
    assert "copy: 1,500 of 3,000 rows" in captured.err
    (request,) = world.started
    assert isinstance(request, restores_pb2.CreateRestoreRequest)
    assert (request.backup_id, list(request.entity_types)) == (BACKUP_ID, ["users", "tokens"])
    assert [(r.entity, r.old_name, r.new_name) for r in request.renames] == [
        ("users", "nick", "name"),
        ("public.users", "fax", ""),
    ]
    assert (request.reason, len(request.request_id)) == ("a bad import", 36)


def test_the_plan_as_json_holds_the_phrase(capsys):
    assert main(["restore", "plan", BACKUP_ID, "-q", "-o", "json"]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    plan = json.loads(captured.out)["plan"]
    assert (plan["confirmation_phrase"], plan["plan_digest"]) == (PHRASE, DIGEST.hex())
    assert [entity["rows_lost"] for entity in plan["entities"]] == [3, 0]


@pytest.mark.parametrize("rename", ["nick=name", "users.nick", "users.=name"])
def test_a_rename_names_entity_and_column(rename: str, world: World):
    assert main(["restore", "plan", BACKUP_ID, "--rename", rename]) == 2
    assert not world.started


def test_a_plan_that_is_refused_says_all_that_is_wrong_in_the_commands_words(world: World, capsys):
    world.job.state, world.job.resource = jobs_pb2.JOB_STATE_FAILED, f"restores/{RESTORE_ID}"
    world.job.error.reason = "SCHEMA_INCOMPATIBLE"
    world.job.error.message = "restore: the backup does not fit the tables in 2 places"
    world.job.error.violations.add(
        subject="users", description="users.nick: it is gone; say by renames which it is now"
    )

    assert main(["restore", "plan", BACKUP_ID, "-q"]) == 5
    assert capsys.readouterr().err == (
        "dataops: SCHEMA_INCOMPATIBLE: restore: the backup does not fit the tables in 2 places\n"
        "  users: users.nick: it is gone; say by --rename ENTITY.OLD=NEW which it is now\n"
        f"restore {RESTORE_ID}, job {JOB_ID}: dataops restore show {RESTORE_ID} shows it\n"
    )


def test_a_phrase_on_the_command_line_confirms_the_plan_that_stands(world: World, capsys):
    command = ["restore", "confirm", RESTORE_ID, "--phrase", PHRASE, "--max-losses", "9", "--reason", "agreed"]
    assert main([*command, "-q"]) == 0

    assert capsys.readouterr().out == DONE
    (request,) = confirmations(world)
    assert (request.plan_digest, request.confirmation_phrase) == (DIGEST, PHRASE)
    assert (request.max_losses, request.reason) == (9, "agreed")


def test_a_wrong_phrase_is_refused_by_the_server(world: World, capsys):
    assert main(["restore", "confirm", RESTORE_ID, "--phrase", "yes"]) == 5

    captured = capsys.readouterr()
    assert captured.err.startswith("dataops: PHRASE_WRONG: --phrase TEXT: found another")
    assert captured.out == ""
    assert not confirmations(world)[0].HasField("max_losses")
    assert world.restore.status == restores_pb2.RESTORE_STATUS_AWAITING_CONFIRMATION


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_without_a_phrase_and_a_terminal_nothing_is_confirmed(more: list[str], world: World, capsys):
    assert main(["restore", "confirm", RESTORE_ID, *more]) == 9

    assert "not confirmed: nobody can be asked; --phrase TEXT" in capsys.readouterr().err
    assert not world.started


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (PHRASE.encode() + b"\n", 0, "the way back: dataops restore plan"),
        (b"yes\n" + PHRASE.encode() + b"\n", 0, "that is not the phrase; once more"),
        (b"yes\nno\n", 5, "that is not the phrase\ndataops: not confirmed, nothing is touched"),
        (b"yes\n\n", 9, "not confirmed, nothing is touched"),
        (b"\n", 9, "not confirmed, nothing is touched"),
        (b"\x04", 9, "not confirmed, nothing is touched"),
    ],
)
def test_a_person_types_the_phrase_below_the_plan(answer: bytes, code: int, said: str, world: World):
    got, screen = at_terminal(["restore", "confirm", RESTORE_ID], "type the phrase:", answer)

    assert (got, said in screen) == (code, True)
    assert "EVERYBODY_WAITS" in screen
    assert "--phrase TEXT" not in screen
    assert bool(confirmations(world)) == (code == 0)


def test_ctrl_c_at_the_question_touches_nothing(world: World):
    got, screen = at_terminal(["restore", "confirm", RESTORE_ID], "type the phrase:", b"", interrupts=True)

    assert got == 130
    assert f"nothing is touched; dataops restore show {RESTORE_ID} shows where it stands" in screen
    assert not world.started


def test_ctrl_c_while_it_runs_leaves_it_and_says_how_to_stop_it(world: World):
    world.stall_watch = True

    command = ["restore", "confirm", RESTORE_ID, "--phrase", PHRASE]
    got, _, err = interrupted(command, lambda: bool(world.watches))

    assert got == 130
    assert f"dataops restore watch {RESTORE_ID} follows it, dataops restore cancel {RESTORE_ID} stops it" in err


@pytest.mark.parametrize("command", [["plan", BACKUP_ID], ["watch", RESTORE_ID]])
def test_ctrl_c_while_it_is_planned_says_that_nothing_will_change(command: list[str], world: World):
    world.stall_watch = True

    got, _, err = interrupted(["restore", *command], lambda: bool(world.watches))

    assert got == 130
    assert f"its plan will wait and change nothing: dataops restore watch {RESTORE_ID} follows it" in err
    assert "goes on" not in err


def test_what_does_not_wait_for_a_phrase_is_not_asked_for_one(world: World, capsys):
    world.restore.status = restores_pb2.RESTORE_STATUS_EXPIRED

    assert main(["restore", "confirm", RESTORE_ID]) == 5
    assert "found the restore EXPIRED, expected it AWAITING_CONFIRMATION" in capsys.readouterr().err
    assert not world.started


def test_a_restore_that_is_rolled_back_has_its_reasons_exit_code(world: World, capsys):
    world.job.state, world.job.resource = jobs_pb2.JOB_STATE_FAILED, f"restores/{RESTORE_ID}"
    world.job.error.reason, world.job.error.message = "LOSSES_MOVED", "9 rows would be lost"
    assert main(["restore", "confirm", RESTORE_ID, "--phrase", PHRASE, "-q"]) == 5
    said = capsys.readouterr().err
    assert "LOSSES_MOVED: 9 rows would be lost; --max-losses N of `dataops restore confirm` confirms more\n" in said
    assert f"dataops restore show {RESTORE_ID} shows it" in said

    world.job.error.reason = "RESTORE_NOT_EQUAL"
    assert main(["restore", "watch", RESTORE_ID, "-q"]) == 1


def test_another_person_approves_and_until_then_nothing_is_touched(world: World, capsys):
    world.needs_approval = True
    assert main(["restore", "confirm", RESTORE_ID, "--phrase", PHRASE, "-q"]) == 9
    captured = capsys.readouterr()
    assert captured.out.endswith(
        f"nothing is touched; another person approves it: dataops restore approve {RESTORE_ID}\n"
    )

    assert main(["restore", "approve", RESTORE_ID]) == 9
    assert "not approved: nobody can be asked; --yes" in capsys.readouterr().err
    assert main(["restore", "approve", RESTORE_ID, "--yes", "--reason", "seen", "-q"]) == 0
    assert capsys.readouterr().out == DONE
    request = world.started[-1]
    assert isinstance(request, restores_pb2.ApproveRestoreRequest)
    assert (request.plan_digest, request.reason) == (DIGEST, "seen")


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 9)])
def test_a_person_approves_below_the_plan(answer: bytes, code: int, world: World):
    world.restore.status = restores_pb2.RESTORE_STATUS_AWAITING_APPROVAL
    got, screen = at_terminal(["restore", "approve", RESTORE_ID], "[y/N]", answer)

    assert (got, bool(world.started)) == (code, code == 0)
    assert "EVERYBODY_WAITS" in screen


def test_what_is_not_confirmed_is_not_approved(world: World):
    assert main(["restore", "approve", RESTORE_ID]) == 5
    assert not world.started


def test_watching_follows_what_runs_and_tells_what_ended(world: World, capsys):
    assert main(["restore", "watch", RESTORE_ID]) == 0
    captured = capsys.readouterr()
    assert captured.out == SHOWN
    assert "copy: 1,500 of 3,000 rows" in captured.err

    world.restore.status = restores_pb2.RESTORE_STATUS_EXPIRED
    assert main(["restore", "watch", RESTORE_ID, "-q", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "EXPIRED"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("PROCESSING", f"dataops restore watch {RESTORE_ID} follows it"),
        ("AWAITING_CONFIRMATION", f"the phrase has expired: dataops restore plan {BACKUP_ID} makes a new plan"),
        ("AWAITING_APPROVAL", f"dataops restore approve {RESTORE_ID}"),
    ],
)
def test_a_restore_without_a_phrase_shows_what_comes_next(status: str, said: str, world: World, capsys):
    world.restore.plan.confirmation_phrase = ""
    world.restore.status = restores_pb2.RestoreStatus.Value(f"RESTORE_STATUS_{status}")

    assert main(["restore", "show", RESTORE_ID]) == 0
    assert said in capsys.readouterr().out


def test_restores_are_listed_by_what_is_asked_for(world: World, capsys):
    command = ["restore", "list", "--backup", BACKUP_ID, "--status", "awaiting-confirmation", "--limit", "3"]
    assert main(command) == 0

    header, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    listed = dict(zip(header, row, strict=True))
    assert (listed["restore"], listed["entities"]) == (RESTORE_ID, "users,tokens")
    assert (listed["lost"], listed["changed"]) == ("3", "2")
    (request,) = world.lists(restores_pb2.ListRestoresRequest)
    assert request == restores_pb2.ListRestoresRequest(
        page_size=3, backup_id=BACKUP_ID, statuses=[restores_pb2.RESTORE_STATUS_AWAITING_CONFIRMATION]
    )


def test_what_would_be_lost_is_listed_row_by_row(world: World, capsys):
    assert main(["restore", "losses", RESTORE_ID, "--limit", "0"]) == 0
    assert capsys.readouterr().out == (
        "entity\tkey\twhat\tfields\n"
        "users\t0\tdeleted\t\nusers\t1\tdeleted\t\nusers\t2\tdeleted\t\nusers\t9\tchanged\tname, phone\n"
    )

    assert main(["restore", "losses", RESTORE_ID, "--entity", "tokesn"]) == 2
    refused = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "--entity tokesn: the restore has no such entity; expected tokens or users" in refused
    assert main(["restore", "losses", RESTORE_ID, "--entity", "tokens", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_restore_that_waits_is_cancelled_once(world: World, capsys):
    assert main(["restore", "cancel", RESTORE_ID, "--reason", "not now"]) == 0
    assert "CANCELLED" in capsys.readouterr().out
    assert main(["restore", "cancel", RESTORE_ID]) == 5
    assert "already CANCELLED, nothing was cancelled" in capsys.readouterr().err

    world.restore.status = restores_pb2.RESTORE_STATUS_PROCESSING
    assert main(["restore", "cancel", RESTORE_ID]) == 0
    assert f"dataops jobs watch {JOB_ID} follows it" in capsys.readouterr().err


def test_an_unknown_restore_is_exit_code_4(capsys):
    for command in ("show", "confirm", "approve", "watch", "cancel"):
        assert main(["restore", command, IMPORT_ID]) == 4
    assert "RESTORE_UNKNOWN" in capsys.readouterr().err
