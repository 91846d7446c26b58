"""Databases that nobody here wrote: backed up, restored into an empty copy and over a damaged one, equal by row."""

from __future__ import annotations

import psycopg

from engine.backups.model import VerifyLevel
from engine.backups.service import Backups
from engine.db.platform import Platform
from engine.restores.structure import Structure
from tests.engine.imports.test_databases import SEQUENCES, TABLES, database, loaded
from tests.engine.restores.kit import back_up, confirm, plan

__all__ = ["database", "loaded"]


def definitions(world, dsn):
    with Platform(dsn).connect("test", autocommit=True) as connection:
        return Structure(connection, world.resources.catalogs.read(connection).entities()).definitions()


def test_every_row_comes_back_secrets_and_all(database):
    here, there = database.world(database.full), database.world(database.empty)
    defined = definitions(there, database.empty)
    backup = back_up(here)

    row = plan(there, backup)
    assert [n["code"] for n in row.plan["notices"]].count("OTHER_DATABASE") == 1
    done = confirm(there, row)

    assert done.status == "COMPLETED", done.error
    expected = database.rows(database.full)
    assert database.rows(database.empty) == expected
    assert sum(e["rows_after"] for e in done.report["entities"]) == sum(
        map(len, map(bytes.splitlines, expected.values()))
    )
    for sequence, table, column in there.sql(SEQUENCES):
        if column is not None:
            following = there.sql(f"SELECT nextval(%s), max({column}) + 1 FROM {table}", sequence)
            assert following[0][0] >= following[0][1], f"the next insert into {table} by {sequence}"
    assert definitions(there, database.empty) == defined

    with psycopg.connect(
        database.empty, autocommit=True
    ) as connection:  # half of every table goes, whatever hangs on it
        connection.execute("SET session_replication_role = replica")
        for schema, table in connection.execute(TABLES).fetchall():
            connection.execute(f'DELETE FROM "{schema}"."{table}" WHERE (ctid::text::point)[1]::int % 2 = 0'.encode())
    assert database.rows(database.empty) != expected

    assert confirm(there, plan(there, backup)).status == "COMPLETED"

    assert database.rows(database.empty) == expected
    assert definitions(there, database.empty) == defined


def test_each_can_be_proven(database):
    here = database.world(database.full)
    backup = back_up(here)
    backups = Backups(here.resources)
    backups.verify(here.caller, backup.id, VerifyLevel.RESTORED, *here.request())
    here.work()

    found = backups.get(here.caller, backup.id).verifications
    assert [found[level]["good"] for level in VerifyLevel] == [True, True, True]
