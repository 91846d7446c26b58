"""A backup's rows into a table: binary as far as it goes, then text, and nothing of it shows."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from engine.backups import binary
from engine.backups.load import load
from engine.errors import DataLoss
from tests.engine.backups.kit import Told, archive_of, back_up

THINGS = """
CREATE TABLE public.things (id int PRIMARY KEY, day date, name text);
INSERT INTO public.things SELECT g, date '2026-01-01' + g % 1000, E'a\\\\b\\t' || g FROM generate_series(1, 5000) g;
CREATE TABLE public.loads ();
CREATE FUNCTION public.count_load() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.loads DEFAULT VALUES; RETURN NULL; END $$;
"""
COUNTED = "CREATE TRIGGER counted BEFORE INSERT ON public.{} EXECUTE FUNCTION public.count_load()"


class Stopped(Exception):
    """Somebody wants the work to end."""


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(binary, "PIECE", 5_000)


def loaded(world, archive, told, *, before="SELECT 1"):
    """The rows of a table that was filled in a session of its own, and the number of COPY statements."""
    with world.resources.platform.connect("test") as connection:
        connection.execute("TRUNCATE public.things, public.loads")
        connection.execute(COUNTED.format("things").encode())
        connection.execute(before.encode())
        backed = archive.manifest.entity("things")
        copied = load(told, connection, archive, backed, sql.Identifier("public", "things"), backed.column_names)
        rows = connection.execute("SELECT (t.*)::text FROM public.things t ORDER BY id").fetchall()
        (loads,) = connection.execute("SELECT count(*) FROM public.loads").fetchone()
        assert copied == len(rows)
        return rows, loads


def rows_of(world):
    return world.sql("SELECT (t.*)::text FROM public.things t ORDER BY id")


@pytest.mark.parametrize(("odd", "loads"), [((), 1), ((1,), 2), ((4000,), 2), ((5000,), 2), ((2000, 3000), 2)])
def test_text_goes_on_where_a_value_is_none_of_arrows(made, small_pieces, odd, loads):
    world = made(THINGS)
    for number in odd:
        world.sql(f"UPDATE public.things SET day = 'infinity' WHERE id = {number}")
    archive, told = archive_of(world, back_up(world, "things")), Told(world)

    assert loaded(world, archive, told) == (rows_of(world), loads)
    assert told.rows == sorted(told.rows)
    assert told.rows[-1] == 5000
    assert len(told.rows) > 10


def test_a_long_row_goes_as_text(made, small_pieces, monkeypatch):
    monkeypatch.setattr(binary, "LONGEST", 20_000)
    world = made(THINGS)
    world.sql("UPDATE public.things SET name = repeat('long', 10000) WHERE id = 3000")
    archive = archive_of(world, back_up(world, "things"))

    assert loaded(world, archive, Told(world)) == (rows_of(world), 2)


def test_no_rows(made):
    world = made(THINGS)
    world.sql("TRUNCATE public.things")

    assert loaded(world, archive_of(world, back_up(world, "things")), Told(world)) == ([], 1)


@pytest.mark.parametrize("name", ["name", "day"])
def test_what_the_table_refuses_is_the_servers_own_error(made, small_pieces, name):
    """In the midst of the binary format as of the text, and the session can go on after it."""
    world = made(THINGS)
    if name == "day":
        world.sql("UPDATE public.things SET day = 'infinity' WHERE id = 1")
    archive = archive_of(world, back_up(world, "things"))

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        loaded(world, archive, Told(world), before="ALTER TABLE public.things ADD CONSTRAINT odd CHECK (id <> 700)")

    assert (caught.value.diag.table_name, caught.value.diag.constraint_name) == ("things", "odd")


@pytest.mark.parametrize("at", [1, 2])
def test_it_ends_when_it_should(made, small_pieces, at):
    """Whoever is asked says so at a block or at a piece, and all of it can be undone."""
    world = made(THINGS)
    archive = archive_of(world, back_up(world, "things"))
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == at:
            raise Stopped

    class Impatient(Told):
        def progress(self, **done):
            super().progress(**done)
            self.check()

    with pytest.raises(Stopped):
        loaded(world, archive, Impatient(world, stop))

    assert len(rows_of(world)) == 5000


def test_a_stream_that_is_another_than_the_manifests_is_an_error_at_its_end(made, small_pieces, monkeypatch):
    world = made(THINGS)
    archive = archive_of(world, back_up(world, "things"))
    segments = archive._open
    monkeypatch.setattr(archive, "_open", lambda *which: segments(*which).replace(b"4000", b"4001"))

    with pytest.raises(DataLoss, match="or other bytes"):
        loaded(world, archive, Told(world))
