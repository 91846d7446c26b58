"""`dataops schedule`: what is asked for by whose word, how a schedule is shown, and how each command ends."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import backups_pb2, schedules_pb2
from dataops_client.cli import main
from dataops_client.cli.schedule_options import seconds_of, span_text

from tests.clients.fake_schedules import make_schedule
from tests.clients.fake_world import BACKUP_ID, IMPORT_ID, SCHEDULE_ID, World
from tests.clients.terminal import at_terminal

pytestmark = pytest.mark.usefixtures("backup", "schedule")

SHOWN = f"""\
schedule     {SCHEDULE_ID}
name         nightly
cron         30 2 * * *
time zone    Europe/Berlin
entities     users, points
type         FULL
kept         30d
proven       DECODED
overlap      BUFFER_ONE
catch up     24h
made as      ada
revision     3
last         2026-11-26 01:30 UTC
last backup  {BACKUP_ID}
missed       2
skipped      0
failed       1
error        DATABASE_LOST: the database: lost the connection
next         2026-11-27 01:30 UTC
next         2026-11-28 01:30 UTC

time\toutcome\ttries\tbackup\tagain at\terror
2026-11-26 01:30 UTC\tWAITING\t1\t{BACKUP_ID}\t2026-11-26 01:36 UTC\tDATABASE_LOST: the database: lost the connection
2026-11-25 01:30 UTC\tMISSED\t0\t\t\t
"""


@pytest.fixture
def schedule(world: World, configured: None) -> schedules_pb2.Schedule:
    return make_schedule(world)


def test_a_schedule_is_made_as_it_is_said(world: World, capsys):
    spec = ["--cron", "0 3 * * 1", "--time-zone", "America/New_York", "--type", "incremental", "--keep", "36h"]
    more = ["--verify", "restored", "--overlap", "buffer-one", "--catch-up", "90m", "--reason", "by night"]
    assert main(["schedule", "create", "users", "tokens", "--name", "mondays", *spec, *more]) == 0

    (request,) = world.started
    assert isinstance(request, schedules_pb2.CreateScheduleRequest)
    found = request.spec
    assert (found.name, found.cron, found.time_zone) == ("mondays", "0 3 * * 1", "America/New_York")
    assert list(found.entity_types) == ["users", "tokens"]
    assert (found.backup_type, found.verify_level, found.overlap_policy) == (2, 3, 2)
    assert (found.retention.seconds, found.catch_up_window.seconds) == (36 * 3600, 5400)
    assert (request.reason, len(request.request_id)) == ("by night", 36)
    assert "mondays" in capsys.readouterr().out


def test_what_is_not_said_is_left_to_the_server(world: World):
    assert main(["schedule", "create", "--all", "--name", "daily"]) == 0

    (request,) = world.started
    assert isinstance(request, schedules_pb2.CreateScheduleRequest)
    assert request.spec == schedules_pb2.ScheduleSpec(name="daily", cron="@daily")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["users", "--all"],
        ["--all", "--keep", "3"],
        ["--all", "--catch-up", "1y"],
        ["--all", "--verify", "twice"],
        ["--all", "--overlap", "kill"],
        ["--all", "--type", "half"],
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(wrong: list[str], world: World):
    assert main(["schedule", "create", "--name", "x", *wrong]) == 2
    assert not world.started


def test_a_schedule_is_shown_with_what_became_of_its_times(capsys):
    assert main(["schedule", "show", SCHEDULE_ID]) == 0
    assert capsys.readouterr().out == SHOWN
    assert main(["schedule", "show", SCHEDULE_ID, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["spec"]["retention"], shown["last_error"]["reason"]) == (30 * 86400, "DATABASE_LOST")
    assert [run["outcome"] for run in shown["recent_runs"]] == ["WAITING", "MISSED"]
    assert main(["schedule", "show", IMPORT_ID]) == 4


def test_the_list_has_a_line_for_each(world: World, capsys):
    assert main(["schedule", "list", "--limit", "7"]) == 0

    header, line = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split("\t"), line.split("\t"), strict=True)) == {
        "schedule": SCHEDULE_ID,
        "name": "nightly",
        "cron": "30 2 * * *",
        "time zone": "Europe/Berlin",
        "entities": "users, points",
        "next": "2026-11-27 01:30 UTC",
        "last": "2026-11-26 01:30 UTC",
        "missed": "2",
        "skipped": "0",
        "failed": "1",
        "error": "DATABASE_LOST",
    }
    (request,) = world.lists(schedules_pb2.ListSchedulesRequest)
    assert isinstance(request, schedules_pb2.ListSchedulesRequest)
    assert request.page_size == 7


def test_an_update_changes_what_is_said_at_the_revision_that_was_seen(world: World, capsys):
    before = schedules_pb2.ScheduleSpec()
    before.CopyFrom(world.schedule.spec)
    assert main(["schedule", "update", SCHEDULE_ID, "--cron", "@weekly", "--keep", "default", "--verify", "none"]) == 0

    (request,) = world.started
    assert isinstance(request, schedules_pb2.UpdateScheduleRequest)
    assert request.revision == 3
    before.cron, before.verify_level = "@weekly", backups_pb2.VERIFY_LEVEL_UNSPECIFIED
    before.ClearField("retention")
    assert request.spec == before
    assert "revision     4" in capsys.readouterr().out
    assert main(["schedule", "update", SCHEDULE_ID, "--all"]) == 0
    assert list(world.schedule.spec.entity_types) == []
    assert main(["schedule", "update", SCHEDULE_ID]) == 2
    assert main(["schedule", "update", SCHEDULE_ID, "--name", "theirs"]) == 5
    assert "SCHEDULE_CHANGED" in capsys.readouterr().err


def test_pause_and_resume(world: World, capsys):
    assert main(["schedule", "pause", SCHEDULE_ID, "--reason", "maintenance"]) == 0
    assert "next         none: it is paused" in capsys.readouterr().out
    assert main(["schedule", "list"]) == 0
    assert "\tpaused\t" in capsys.readouterr().out
    assert main(["schedule", "resume", SCHEDULE_ID]) == 0

    pause, resume = world.started
    assert isinstance(pause, schedules_pb2.PauseScheduleRequest)
    assert pause.reason == "maintenance"
    assert isinstance(resume, schedules_pb2.ResumeScheduleRequest)


def test_a_schedule_fired_by_hand_is_followed_to_its_backup(world: World, capsys):
    assert main(["schedule", "trigger", SCHEDULE_ID, "--reason", "before the move"]) == 0

    captured = capsys.readouterr()
    assert f"backup       {BACKUP_ID}" in captured.out
    assert "copy: 1,500 of 3,000 rows" in captured.err
    (request,) = world.started
    assert isinstance(request, schedules_pb2.TriggerScheduleRequest)
    assert (request.schedule_id, request.reason, len(request.request_id)) == (SCHEDULE_ID, "before the move", 36)


def test_a_schedule_is_deleted_after_a_yes_only(world: World, capsys):
    assert main(["schedule", "delete", SCHEDULE_ID]) == 9
    assert "nobody can be asked" in capsys.readouterr().err
    for answer, code in ((b"n\n", 9), (b"y\n", 0)):
        ended, screen = at_terminal(["schedule", "delete", SCHEDULE_ID], "Its backups stay.", answer)
        assert (ended, "30 2 * * *" in screen) == (code, True)
    assert main(["schedule", "delete", SCHEDULE_ID, "--yes", "--reason", "no longer needed"]) == 0

    assert capsys.readouterr().out == f"deleted {SCHEDULE_ID}\n"
    by_hand, by_script = world.started
    assert isinstance(by_script, schedules_pb2.DeleteScheduleRequest)
    assert (by_script.schedule_id, by_script.reason) == (SCHEDULE_ID, "no longer needed")
    assert isinstance(by_hand, schedules_pb2.DeleteScheduleRequest)


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [("90m", 5400, "90m"), ("24h", 86400, "24h"), ("30d", 30 * 86400, "30d"), ("52w", 52 * 604800, "52w")],
)
def test_spans_of_time(text: str, seconds: int, again: str):
    assert (seconds_of("--keep", text), span_text(seconds)) == (seconds, again)
