"""Restores that a review found to lose, to hang or to say the wrong thing."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from engine.backups.service import Backups
from engine.db.models import JobEventRow, JobRow
from tests.engine.backups.kit import archive_of, staged_rows
from tests.engine.definitions import definitions
from tests.engine.restores.kit import back_up, confirm, contents, get, plan, planned, restore

THINGS = """
CREATE TABLE public.things (id int PRIMARY KEY, name text);
INSERT INTO public.things SELECT g, 'n' || g FROM generate_series(1, 10) g;
"""


def test_an_entitys_name_may_be_another_tables_by_now(made, make_world, tmp_path):
    """What is counted, claimed and restored is the table that was backed up."""
    world = made(THINGS + "CREATE TABLE public.others (id int PRIMARY KEY, name text);")
    backup = back_up(world, "things")
    rules = tmp_path / "catalog.toml"
    rules.write_text('[entities.things]\ntable = "public.others"\n[entities.old_things]\ntable = "public.things"\n')
    other = make_world(world.resources.platform.dsn, catalog_file=rules)
    world.sql("INSERT INTO public.things SELECT g, 'late' FROM generate_series(11, 30) g")

    row = plan(other, backup)

    assert planned(row, "things")["rows_lost"] == 20
    assert planned(row, "things")["table"] == "old_things"
    confirmed = confirm(other, row, work=False)
    assert [claim["entity"] for claim in other.job(confirmed.restore_job_id).claims] == ["old_things"]
    other.work()
    assert get(other, row.id).status == "COMPLETED"
    assert world.sql("SELECT count(*) FROM public.things") == [(10,)]


def test_a_second_schema_with_a_table_of_the_same_name_is_no_hindrance(made, make_world):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("CREATE SCHEMA more; CREATE TABLE more.things (id int PRIMARY KEY); DELETE FROM public.things")
    other = make_world(world.resources.platform.dsn, platform_schemas="public,more")

    restore(other, backup)

    assert world.sql("SELECT count(*) FROM public.things") == [(10,)]


def test_sessions_that_read_and_then_write_let_it_through(made):
    """With a weaker lock first, each of them and the restore would wait for one another for ever."""
    world = made(THINGS)
    backup = back_up(world)
    world.sql("UPDATE public.things SET name = 'x'")
    row = plan(world, backup)
    stop = threading.Event()

    def work():
        with psycopg.connect(world.resources.platform.dsn) as connection:
            while not stop.is_set():
                connection.execute("SELECT count(*) FROM public.things")
                time.sleep(0.05)
                connection.execute("UPDATE public.things SET name = name WHERE id = 3")
                connection.commit()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        done = confirm(world, row)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert done.status == "COMPLETED", done.error
    assert world.job(done.restore_job_id).attempt == 1


def test_partitions_outside_are_locked_and_keep_the_names_of_their_keys(made):
    world = made(
        """
        CREATE TABLE public.parents (id int PRIMARY KEY); INSERT INTO public.parents SELECT generate_series(1, 10);
        CREATE TABLE public.events (id int, parent int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE public.e1 (id int NOT NULL, parent int, CONSTRAINT e1_parent_fk FOREIGN KEY (parent)
            REFERENCES public.parents (id));
        ALTER TABLE public.events ADD CONSTRAINT ev_fk FOREIGN KEY (parent) REFERENCES public.parents (id);
        ALTER TABLE public.events ATTACH PARTITION public.e1 FOR VALUES FROM (0) TO (100);
        INSERT INTO public.events SELECT g, g FROM generate_series(1, 10) g;
        """
    )
    defined = definitions(world, "parents", "events", "e1")
    backup = back_up(world)
    world.sql("DELETE FROM public.events WHERE id = 4; DELETE FROM public.parents WHERE id = 4")

    restore(world, backup, "parents")  # the other one refers to it from outside
    assert definitions(world, "parents", "events", "e1") == defined
    restore(world, backup)

    assert definitions(world, "parents", "events", "e1") == defined
    assert world.sql("SELECT count(*) FROM public.events") == [(10,)]


def test_a_partitions_own_key_is_judged_by_the_table_itself(made):
    world = made(
        """
        CREATE TABLE public.parents (id int PRIMARY KEY); INSERT INTO public.parents VALUES (1), (2);
        CREATE TABLE public.events (id int PRIMARY KEY, parent int) PARTITION BY RANGE (id);
        CREATE TABLE public.e1 PARTITION OF public.events FOR VALUES FROM (0) TO (100);
        ALTER TABLE public.e1 ADD CONSTRAINT own FOREIGN KEY (parent) REFERENCES public.parents;
        INSERT INTO public.events VALUES (1, 1);
        """
    )
    backup = back_up(world)
    world.sql("INSERT INTO public.parents VALUES (3); INSERT INTO public.events VALUES (3, 3)")

    restore(world, backup)

    assert world.sql("SELECT id FROM public.events") == [(1,)]


def test_keys_of_orphans_that_are_secret_are_not_told(made):
    world = made(
        """
        CREATE TABLE public.sessions (session_token text PRIMARY KEY);
        CREATE TABLE public.uses (id int PRIMARY KEY, session_token text REFERENCES public.sessions);
        """
    )
    backup = back_up(world, "sessions")
    world.sql("INSERT INTO public.sessions VALUES ('TOPSECRET'); INSERT INTO public.uses VALUES (1, 'TOPSECRET')")

    row = plan(world, backup)

    assert world.reason(row) == "RESTORE_WOULD_ORPHAN"
    with world.resources.db.transaction() as session:
        told = [str(row.error), str(session.get_one(JobRow, row.plan_job_id).error)]
        told += [str(e.payload) for e in session.query(JobEventRow).filter_by(job_id=row.plan_job_id)]
    assert not any("TOPSECRET" in text for text in told)


def test_a_key_that_was_never_proven_outside_is_no_hindrance(made):
    world = made(THINGS)
    world.sql("CREATE TABLE public.old (thing int); INSERT INTO public.old VALUES (99)")
    world.sql("ALTER TABLE public.old ADD CONSTRAINT k FOREIGN KEY (thing) REFERENCES public.things NOT VALID")
    backup = back_up(world, "things")

    restore(world, backup)


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("INSERT INTO public.uses VALUES (1, 20)", "RESTORE_WOULD_ORPHAN"),
        ("CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
         "CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION public.no()",
         "RESTORE_REFUSED"),
    ],
)  # fmt: skip
def test_what_is_refused_in_the_transaction_has_a_reason_and_undoes_it(made, since, reason):
    world = made(THINGS + "CREATE TABLE public.uses (id int, thing int REFERENCES public.things DEFERRABLE);")
    backup = back_up(world, "things")
    world.sql("INSERT INTO public.things VALUES (20, 'new')")
    row = plan(world, backup)
    before = contents(world, "things")
    world.sql(since)
    try:
        done = confirm(world, row)
    finally:
        world.sql("DROP EVENT TRIGGER IF EXISTS no")

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", reason)
    assert contents(world, "things") == before


def test_a_check_whose_function_fails_is_left_to_the_table(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("CREATE FUNCTION public.bad(text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'bad %', $1; END$$")
    world.sql("DELETE FROM public.things; ALTER TABLE public.things ADD CONSTRAINT odd CHECK (public.bad(name))")

    done = confirm(world, plan(world, backup))

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "RESTORE_REFUSED")
    assert "n1" not in done.error["message"]


def test_what_only_the_table_can_judge_of_a_large_one(made, monkeypatch):
    """The index is built after the rows: then it says no."""
    monkeypatch.setattr("engine.imports.indexes.WORTH_ROWS", 1)
    world = made(THINGS)
    backup = back_up(world)
    world.sql("DELETE FROM public.things; CREATE UNIQUE INDEX odd ON public.things ((id % 2))")

    done = confirm(world, plan(world, backup))

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "SCHEMA_INCOMPATIBLE")
    assert world.sql("SELECT count(*) FROM public.things") == [(0,)]


def test_another_table_that_refers_to_it_is_no_change_of_its_definition(made):
    world = made(THINGS)
    backup = back_up(world)
    world.sql("CREATE TABLE public.uses (id int, thing int REFERENCES public.things)")

    assert planned(plan(world, backup), "things")["schema_differences"] == []


def test_old_rows_that_a_new_rule_was_not_kept_for_come_back(made):
    """NOT VALID is what a rule says that was added beside rows which break it."""
    world = made(THINGS + "CREATE TABLE public.others (id int PRIMARY KEY);")
    world.sql("ALTER TABLE public.things ADD CONSTRAINT big CHECK (id > 5) NOT VALID")
    world.sql("COMMENT ON CONSTRAINT big ON public.things IS 'for new ones'")
    world.sql("ALTER TABLE public.things ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES public.others NOT VALID")
    before, defined = contents(world, "things"), definitions(world, "things", "others")
    backup = back_up(world, "things")
    world.sql("DELETE FROM public.things WHERE id < 4")

    restore(world, backup)

    assert contents(world, "things") == before
    assert definitions(world, "things", "others") == defined
    with pytest.raises(psycopg.errors.CheckViolation):
        world.sql("INSERT INTO public.things VALUES (2, 'again')")


def test_keys_beneath_keys_keep_their_names_and_comments(made):
    """PostgreSQL numbers them anew, in an order that partitions made later do not have."""
    world = made(
        """
        CREATE TABLE public.months (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE public.m1 PARTITION OF public.months FOR VALUES FROM (0) TO (10);
        CREATE TABLE public.m3 PARTITION OF public.months FOR VALUES FROM (20) TO (30);
        CREATE TABLE public.uses (id int, month int REFERENCES public.months) PARTITION BY RANGE (id);
        CREATE TABLE public.u2 PARTITION OF public.uses FOR VALUES FROM (10) TO (20);
        CREATE TABLE public.m2 PARTITION OF public.months FOR VALUES FROM (10) TO (20);
        CREATE TABLE public.u1 PARTITION OF public.uses FOR VALUES FROM (0) TO (10);
        ALTER TABLE public.months DETACH PARTITION public.m1; DROP TABLE public.m1;
        CREATE TABLE public.m0 PARTITION OF public.months FOR VALUES FROM (0) TO (5);
        INSERT INTO public.months VALUES (1), (12), (22); INSERT INTO public.uses VALUES (1, 1), (11, 12);
        COMMENT ON CONSTRAINT uses_month_fkey ON public.u2 IS 'mine';
        """
    )
    tables = ("months", "m0", "m2", "m3", "uses", "u1", "u2")
    defined = definitions(world, *tables)
    backup = back_up(world)
    world.sql("DELETE FROM public.uses; DELETE FROM public.months WHERE id = 12")

    restore(world, backup)
    assert definitions(world, *tables) == defined
    restore(world, backup, "months")

    assert definitions(world, *tables) == defined
    assert world.sql("SELECT count(*) FROM public.uses") == [(2,)]


def test_losses_of_one_entity_do_not_stand_for_anothers(made):
    world = made(THINGS + "CREATE TABLE public.others (id int PRIMARY KEY);")
    backup = back_up(world)
    world.sql("INSERT INTO public.others VALUES (1)")
    row = plan(world, backup)
    world.sql("DELETE FROM public.others; INSERT INTO public.things VALUES (99, 'precious')")

    done = confirm(world, row)

    assert (done.status, world.reason(done)) == ("ROLLED_BACK", "LOSSES_MOVED")
    assert world.sql("SELECT count(*) FROM public.things") == [(11,)]


def test_what_is_written_while_it_waits_for_its_locks_is_in_the_backup_before_it(made):
    """Its transaction is older then than the writer's, as LOCK TABLE gives it an id before it waits."""
    world = made(THINGS)
    backup = back_up(world)
    world.sql("UPDATE public.things SET name = 'since' WHERE id = 1")
    confirmed = confirm(world, plan(world, backup), work=False, max_losses=10)
    with psycopg.connect(world.resources.platform.dsn) as writer:
        writer.execute("SELECT count(*) FROM public.things")
        worker = threading.Thread(target=world.work)
        worker.start()
        while not world.sql("SELECT 1 FROM pg_locks WHERE relation = 'public.things'::regclass AND NOT granted"):
            time.sleep(0.01)
        writer.execute("UPDATE public.things SET name = 'late' WHERE id = 3")
        writer.commit()
        worker.join()

    done = get(world, confirmed.id)
    assert done.status == "COMPLETED", done.error
    (entity,) = done.report["entities"]
    assert entity["rows_changed"] == 2
    before = Backups(world.resources).get(world.caller, done.pre_restore_backup_id)
    assert before.backup_type == "INCREMENTAL"
    assert archive_of(world, before).manifest.cut is None, "it is nobody's parent, and waits for no flush"
    assert "(3,late)" in staged_rows(world, archive_of(world, before), "things")
