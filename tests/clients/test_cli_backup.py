"""`dataops backup`: what each command asks for, what it shows, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dataops.v1 import backups_pb2, common_pb2, imports_pb2, jobs_pb2
from dataops_client import DataOps
from dataops_client.cli import main

from tests.clients.fake_world import BACKUP_ID, IMPORT_ID, JOB_ID, World
from tests.clients.terminal import at_terminal, interrupted

pytestmark = pytest.mark.usefixtures("backup")

SHOWN = f"""\
backup       {BACKUP_ID}
name         before the weekend
status       COMPLETED
type         FULL
trigger      MANUAL
rows         1,502
size         4.2 kB
frees        4.2 kB
checksum     {"ab" * 32}
snapshot     2026-11-26T03:00:01Z
expires      2027-02-24 03:00 UTC
held         until it is released
proof        DECODED at 2026-11-27 02:30 UTC: good
job          {JOB_ID}
reason       to be safe
NOT_COVERED  public.seen: it is a view

entity\trows\tsize
users\t1,500\t4.0 kB
tokens\t2\t200 B
"""


def test_a_backup_is_made_followed_and_shown(world: World, capsys):
    command = [
        "backup",
        "create",
        "users",
        "tokens",
        "--name",
        "before the weekend",
        "--hold",
        "--reason",
        "to be safe",
    ]
    assert main(command) == 0

    captured = capsys.readouterr()
    assert captured.out == SHOWN
    assert "copy: 1,500 of 3,000 rows · 800 rows/s" in captured.err
    (request,) = world.started
    assert isinstance(request, backups_pb2.CreateBackupRequest)
    assert (list(request.entity_types), request.name, request.hold) == (["users", "tokens"], "before the weekend", True)
    assert (request.reason, len(request.request_id)) == ("to be safe", 36)
    assert request.backup_type == backups_pb2.BACKUP_TYPE_FULL


def test_everything_is_backed_up_only_if_that_is_said(world: World, capsys):
    assert main(["backup", "create"]) == 2
    assert main(["backup", "create", "users", "--all"]) == 2
    assert "ENTITY and --all: found both" in capsys.readouterr().err
    assert not world.started

    assert main(["backup", "create", "--all", "--incremental", "-q", "-o", "json"]) == 0
    (request,) = world.started
    assert isinstance(request, backups_pb2.CreateBackupRequest)
    assert request.backup_type == backups_pb2.BACKUP_TYPE_INCREMENTAL
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert (found["backup_id"], found["status"], found["held"]) == (BACKUP_ID, "COMPLETED", True)
    assert found["entities"][0] == {"entity": "users", "rows": 1500, "size_bytes": 4000}


def test_a_backup_that_fails_says_why_and_what_to_do(world: World, capsys):
    world.job.state, world.job.resource = jobs_pb2.JOB_STATE_FAILED, f"backups/{BACKUP_ID}"
    world.job.error.reason, world.job.error.message = "DISK_FULL", "no room"

    assert main(["backup", "create", "users", "-q"]) == 5
    assert capsys.readouterr().err == (
        f"dataops: DISK_FULL: no room\nbackup {BACKUP_ID}, job {JOB_ID}: dataops backup show {BACKUP_ID} shows it\n"
    )


def test_ctrl_c_leaves_the_backup_and_says_how_to_stop_it(world: World):
    world.stall_watch = True

    got, out, err = interrupted(["backup", "create", "users"], lambda: bool(world.watches))

    assert (got, out) == (130, "")
    assert f"dataops jobs watch {JOB_ID} follows it, dataops jobs cancel {JOB_ID} stops it" in err


def test_backups_are_listed_by_what_is_asked_for(world: World, capsys):
    assert main(["backup", "list"]) == 0
    header, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    listed = dict(zip(header, row, strict=True))
    assert (listed["backup"], listed["name"], listed["trigger"]) == (BACKUP_ID, "before the weekend", "MANUAL")
    assert (listed["entities"], listed["rows"], listed["proven"], listed["held"]) == (
        "users,tokens",
        "1502",
        "DECODED",
        "held",
    )

    command = [
        "backup",
        "list",
        "--entity",
        "users",
        "--status",
        "completed",
        "--trigger",
        "pre-import",
        "--limit",
        "3",
    ]
    assert main([*command, "--json"]) == 0
    assert [found["backup_id"] for found in json.loads(capsys.readouterr().out)] == [BACKUP_ID]
    assert world.lists(backups_pb2.ListBackupsRequest)[-1] == backups_pb2.ListBackupsRequest(
        page_size=3,
        entity_type="users",
        statuses=[backups_pb2.BACKUP_STATUS_COMPLETED],
        trigger_types=[backups_pb2.TRIGGER_TYPE_PRE_IMPORT],
    )
    assert main(["backup", "list", "--trigger", "magic"]) == 2


def test_a_proof_that_failed_stands_in_the_list_and_beside_the_backup(world: World, capsys):
    failed = world.backup.verifications.add(level=backups_pb2.VERIFY_LEVEL_RESTORED)
    failed.verified_at.FromJsonString("2026-11-28T02:30:00Z")
    failed.error.reason, failed.error.message = "BACKUP_DAMAGED", "a segment is another"

    assert main(["backup", "list"]) == 0
    assert "\tNOT GOOD\t" in capsys.readouterr().out
    assert main(["backup", "show", BACKUP_ID]) == 0
    assert "RESTORED at 2026-11-28 02:30 UTC: NOT GOOD, BACKUP_DAMAGED: a segment is another" in capsys.readouterr().out


def test_an_unknown_backup_is_exit_code_4(capsys):
    assert main(["backup", "show", IMPORT_ID]) == 4
    assert "BACKUP_UNKNOWN" in capsys.readouterr().err


def test_a_backup_is_proven_and_what_is_not_good_is_exit_code_1(world: World, capsys):
    assert main(["backup", "verify", BACKUP_ID]) == 0
    assert "level     DECODED\nresult    good\nverified  2026-11-27T02:30:00Z\n" in capsys.readouterr().out
    failed = world.backup.verifications.add(level=backups_pb2.VERIFY_LEVEL_RESTORED)
    failed.error.reason, failed.error.message = "BACKUP_DAMAGED", "a segment is another"
    assert main(["backup", "verify", BACKUP_ID, "--level", "restored", "-q"]) == 1
    captured = capsys.readouterr()
    assert "result  not good\nerror   BACKUP_DAMAGED: a segment is another\n" in captured.out
    assert captured.err == ""

    world.job.state, world.job.resource = jobs_pb2.JOB_STATE_FAILED, f"backups/{BACKUP_ID}"
    world.job.error.reason, world.job.error.message = "BACKUP_DAMAGED", "a segment is another"
    assert main(["backup", "verify", BACKUP_ID, "-q"]) == 1
    assert f"dataops backup show {BACKUP_ID} shows it" in capsys.readouterr().err
    world.job.state = jobs_pb2.JOB_STATE_COMPLETED

    levels = [request.level for request in world.started if isinstance(request, backups_pb2.VerifyBackupRequest)]
    decoded, restored = backups_pb2.VERIFY_LEVEL_DECODED, backups_pb2.VERIFY_LEVEL_RESTORED
    assert levels == [decoded, restored, decoded]
    assert main(["backup", "verify", BACKUP_ID, "--level", "present", "--json", "-q"]) == 1, "no proof came of it"
    assert json.loads(capsys.readouterr().out)["good"] is False


@pytest.fixture
def differing(world: World) -> None:
    """Users that differ: one only in the backup, one changed, 3,000 only live."""
    world.difference_counts = [
        backups_pb2.EntityDifference(entity="users", only_in_backup=1, only_live=3000, different=1, equal=1498)
    ]
    kinds = [imports_pb2.CHANGE_KIND_INSERT, imports_pb2.CHANGE_KIND_UPDATE, *[imports_pb2.CHANGE_KIND_DELETE] * 3000]
    for number, kind in enumerate(kinds):
        made = backups_pb2.BackupDifference(entity="users", kind=kind)
        made.key.add(name="id", value=str(number))
        made.fields.add(name="name", old="live", new="saved")
        world.differences.append(made)


@pytest.mark.usefixtures("differing")
def test_a_comparison_shows_counts_and_some_of_the_rows(world: World, capsys):
    assert main(["backup", "diff", BACKUP_ID, "users", "--limit", "3", "--reason", "looking"]) == 0

    assert capsys.readouterr().out == (
        f"backup      {BACKUP_ID}\ncomparison  {JOB_ID}\n\n"
        "entity\tonly in the backup\tonly live\tdifferent\tequal\n"
        "users\t1\t3,000\t1\t1,498\n\n"
        "what going back would do, live -> in the backup:\n"
        "kind\tentity\tkey\tfields\n"
        "INSERT\tusers\t0\tname = saved\n"
        "UPDATE\tusers\t1\tname: live -> saved\n"
        "DELETE\tusers\t2\tname = live\n"
        "\n3 of 3,002 shown; --limit 0 shows all\n"
    )
    (request,) = world.started
    assert isinstance(request, backups_pb2.DiffBackupRequest)
    assert (request.backup_id, list(request.entity_types), request.reason) == (BACKUP_ID, ["users"], "looking")


@pytest.mark.usefixtures("differing")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "delete"], "20 of 3,000 shown"),
        (["--kind", "update", "--limit", "1"], ""),
        (["--limit", "3001"], "3,001 of 3,002 shown"),
        (["--limit", "3002"], ""),
        (["--limit", "0"], ""),
    ],
)
def test_a_comparison_says_when_it_shows_a_part_only(options: list[str], said: str, capsys):
    assert main(["backup", "diff", BACKUP_ID, *options, "-q"]) == 0

    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (f"{said}; --limit 0 shows all" if said else last)
    assert ("shown" in last) == bool(said)


@pytest.mark.usefixtures("differing")
def test_what_another_backups_comparison_found_is_not_shown_as_this_ones(world: World, capsys):
    world.job.resource = f"backups/{IMPORT_ID}"

    assert main(["backup", "diff", BACKUP_ID, "--job", JOB_ID]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"found a job of backups/{IMPORT_ID}, expected one of backups/{BACKUP_ID}" in captured.err


@pytest.mark.usefixtures("differing")
def test_an_earlier_comparison_is_shown_again_without_a_new_one(world: World, capsys):
    world.job.resource = f"backups/{BACKUP_ID}"
    assert main(["backup", "diff", BACKUP_ID, "--job", JOB_ID, "--kind", "delete", "--limit", "0", "-q", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["backup_id"] == BACKUP_ID
    assert (found["job_id"], found["entities"][0]["only_live"], len(found["differences"])) == (JOB_ID, 3000, 3000)
    assert not world.started
    assert main(["backup", "diff", BACKUP_ID, "users", "--job", JOB_ID]) == 2
    assert main(["backup", "diff", BACKUP_ID, "--kind", "skip"]) == 2


def test_ctrl_c_while_it_compares_says_how_to_see_what_comes_of_it(world: World):
    world.stall_watch = True

    got, _, err = interrupted(["backup", "diff", BACKUP_ID], lambda: bool(world.watches))

    assert got == 130
    assert f"dataops backup diff {BACKUP_ID} --job {JOB_ID} shows it at its end" in err


def test_rows_are_taken_out_by_their_keys_and_applied_after_a_yes(world: World, tmp_path: Path, capsys):
    keys = tmp_path / "keys.csv"
    keys.write_text('id,country\n5,"D,E"\n')
    command = ["backup", "extract", BACKUP_ID, "--entity", "users", "--key", "id=1,country=a,b", "--keys", str(keys)]
    assert main([*command, "--mode", "additive", "--yes", "--reason", "lost"]) == 0

    assert "status        COMPLETED" in capsys.readouterr().out
    (request,) = world.started
    assert isinstance(request, backups_pb2.ExtractBackupRowsRequest)
    assert (request.entity, request.import_type, request.reason) == ("users", imports_pb2.IMPORT_TYPE_ADDITIVE, "lost")
    rows = [[(value.name, value.value) for value in key.values] for key in request.keys]
    assert rows == [[("id", "1"), ("country", "a,b")], [("id", "5"), ("country", "D,E")]]
    assert len(world.applied_with) == 1


def test_rows_that_are_taken_out_wait_for_a_yes(world: World, capsys):
    command = ["backup", "extract", BACKUP_ID, "--entity", "users", "--key", "id=1"]
    assert main(command) == 9
    assert f"dataops imports apply {IMPORT_ID}" in capsys.readouterr().out
    assert main([*command, "--plan-only", "-q"]) == 0

    assert not world.applied_with
    (first, _) = world.started
    assert isinstance(first, backups_pb2.ExtractBackupRowsRequest)
    assert first.import_type == imports_pb2.IMPORT_TYPE_UPSERT


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ([], "--key and --keys: found neither"),
        (["--key", "id"], "expected FIELD=VALUE"),
        (["--key", "=1"], "expected FIELD=VALUE"),
        (["--keys", "ragged.csv"], "record 3 has another number of cells than the header"),
        (["--key", "id=1", "--mode", "sideways"], "expected upsert or additive"),
    ],
)
def test_a_wrong_key_is_exit_code_2_before_anything_is_sent(
    option: list[str], complaint: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("ragged.csv").write_text("id,country\n1,DE\n2\n")
    assert main(["backup", "extract", BACKUP_ID, "--entity", "users", *option]) == 2

    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not world.started


def test_a_backup_is_released_before_it_is_deleted(world: World, capsys):
    assert main(["backup", "delete", BACKUP_ID, "--yes"]) == 5
    assert "BACKUP_IN_USE" in capsys.readouterr().err
    assert main(["backup", "release", BACKUP_ID, "--reason", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held"] is False
    assert main(["backup", "hold", BACKUP_ID]) == 0
    assert "held         until it is released" in capsys.readouterr().out
    assert main(["backup", "release", BACKUP_ID, "-o", "json"]) == 0
    capsys.readouterr()

    assert main(["backup", "delete", BACKUP_ID, "-y", "--reason", "old", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "DELETED"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_nothing_is_deleted_where_nobody_can_be_asked(more: list[str], world: World, capsys):
    assert main(["backup", "delete", BACKUP_ID, *more]) == 9
    assert "not deleted: nobody can be asked; --yes" in capsys.readouterr().err
    assert main(["backup", "delete", IMPORT_ID, *more]) == 4
    assert not world.started


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 9), (b"\x04", 9)])
def test_a_person_deletes_below_what_the_backup_is(answer: bytes, code: int, world: World):
    world.backup.held = False
    got, screen = at_terminal(["backup", "delete", BACKUP_ID], "[y/N]", answer)

    assert (got, bool(world.started)) == (code, code == 0)
    assert "before the weekend" in screen


def test_a_program_may_leave_the_waiting_to_itself(client: DataOps, world: World):
    world.job.state = jobs_pb2.JOB_STATE_RUNNING
    assert client.create_backup(["users"], wait=False).backup_id == BACKUP_ID
    planned = client.extract_rows(BACKUP_ID, "users", [{"id": "1", "country": None}], wait=False)
    assert planned.import_id == IMPORT_ID

    assert world.watches == []
    request = world.started[-1]
    assert isinstance(request, backups_pb2.ExtractBackupRowsRequest)
    assert request.keys[0].values[1] == common_pb2.FieldValue(name="country")


def test_a_program_proves_and_compares_in_one_call(client: DataOps, world: World):
    assert client.verify_backup(BACKUP_ID).good
    assert not client.verify_backup(BACKUP_ID, backups_pb2.VERIFY_LEVEL_PRESENT).HasField("verified_at")
    assert client.diff_backup(BACKUP_ID, ["users"]) == JOB_ID

    assert world.watches
