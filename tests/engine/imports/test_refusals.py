"""What only the table can judge, and what becomes of an import whose rights, worker or table change on the way."""

from __future__ import annotations

import psycopg
import psycopg.conninfo
import pytest
from sqlalchemy import select, text

from engine.db.models import AuditEventRow, ExportRow, GrantRow
from engine.errors import PermissionDenied
from engine.exports.run import ExportHandler
from engine.exports.states import ExportStatus, move
from engine.imports.changes import Budget
from engine.imports.fill import fill
from engine.imports.model import Severity
from engine.jobs.interrupts import LeaseLost
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from engine.paging import Paging

PLAIN = "CREATE TABLE public.a (id int PRIMARY KEY, v text)"


def codes(row):
    return {n["code"]: n["message"] for n in row.plan_summary["notices"]}


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("CREATE UNIQUE INDEX lower_v ON public.a (lower(v))", "2,A"),
        ("CREATE UNIQUE INDEX lower_v ON public.a (v) WHERE id > 0", "2,a"),
        ("ALTER TABLE public.a ADD CONSTRAINT lower_v EXCLUDE USING btree (v WITH =)", "2,a"),
    ],
)
def test_a_rule_that_planning_cannot_judge_is_named_and_refuses_at_apply(made, rule, bad):
    world = made(f"{PLAIN}; {rule}; INSERT INTO public.a VALUES (1, 'a')")
    row = world.plan("a", f"id,v\n{bad}\n".encode(), on_refused="ABORT")

    assert "lower_v" in codes(row)["CHECKED_AT_APPLY"]
    row = world.apply(row)
    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "ROW_REFUSED")
    assert "lower_v" in row.error["message"]


@pytest.mark.parametrize(
    "body",
    ["RAISE EXCEPTION 'secret %', NEW.v USING ERRCODE = 'ZZ001'", "PERFORM 1 / (NEW.id - 2)", "NEW.id := NULL"],
)
def test_whatever_a_trigger_raises_is_a_refusal_that_shows_no_value(made, body):
    world = made(
        f"{PLAIN}; CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f()"
    )
    row = world.load("a", b"id,v\n2,hidden\n", on_refused="ABORT")

    assert (row.status, world.reason(row)) == ("ROLLED_BACK", "ROW_REFUSED")
    assert "hidden" not in str(row.error)


@pytest.mark.parametrize(
    "body", ["RAISE EXCEPTION 'no'", "RETURN 1 / (i - 2) = 0", "INSERT INTO public.trail VALUES (i); RETURN true"]
)
def test_a_check_that_cannot_be_evaluated_is_left_to_apply(made, body):
    world = made(
        "CREATE TABLE public.trail (i int);"
        f"CREATE FUNCTION public.f(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN {body}; END $$;"
        "CREATE TABLE public.a (id int PRIMARY KEY, v text, CONSTRAINT odd CHECK (public.f(id)))"
    )
    row = world.plan("a", b"id,v\n2,x\n", on_refused="ABORT")

    assert row.status == "AWAITING_APPROVAL", row.error
    assert "odd" in codes(row)["CHECKED_AT_APPLY"]
    row = world.apply(row)
    assert row.status == "COMPLETED" if "trail" in body else world.reason(row) == "ROW_REFUSED"


def test_a_role_revoked_after_the_commit_does_not_hide_the_effect(made, monkeypatch):
    world = made(PLAIN)
    row = world.apply(world.plan("a", b"id,v\n1,x\n"), work=False)
    monkeypatch.setattr("engine.imports.run.make_report", lambda *_: (_ for _ in ()).throw(LeaseLost))
    Runner(world.resources, handlers(), "lost").run_next()
    assert world.sql("SELECT count(*) FROM public.a") == [(1,)]
    monkeypatch.undo()
    with world.resources.db.transaction() as session:
        session.execute(text("DELETE FROM dataops.grants"))
        session.execute(text("UPDATE dataops.jobs SET lease_expires_at = clock_timestamp() - interval '1 s'"
                             " WHERE lease_owner IS NOT NULL"))  # fmt: skip

    world.work()

    assert world.job(row.apply_job_id).state == "COMPLETED"
    with world.resources.db.transaction() as session:
        assert session.execute(text("SELECT status FROM dataops.imports")).scalar() == "COMPLETED"


def test_a_role_revoked_before_the_effect_stops_it(made):
    world = made(PLAIN)
    row = world.apply(world.plan("a", b"id,v\n1,x\n"), work=False)
    with world.resources.db.transaction() as session:
        session.query(GrantRow).delete()

    world.work()

    assert world.job(row.apply_job_id).error["reason"] == "PERMISSION_MISSING"
    assert world.sql("SELECT count(*) FROM public.a") == [(0,)]


def test_auto_apply_asks_for_both_permissions_at_the_call(made):
    world = made(PLAIN)
    with world.resources.db.transaction() as session:
        session.execute(
            text(
                "INSERT INTO dataops.roles (name, description, permissions, built_in, updated_at) VALUES"
                " ('planner', '', ARRAY['imports.create:*', 'uploads.*', 'imports.read:*'], false, now())"
            )
        )
    world.caller = world.caller_with("planner", "planner")
    upload = world.upload(b"id\n1\n")

    with pytest.raises(PermissionDenied):
        world.create("a", upload, auto_apply=True)
    assert world.plan("a", upload).status == "AWAITING_APPROVAL"


def test_an_exceeded_budget_is_a_failure_in_every_record(made):
    world = made(PLAIN)
    row = world.plan("a", b"id\nx\n", error_budget=0)

    assert row.status == world.job(row.plan_job_id).state == "FAILED"
    with world.resources.db.transaction() as session:
        outcome = session.scalars(select(AuditEventRow).where(AuditEventRow.kind == "OUTCOME")).all()[-1]
    assert outcome.outcome == "FAILED"
    assert [e.row for e in world.errors(row)] == [2]


def test_a_taken_over_export_writes_no_more_on_its_record(made, monkeypatch):
    world = made(f"{PLAIN}; INSERT INTO public.a VALUES (1, 'x')")
    row = world.begin_export("a")

    def started(_handler, session, job):
        move(session.get(ExportRow, job.resource_id), ExportStatus.PROCESSING, world.resources.clock())
        job.fence += 1  # somebody else has the job before this attempt comes to its first write

    monkeypatch.setattr(ExportHandler, "started", started)
    Runner(world.resources, handlers(), "late").run_next()

    assert world.exports.get(world.caller, row.id).artifact_id is None


def test_a_long_list_of_errors_is_looked_through_in_bounded_steps(made, monkeypatch):
    world = made(PLAIN)
    monkeypatch.setattr(Budget, "LINES", 100)
    row = world.plan("a", b"id\n" + b"x\n" * 250)

    found, token, total = world.imports.errors(world.caller, row.id, Paging(10, "", "t"), (Severity.SKIPPED,))
    assert (list(found), bool(token), total) == ([], True, 250)
    assert len(world.errors(row)) == 250


def test_a_table_whose_rows_are_hidden_by_policy_is_refused_by_name(made):
    world = made(
        f"{PLAIN}; ALTER TABLE public.a ENABLE ROW LEVEL SECURITY; DROP ROLE IF EXISTS filtered;"
        "CREATE ROLE filtered LOGIN PASSWORD 'filtered'; GRANT ALL ON public.a TO filtered"
    )
    platform = world.resources.platform
    platform.dsn = psycopg.conninfo.make_conninfo(platform.dsn, user="filtered", password="filtered")

    assert "row-level security" in world.resources.catalogs.load().entity("a").refused
    assert world.reason(world.plan("a", b"id\n1\n")) == "ENTITY_NOT_IMPORTABLE"


def test_a_referenced_table_cannot_be_rewritten_under_the_plan(made, monkeypatch):
    world = made(
        f"CREATE TABLE public.kinds (k text PRIMARY KEY); {PLAIN};"
        "ALTER TABLE public.a ADD k text REFERENCES public.kinds; INSERT INTO public.kinds VALUES ('x')"
    )

    def with_truncate(*args):
        with psycopg.connect(world.resources.platform.dsn, autocommit=True) as other:
            other.execute("SET lock_timeout = '300ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("TRUNCATE public.kinds CASCADE")
        return fill(*args)

    monkeypatch.setattr("engine.imports.plan.fill", with_truncate)
    assert world.plan("a", b"id,k\n1,x\n").plan_summary["counts"]["insert"] == 1


def test_a_table_dropped_after_the_plan_makes_it_stale(made):
    world = made(PLAIN)
    row = world.plan("a", b"id\n1\n")
    world.sql("ALTER TABLE public.a RENAME TO b")

    assert world.apply(row).status in ("FAILED", "ROLLED_BACK")
    assert world.sql("SELECT count(*) FROM public.b") == [(0,)]


def test_what_a_statements_trigger_changes_is_seen(made):
    world = made(
        f"{PLAIN}; CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE public.a SET v = v || '!'; RETURN NULL; END $$;"
        "CREATE TRIGGER t AFTER INSERT ON public.a FOR EACH STATEMENT EXECUTE FUNCTION public.f()"
    )
    assert world.load("a", b"id,v\n1,x\n").report["changed_by_trigger"] == 1
