"""An additive import from file to report: what is applied is what was planned, and every record is accounted for."""

from __future__ import annotations

import json

import psycopg
import psycopg.conninfo
import pytest

from engine.db.models import BackupRow
from engine.errors import Aborted, FailedPrecondition, NotFound
from engine.paging import Paging


def test_rows_are_added_and_accounted_for(things):
    row = things.plan("things", b'id,code,colour,price,note\n2,TWO,GREEN,1.50,\n3,THREE,RED,,""\n1,UNO,RED,1,x\n')

    assert row.status == "AWAITING_APPROVAL"
    counts = {name: n for name, n in row.plan_summary["counts"].items() if n}
    assert counts == {"total": 3, "insert": 2, "skip": 1}
    assert things.sql("SELECT count(*) FROM public.things") == [(1,)], "a plan changes nothing"

    row = things.apply(row)

    assert row.status == "COMPLETED", row.error
    assert things.sql(
        "SELECT id, code, colour::text, price::text, note FROM public.things WHERE id > 1 ORDER BY id"
    ) == [
        (2, "TWO", "GREEN", "1.50", None),
        (3, "THREE", "RED", None, ""),
    ]
    assert (row.total_records, row.successful_records, row.failed_records) == (3, 2, 1)
    assert row.report["rows_before"] == 1
    assert row.report["rows_after"] == 3
    assert row.report["notices"] == []
    with things.resources.db.transaction() as session:
        backup = session.get_one(BackupRow, row.pre_import_backup_id)
        assert (backup.status, backup.trigger_type) == ("COMPLETED", "PRE_IMPORT")
        assert [(e["entity"], e["rows"]) for e in backup.entities] == [("things", 1)]
    document = json.loads(things.read(row.report_artifact_id))
    assert document["report"] == row.report


def test_each_bad_record_is_named_with_field_code_and_row_and_the_rest_goes_in(things):
    data = b"""id,code,colour,kind,price,made_on,parent
2,AB,RED,tool,1,2024-02-29,
x,AC,RED,tool,1,,
4,ad,RED,tool,1,,
5,ABCDEF,RED,tool,1,,
6,AE,BLUE,tool,1,,
7,AF,RED,car,1,,
8,AG,RED,tool,-1,,
9,AH,RED,tool,99999,,
10,AI,RED,tool,1,2023-02-29,
,AJ,RED,tool,1,,
2,AK,RED,tool,1,,
12,AB,RED,tool,1,,
13,ONE,RED,tool,1,,
14,AL,RED,tool,1,,99
15,AM,RED,tool,1,,2
16,AN,RED,tool,1,,14
17,AO,RED
1,AP,RED,tool,1,,
"""
    row = things.load("things", data)

    assert row.status == "COMPLETED", row.error
    assert {(e.row, e.field, e.code) for e in things.errors(row)} == {
        (3, "id", "INVALID_VALUE"),
        (4, "code", "CHECK_VIOLATED"),
        (5, "code", "TOO_LONG"),
        (6, "colour", "INVALID_VALUE"),
        (7, "kind", "REFERENCE_MISSING"),
        (8, "price", "CHECK_VIOLATED"),
        (9, "price", "OUT_OF_RANGE"),
        (10, "made_on", "INVALID_DATE"),
        (11, "id", "REQUIRED"),
        (12, "id", "DUPLICATE_IN_FILE"),
        (13, "code", "UNIQUE_IN_FILE"),
        (14, "code", "UNIQUE_TAKEN"),
        (15, "parent", "REFERENCE_MISSING"),
        (17, "parent", "REFERENCE_MISSING"),
        (18, "", "WRONG_FIELD_COUNT"),
        (19, "id", "KEY_EXISTS"),
    }
    assert things.sql("SELECT id FROM public.things ORDER BY id") == [(1,), (2,), (15,)]
    report = row.report
    assert (report["total_records"], report["inserted"], report["skipped"], report["failed"]) == (18, 2, 2, 14)


def test_the_reject_file_can_be_corrected_and_uploaded_as_it_is(things):
    row = things.load("things", b'id,note,code\n2,a,TWO\nx,"b,c",THREE\n4,d,lower\n5\n')
    rejects = things.read(row.rejects_artifact_id).decode()

    assert rejects.splitlines()[0] == "id,note,code,_row,_code,_field,_message"
    assert [line.rsplit('"', 3)[0] for line in rejects.splitlines()[1:]] != []
    assert '"x","b,c","THREE","3","INVALID_VALUE","id"' in rejects
    assert '"4","d","lower","4","CHECK_VIOLATED","code"' in rejects
    assert '"5","5","WRONG_FIELD_COUNT",""' in rejects

    again = things.plan("things", rejects.encode())
    assert again.plan_summary["counts"]["failed"] == 3, "what nobody has corrected is refused again"
    corrected = rejects.replace('"x"', '"3"').replace("lower", "FOUR").replace('"5","5"', '"5",,,"5"')
    row = things.load("things", corrected.encode())

    assert row.report["inserted"] == 3
    assert things.sql("SELECT id, note FROM public.things WHERE id > 1 ORDER BY id") == [
        (2, "a"), (3, "b,c"), (4, "d"), (5, None),
    ]  # fmt: skip


def test_a_key_that_came_after_the_plan_makes_it_stale_and_nothing_is_changed(things):
    row = things.plan("things", b"id\n2\n3\n")
    things.sql("INSERT INTO public.things (id) VALUES (3)")

    row = things.apply(row)

    assert (row.status, things.reason(row)) == ("ROLLED_BACK", "PLAN_STALE")
    assert things.sql("SELECT id FROM public.things ORDER BY id") == [(1,), (3,)]


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("UPDATE public.things SET note = 'moved' WHERE id = 1", True),
        ("UPDATE public.things SET code = 'UNO' WHERE id = 1", True),
        ("DELETE FROM public.things WHERE id = 1", True),
        ("UPDATE public.things SET price = 3 WHERE id = 1", False),
        ("ALTER TABLE public.things ADD COLUMN extra int", True),
        ("CREATE TRIGGER t BEFORE INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION tg_fn()", True),
    ],
)
def test_a_skipped_row_that_moves_makes_the_plan_stale_in_what_it_relied_on(things, change, stale):
    things.sql("CREATE FUNCTION public.tg_fn() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    row = things.plan("things", b"id,note\n1,new\n2,b\n")
    things.sql(change.replace("tg_fn", "public.tg_fn"))

    row = things.apply(row)

    assert row.status != "COMPLETED" if stale else row.status == "COMPLETED"
    if stale:
        assert things.reason(row) == "PLAN_STALE"
        assert things.sql("SELECT count(*) FROM public.things WHERE id = 2") == [(0,)]


def test_apply_takes_only_the_plan_that_was_seen_and_only_once(things):
    row = things.plan("things", b"id\n2\n")

    with pytest.raises(Aborted) as caught:
        things.imports.apply(things.caller, row.id, b"x" * 32, *things.request())
    assert caught.value.reason == "PLAN_DIGEST_MISMATCH"

    things.apply(row)
    again = things.apply(row)

    assert again.status == "COMPLETED"
    assert things.sql("SELECT count(*) FROM public.things") == [(2,)]


def test_two_plans_from_one_upload_stand_apart(things):
    upload = things.upload(b"id\n2\n")
    first, second = things.plan("things", upload), things.plan("things", upload)

    assert first.plan_digest != second.plan_digest
    assert things.apply(first).status == "COMPLETED"
    assert things.reason(things.apply(second)) == "PLAN_STALE"
    assert things.uploads.get(things.caller, upload).state == "FINISHED", "another import might have read it again"


def test_a_second_import_of_an_entity_waits_for_the_first(things):
    first, second = things.plan("things", b"id\n2\n"), things.plan("things", b"id\n3\n")
    things.apply(first, work=False)
    things.apply(second, work=False)
    with things.resources.db.transaction() as session:
        from engine.jobs.service import blocked_by

        jobs = [things.imports.get(things.caller, r.id).apply_job_id for r in (first, second)]
        assert blocked_by(session, jobs) == {jobs[1]: [jobs[0]]}

    things.work()

    assert things.sql("SELECT id FROM public.things ORDER BY id") == [(1,), (2,), (3,)]


def test_auto_apply_needs_no_second_call(things):
    row = things.plan("things", b"id\n2\nx\n", auto_apply=True)

    assert row.status == "COMPLETED"
    assert row.report["inserted"] == 1


def test_more_failures_than_the_budget_end_the_import_and_stay_listed(things):
    row = things.plan("things", b"id\n2\nx\ny\n", auto_apply=True, error_budget=1)

    assert (row.status, things.reason(row)) == ("FAILED", "ERROR_BUDGET_EXCEEDED")
    assert [e.row for e in things.errors(row)] == [3, 4]
    assert things.sql("SELECT count(*) FROM public.things") == [(1,)]


def test_secrets_are_filled_masked_and_forbidden(world):
    header = b"id,email,name,role\n"
    one = b"0189d5c8-0000-7000-8000-000000000001,a@example.org,A,DRIVER\n"
    assert world.load("users", header + one).report["inserted"] == 1
    assert world.sql("SELECT password_hash FROM public.users") == [("!",)]

    planned = world.plan("users", header + one.replace(b"1,a", b"2,b"))
    changes, _ = world.imports.changes(world.caller, planned.id, Paging())
    assert {f.field: f.new for f in changes[0][1].fields}["password_hash"] == "***"

    world.caller = world.caller_with("admin", "plain admin")
    row = world.plan("users", b"id,email,name,role,password_hash\n")
    assert (row.status, world.reason(row)) == ("FAILED", "SECRET_FORBIDDEN")


def test_a_required_secret_without_a_fill_refuses_the_plan_once(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY, password_hash text NOT NULL)")

    assert world.reason(world.plan("a", b"id\n")) == "SECRET_REQUIRED"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"id,emial\n", "COLUMN_UNKNOWN"),
        (b"note\n", "COLUMN_MISSING"),
        (b"id,note,note\n", "COLUMN_DUPLICATE"),
        (b"id,note,NOTE\n", "COLUMNS_REFUSED"),
        (b"id,Id,note\n", "COLUMNS_REFUSED"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_any_row(things, header, expected):
    row = things.plan("things", header + b"not even looked at\n")

    assert (row.status, things.reason(row)) == ("FAILED", expected)


def test_an_unknown_column_comes_with_the_nearest_field(things):
    assert "did you mean 'note'?" in things.plan("things", b"id,noet\n").error["message"]


def test_a_mapping_renames_columns(things):
    row = things.load("things", b"nr,remark\n2,x\n", mapping={"nr": "id", "remark": "note"})

    assert row.report["inserted"] == 1


def test_what_is_unknown_is_said_at_the_call(things):
    with pytest.raises(NotFound) as caught:
        things.create("nothing", b"id\n1\n")
    assert caught.value.reason == "ENTITY_UNKNOWN"


def test_a_file_that_is_no_csv_fails_the_import_and_leaves_the_upload(things):
    upload = things.upload(b'id,note\n2,"open\n')
    row = things.plan("things", upload)

    assert (row.status, things.reason(row)) == ("FAILED", "FILE_UNTERMINATED_QUOTE")
    assert things.uploads.get(things.caller, upload).state == "FINISHED"


def test_a_preview_leaves_no_trace(made):
    """No row, no sequence value, no trigger effect: planning is read-only by the server's own word."""
    world = made(
        "CREATE TABLE public.trail (what text);"
        "CREATE FUNCTION public.leave() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.trail VALUES ('x'); RETURN NEW; END $$;"
        "CREATE SEQUENCE public.s; CREATE TABLE public.a (id int PRIMARY KEY DEFAULT nextval('public.s'), v text);"
        "CREATE TRIGGER leave BEFORE INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.leave()"
    )
    world.plan("a", b"v\nx\n")

    assert world.sql("SELECT (SELECT count(*) FROM public.trail), (SELECT is_called FROM public.s)") == [(0, False)]


def test_an_expired_plan_cannot_be_applied(things):
    from datetime import timedelta

    row = things.plan("things", b"id\n2\n")
    assert things.imports.expire(things.resources.clock() + timedelta(days=2)) == 1
    with pytest.raises(FailedPrecondition) as caught:
        things.apply(row)
    assert caught.value.reason == "IMPORT_STATE"


def test_a_missing_right_is_named(made):
    world = made("CREATE TABLE public.a (id int PRIMARY KEY)")
    world.sql(
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT SELECT ON public.a TO reader"
    )
    world.resources.platform.dsn = psycopg.conninfo.make_conninfo(
        world.resources.platform.dsn, user="reader", password="reader"
    )
    row = world.plan("a", b"id\n1\n")
    assert row.status == "AWAITING_APPROVAL", "without the right to write, plans work"
    row = world.apply(row)
    assert (row.status, world.reason(row)) == ("FAILED", "PLATFORM_NOT_PREPARED")
    assert "CREATE SCHEMA" in row.error["message"]


def test_a_secret_field_is_never_suggested(world):
    row = world.plan("users", b"email,name,role,password\n")

    assert world.reason(row) == "COLUMN_UNKNOWN"
    assert "password_hash" not in row.error["message"]
