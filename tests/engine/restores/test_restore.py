"""A restore brings the rows back, all of them and nothing else, and leaves everything around them as it was."""

from __future__ import annotations

import pytest
from psycopg import sql

from engine.backups.service import Backups
from engine.paging import Paging
from examples.platform import generate
from tests.engine.definitions import definitions
from tests.engine.restores.kit import back_up, confirm, contents, plan, planned, restore

TABLES = (
    "users", "driver_profiles", "carrier_profiles", "tokens", "points_accounts", "points_ledger", "points_rules",
    "conduct_logs", "referral_tree", "sweepstakes_entries", "shareables", "redemption_requests",
)  # fmt: skip


@pytest.fixture
def made(fresh):
    """Tables of one's own in the module's world: a fifth of the time of a world for each test."""
    return fresh


def test_the_whole_platform_comes_back(world):
    generate.load(world.resources.platform.dsn, users=200)
    before = contents(world, *TABLES)
    backup = back_up(world)
    world.sql("DELETE FROM public.points_ledger; DELETE FROM public.sweepstakes_entries")
    world.sql("UPDATE public.users SET name = 'nobody', password_hash = 'x'")
    assert contents(world, *TABLES) != before

    row = plan(world, backup)

    assert planned(row, "users")["rows_changed"] == 200
    assert planned(row, "points_ledger")["rows_now"] == 0
    assert contents(world, *TABLES) != before  # a plan touches nothing

    done = confirm(world, row)

    assert done.status == "COMPLETED", done.error
    assert contents(world, *TABLES) == before
    assert done.pre_restore_backup_id is not None


PAIR = """
CREATE TABLE public.parents (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.children (id int PRIMARY KEY, parent int NOT NULL REFERENCES public.parents ON DELETE CASCADE);
INSERT INTO public.parents SELECT g, 'p' || g FROM generate_series(1, 10) g;
INSERT INTO public.children SELECT g, g FROM generate_series(1, 10) g;
"""


def test_triggers_do_not_fire_and_each_is_as_it_was(made):
    world = made(
        """
        CREATE TABLE public.things (id int PRIMARY KEY, name text);
        CREATE TABLE public.log (what text);
        CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.log VALUES (TG_NAME); RETURN NEW; END$$;
        CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END$$;
        INSERT INTO public.things VALUES (1, 'a'), (2, 'b');
        CREATE TRIGGER origin BEFORE INSERT OR UPDATE ON public.things FOR EACH ROW EXECUTE FUNCTION public.stamp();
        CREATE TRIGGER always AFTER INSERT OR DELETE ON public.things FOR EACH ROW EXECUTE FUNCTION public.tell();
        CREATE TRIGGER replica AFTER INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION public.tell();
        CREATE TRIGGER off AFTER INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION public.tell();
        CREATE TRIGGER emptied AFTER TRUNCATE ON public.things EXECUTE FUNCTION public.tell();
        ALTER TABLE public.things ENABLE ALWAYS TRIGGER always;
        ALTER TABLE public.things ENABLE REPLICA TRIGGER replica;
        ALTER TABLE public.things DISABLE TRIGGER off;
        """
    )
    before = definitions(world, "things")
    backup = back_up(world, "things")
    world.sql("ALTER TABLE public.things DISABLE TRIGGER ALL; DELETE FROM public.things")
    world.sql("ALTER TABLE public.things ENABLE TRIGGER origin, ENABLE TRIGGER emptied")
    world.sql("ALTER TABLE public.things ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica")

    restore(world, backup)

    assert world.sql("SELECT id, name FROM public.things ORDER BY id") == [(1, "a"), (2, "b")]
    assert world.sql("SELECT * FROM public.log") == []
    assert definitions(world, "things") == before


def test_foreign_keys_are_made_again_exactly(made):
    world = made(
        """
        CREATE TABLE public.a (id int PRIMARY KEY, b int, boss int REFERENCES public.a);
        CREATE TABLE public.b (id int PRIMARY KEY, a int REFERENCES public.a DEFERRABLE INITIALLY DEFERRED);
        ALTER TABLE public.a ADD CONSTRAINT "a to b" FOREIGN KEY (b) REFERENCES public.b ON DELETE SET NULL;
        COMMENT ON CONSTRAINT "a to b" ON public.a IS 'a circle';
        INSERT INTO public.a VALUES (1, NULL, NULL), (2, NULL, 1), (3, NULL, 3);
        INSERT INTO public.b VALUES (1, 1), (2, 3), (9, NULL);
        UPDATE public.a SET b = 1 WHERE id = 1;
        SET CONSTRAINTS ALL IMMEDIATE;
        ALTER TABLE public.b ADD CONSTRAINT old FOREIGN KEY (id) REFERENCES public.a NOT VALID;
        """
    )
    before, defined = contents(world, "a", "b"), definitions(world, "a", "b")
    backup = back_up(world)
    world.sql("UPDATE public.a SET b = NULL; DELETE FROM public.b; DELETE FROM public.a")

    restore(world, backup)

    assert contents(world, "a", "b") == before
    assert definitions(world, "a", "b") == defined


def test_rows_outside_that_cascade_stay(made):
    """TRUNCATE … CASCADE, or a DELETE, would take the children along."""
    world = made(PAIR)
    backup = back_up(world, "parents")
    world.sql("UPDATE public.parents SET name = 'x'")

    restore(world, backup)

    assert world.sql("SELECT count(*) FROM public.children") == [(10,)]
    assert world.sql("SELECT name FROM public.parents WHERE id = 3") == [("p3",)]


def test_a_restore_that_would_orphan_rows_outside_is_refused_with_their_keys(made):
    world = made(PAIR)
    backup = back_up(world, "parents")
    world.sql("INSERT INTO public.parents VALUES (11, 'new'), (12, 'new')")
    world.sql("INSERT INTO public.children VALUES (21, 11), (22, 12)")

    row = plan(world, backup)

    assert world.reason(row) == "RESTORE_WOULD_ORPHAN"
    (violation,) = row.error["violations"]
    assert "2 rows" in violation[1]
    assert violation[1].endswith("of some: 11, 12")
    assert "12" not in str(world.job(row.plan_job_id).error["violations"])  # who may not read restores may read jobs
    assert world.sql("SELECT count(*) FROM public.parents") == [(12,)]


def test_a_restore_of_rows_whose_parents_are_gone_is_refused(made):
    world = made(PAIR)
    backup = back_up(world, "children")
    world.sql("DELETE FROM public.parents WHERE id = 4")

    row = plan(world, backup)

    assert world.reason(row) == "RESTORE_WOULD_ORPHAN"
    assert "children" in row.error["message"]
    assert row.error["violations"][0][1].endswith(" 4")


def test_of_everything_together_nothing_is_orphaned(made):
    world = made(PAIR)
    before = contents(world, "parents", "children")
    backup = back_up(world)
    world.sql("DELETE FROM public.parents WHERE id > 3; INSERT INTO public.parents VALUES (50, 'new')")
    world.sql("INSERT INTO public.children VALUES (51, 50)")

    row = restore(world, backup)

    assert contents(world, "parents", "children") == before
    assert {e["entity"]: e["rows_lost"] for e in row.report["entities"]} == {"parents": 1, "children": 1}


def test_sequences_go_on_behind_all_that_was_used(made):
    world = made(
        """
        CREATE TABLE public.things (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, back int DEFAULT 0);
        CREATE SEQUENCE public.down INCREMENT BY -1 OWNED BY public.things.back;
        ALTER TABLE public.things ALTER back SET DEFAULT nextval('public.down');
        INSERT INTO public.things DEFAULT VALUES; INSERT INTO public.things DEFAULT VALUES;
        """
    )
    backup = back_up(world)
    world.sql("INSERT INTO public.things SELECT FROM generate_series(1, 5)")  # live has used more

    restore(world, backup)
    world.sql("INSERT INTO public.things DEFAULT VALUES")

    assert world.sql("SELECT id, n, back FROM public.things ORDER BY id") == [(1, 1, -1), (2, 2, -2), (8, 8, -8)]

    world.sql("TRUNCATE public.things RESTART IDENTITY")  # and now it has used less than the backup
    world.sql("ALTER SEQUENCE public.down RESTART")
    restore(world, backup)
    world.sql("INSERT INTO public.things DEFAULT VALUES")

    assert world.sql("SELECT id, n, back FROM public.things ORDER BY id") == [(1, 1, -1), (2, 2, -2), (3, 3, -3)]


def test_odd_tables_come_back(made):
    world = made(
        """
        CREATE TABLE public.keyless (a int, b text);
        INSERT INTO public.keyless VALUES (1, NULL), (1, NULL), (2, ''), (2, E'\\\\N'), (3, E'a\\tb\\nc');
        CREATE TABLE public.parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE public.p1 PARTITION OF public.parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE public.p2 PARTITION OF public.parted DEFAULT;
        INSERT INTO public.parted SELECT g, date '2020-06-01' + g * 100 FROM generate_series(1, 9) g;
        CREATE TABLE public.base (id int PRIMARY KEY); INSERT INTO public.base VALUES (1);
        CREATE TABLE public.heir (more text) INHERITS (public.base); INSERT INTO public.heir VALUES (1, 'x'), (7, 'y');
        CREATE TABLE public.made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO public.made VALUES (1), (2);
        CREATE TABLE public."Odd ""name"" ä" (" id " int PRIMARY KEY, "select" text);
        INSERT INTO public."Odd ""name"" ä" VALUES (1, 'one');
        CREATE TABLE public.later (id int PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO public.later VALUES (1, 2), (2, 1);
        CREATE TABLE public.nothing (id int PRIMARY KEY);
        CREATE TABLE public.ruled (id int PRIMARY KEY);
        INSERT INTO public.ruled VALUES (1);
        CREATE RULE nope AS ON INSERT TO public.ruled DO INSTEAD NOTHING;
        """
    )
    tables = ("keyless", "parted", "base", "heir", "made", '"Odd ""name"" ä"', "later", "nothing", "ruled")
    before, defined = contents(world, *tables), definitions(world, *tables)
    backup = back_up(world)
    for table in tables:
        world.sql(f"DELETE FROM public.{table}")
    world.sql("INSERT INTO public.nothing VALUES (1)")

    restore(world, backup)

    assert contents(world, *tables) == before
    assert definitions(world, *tables) == defined


def test_plain_indexes_are_built_again_as_they_were(made, monkeypatch):
    monkeypatch.setattr("engine.imports.indexes.WORTH_ROWS", 1)
    world = made(
        """
        CREATE TABLE public.things (id int PRIMARY KEY, name text, n int);
        CREATE INDEX by_name ON public.things (name DESC) INCLUDE (n) WITH (fillfactor = 70);
        COMMENT ON INDEX public.by_name IS 'fast'; ALTER TABLE public.things CLUSTER ON by_name;
        CREATE UNIQUE INDEX one ON public.things (lower(name));
        ALTER TABLE public.things ADD CONSTRAINT "two {}" UNIQUE NULLS NOT DISTINCT (n) INCLUDE (name)
            WITH (fillfactor = 60) DEFERRABLE INITIALLY DEFERRED;
        COMMENT ON CONSTRAINT "two {}" ON public.things IS 'constraint'; COMMENT ON INDEX public."two {}" IS 'index';
        CREATE UNIQUE INDEX ident ON public.things (n, id); ALTER TABLE public.things ALTER n SET NOT NULL;
        ALTER TABLE public.things REPLICA IDENTITY USING INDEX ident;
        CREATE TABLE public.others (n int REFERENCES public.things (id));
        CREATE UNIQUE INDEX target ON public.things (name);
        ALTER TABLE public.others ADD t text REFERENCES public.things (name);
        INSERT INTO public.things SELECT g, 'n' || g, g FROM generate_series(1, 50) g;
        """
    )
    before, defined = contents(world, "things"), definitions(world, "things", "others")
    backup = back_up(world, "things")
    world.sql("DELETE FROM public.things WHERE id > 5; INSERT INTO public.others VALUES (2, 'n3')")

    restore(world, backup)

    assert contents(world, "things") == before
    assert definitions(world, "things", "others") == defined
    assert world.sql("SELECT relreplident FROM pg_class WHERE oid = 'public.things'::regclass") == [("i",)]


def test_what_was_there_before_is_in_the_backup_taken_under_the_locks(made):
    """Rows written between plan and restore exist nowhere else."""
    world = made(PAIR)
    backup = back_up(world)
    world.sql("UPDATE public.parents SET name = 'edited' WHERE id = 1")
    row = plan(world, backup)
    world.sql("UPDATE public.parents SET name = 'at the last moment' WHERE id = 1")

    done = confirm(world, row)  # the same row is lost: no more than was confirmed

    assert done.status == "COMPLETED", done.error
    assert world.sql("SELECT name FROM public.parents WHERE id = 1") == [("p1",)]
    before = next(b for b in backups(world) if b.id == done.pre_restore_backup_id)
    assert (before.trigger_type, before.backup_type) == ("PRE_RESTORE", "INCREMENTAL")
    assert (before.parent_id, before.chain_id) == (backup.id, backup.id), "one row, not every row, under the locks"
    restore(world, before)
    assert world.sql("SELECT name FROM public.parents WHERE id = 1") == [("at the last moment",)]


def test_the_increment_under_the_locks_needs_no_table_that_is_locked(made):
    """To read rows of a type that is another table's, a session of its own would have to look at that table."""
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, n text);"
        "CREATE TABLE public.b (id int PRIMARY KEY, whole public.a);"
        "INSERT INTO public.a VALUES (1, 'x'); INSERT INTO public.b VALUES (1, ROW(1, 'x'))"
    )
    backup = back_up(world)
    world.sql("UPDATE public.b SET whole = ROW(2, 'y')")

    done = restore(world, backup)

    assert world.sql("SELECT (whole).n FROM public.b") == [("x",)]
    before = next(b for b in backups(world) if b.id == done.pre_restore_backup_id)
    assert before.backup_type == "FULL"


def test_a_backup_before_that_is_not_what_is_there_stops_the_restore(made, monkeypatch):
    """As where a machine was put back with its memory: no row says that it was written since."""
    world = made(PAIR)
    row = plan(world, back_up(world))
    world.sql("UPDATE public.parents SET name = 'nowhere else' WHERE id = 1")
    monkeypatch.setattr("engine.backups.increment.candidate", lambda *_: sql.SQL("false").format())

    done = confirm(world, row, max_losses=1)

    assert (done.status, done.error["reason"]) == ("ROLLED_BACK", "BACKUP_INCOMPLETE")
    assert world.sql("SELECT name FROM public.parents WHERE id = 1") == [("nowhere else",)]


def backups(world):
    return Backups(world.resources).list(world.caller, Paging(100)).items


def test_the_backup_says_that_it_was_restored_and_stays_good(made):
    world = made(PAIR)
    backup = back_up(world)

    restore(world, backup)
    restore(world, backup)

    found = next(b for b in backups(world) if b.id == backup.id)
    assert found.status == "RESTORED"
    assert found.restored_at is not None
