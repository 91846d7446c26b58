"""How others lost, mangled or leaked what they exported: each accident by its name, and that it does not come here."""

from __future__ import annotations

import io
import json
import threading
import time

import psycopg
import pytest

from engine.errors import InvalidRequest
from engine.formats.bundle_reader import BundleReader
from engine.formats.csv import CsvReader
from engine.imports.decode import without_guard
from examples.stack.servers import PostgresServer
from tests.engine.exports.kit import begin, export, ordered, records, where

ORDERS = """
CREATE TABLE public.customers (id int PRIMARY KEY, orders int NOT NULL DEFAULT 0);
CREATE TABLE public.orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES public.customers);
CREATE TABLE public.lines (id int PRIMARY KEY, ordered int NOT NULL REFERENCES public.orders);
INSERT INTO public.customers SELECT g, 1 FROM generate_series(1, 3000) g;
INSERT INTO public.orders SELECT g, g FROM generate_series(1, 3000) g;
INSERT INTO public.lines SELECT g, g FROM generate_series(1, 3000) g;
"""


def test_export_is_not_one_moment(made):
    """Rows came and went between two tables, and a bundle held orders of nobody. Here references are closed, and sums
    that a transaction keeps are kept."""
    world, stop, rounds = made(ORDERS), threading.Event(), []

    def write(first: int) -> None:
        with psycopg.connect(world.resources.platform.dsn, autocommit=True) as connection:
            number = first
            while not stop.is_set() and number - first < 2_980:  # as long as there are rows that can go
                number += 10
                gone = number - first
                with connection.transaction():
                    connection.execute("INSERT INTO public.customers VALUES (%s, 1)", (number,))
                    connection.execute("INSERT INTO public.orders VALUES (%s, %s)", (number, number))
                    connection.execute("INSERT INTO public.lines VALUES (%s, %s)", (number, number))
                    connection.execute("DELETE FROM public.lines WHERE id = %s", (gone + first % 10,))
                    connection.execute("DELETE FROM public.orders WHERE id = %s", (gone + first % 10,))
                    connection.execute("UPDATE public.customers SET orders = 0 WHERE id = %s", (gone + first % 10,))
                rounds.append(number)

    writers = [threading.Thread(target=write, args=(first,)) for first in (100_001, 200_002, 300_003)]
    for writer in writers:
        writer.start()
    try:
        while len(rounds) < 50:
            time.sleep(0.01)
        found = [export(world, kind="FULL", format="BUNDLE")[1] for _ in range(3)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()

    for data in found:
        reader = BundleReader(io.BytesIO(data), max_bytes=1 << 30)
        rows = {
            e.entity: [json.loads(x) for x in reader.open(e.entity).read().splitlines()]
            for e in reader.manifest.entities
        }
        customers, orders = ({row["id"] for row in rows[name]} for name in ("customers", "orders"))
        assert [len(rows[e.entity]) for e in reader.manifest.entities] == [e.rows for e in reader.manifest.entities]
        assert len(customers) == len(rows["customers"])
        assert {row["customer"] for row in rows["orders"]} <= customers
        assert {row["ordered"] for row in rows["lines"]} <= orders
        assert sum(row["orders"] for row in rows["customers"]) == len(rows["orders"]) == len(rows["lines"]) == 3000
    assert len(rounds) > 50


def cells_of(data: bytes) -> list[dict[str, str | None]]:
    """A CSV file as our own reader has it, the guard undone."""
    found: list[dict[str, str | None]] = []
    reader = CsvReader(lambda: io.BytesIO(data))
    for batch in reader.batches():
        found += [dict(zip(reader.header, r.values(), strict=True)) for r in without_guard(batch).cells.to_pylist()]
    return found


def json_rows(data: bytes) -> list[dict[str, str | None]]:
    return json.loads(data)


def test_null_empty_text_and_their_names_collapse(made):
    world = made("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    values = [None, "", "NULL", "null", r"\N", "None", "nil", '""', "''"]
    for number, value in enumerate(values):
        world.sql("INSERT INTO public.t VALUES (%s, %s)", number, value)

    assert [row["v"] for row in cells_of(export(world, "t")[1])] == values
    assert [row["v"] for row in json_rows(export(world, "t", format="JSON")[1])] == values


def test_spreadsheet_mangling(made):
    """Text columns keep their bytes."""
    world = made("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    values = [
        "007", "1234567890123456789", "1e5", "3-4", "1899-12-31", "2026-11-26T12:00:00+02:00", "true", "TRUE", "1.10",
        " 1", "1 ", "½", "0x10", "1_000", "1,5", "NaN", "Infinity", "#N/A", "MARCH1", "\u00a01",
    ]  # fmt: skip
    for number, value in enumerate(values):
        world.sql("INSERT INTO public.t VALUES (%s, %s)", number, value)

    plain = records(export(world, "t")[1])[1:]
    assert [v for _, v in plain] == values, "not even guarded"
    assert [row["v"] for row in json_rows(export(world, "t", format="JSON")[1])] == values


FORMULAS = [
    "=cmd|' /C calc'!A0", "+1", "-5", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u3000=1", "\u200b=1", "\ufeff=1",
    "＝1", "＋1", "－1", "＠1", "|x", "%x", "'=1", "''=1", "'", "' =1", "=", "a=1", "",
]  # fmt: skip
INERT = set("=+-@|%＝＋－＠\t\r\n")
BLANKS = " \t\r\n\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff\u200b"


def test_formula_escape_leaks_or_corrupts(made):
    """Inert in a spreadsheet, in headers too, and equal after the guard is undone: no two texts become one."""
    names = ["=h", " =h", "'=h", "h", "'h", "＝h", "-h"]
    columns = ", ".join(f'"{name}" text' for name in names)
    world = made(f"CREATE TABLE public.t (id int PRIMARY KEY, {columns})")
    for number, text in enumerate(FORMULAS):
        world.sql(f"INSERT INTO public.t VALUES (%s{', %s' * len(names)})", number, *[text] * len(names))

    _, data = export(world, "t")

    found = records(data)
    for cell in [cell for record in found for cell in record]:
        assert not (cell.lstrip(BLANKS)[:1] in INERT and cell.lstrip(BLANKS)), repr(cell)
        assert cell[:1] not in {"\t", "\r", "\n"}, repr(cell)
    assert [name.removeprefix("'") for name in found[0]] == ["id", *names]
    assert len(set(found[0])) == len(found[0])
    assert [list(row.values())[1:] for row in cells_of(data)] == [[text] * len(names) for text in FORMULAS]


def test_silent_transcoding(postgres: PostgresServer, make_world):
    """A platform in another encoding is read as UTF-8; bytes that are none are an error, never a U+FFFD."""
    with postgres.connect() as connection:
        for name, encoding in (("latin", "LATIN1"), ("ascii", "SQL_ASCII")):
            connection.execute(
                f"CREATE DATABASE {name}_export TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
            )
    try:
        for name, expected in (("latin", "COMPLETED"), ("ascii", "FAILED")):
            with postgres.connect(f"{name}_export") as connection:
                connection.execute("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
                connection.execute("SET client_encoding = 'LATIN1'" if name == "latin" else "SELECT 1")
                connection.execute(
                    "INSERT INTO public.t VALUES (1, convert_from('\\xfc', current_setting('server_encoding')))"
                )
                connection.commit()
            world = make_world(postgres.dsn(f"{name}_export"))
            for layout in ("CSV", "JSON", "BUNDLE"):
                row = begin(world, "t", format=layout)
                world.work()
                row = world.exports.get(world.caller, row.id)
                assert row.status == expected
                if expected == "FAILED":
                    assert row.error["reason"] == "TEXT_NOT_UTF8"
                    continue
                data = world.read(world.exports.download(world.caller, row.id).artifact_id)
                if layout == "BUNDLE":
                    data = BundleReader(io.BytesIO(data), max_bytes=1 << 20).open("t").read()
                assert "ü".encode() in data
            world.resources.close()
    finally:
        for name in ("latin", "ascii"):
            postgres.drop_database(f"{name}_export")


def test_secrets_in_bundles_and_logs(made):
    """Not in a file, a manifest, an error, an event, a record or the audit log; only their names in the manifest."""
    marker = "MARKER-7d1"
    world = made(
        "CREATE TABLE public.people (id int PRIMARY KEY, name text, password text, api_key text NOT NULL);"
        f"INSERT INTO public.people SELECT g, 'n', '{marker}', '{marker}' || g FROM generate_series(1, 50) g"
    )

    for layout in ("CSV", "JSON", "JSON_LINES", "BUNDLE"):
        data = export(world, "people", format=layout)[1]
        if layout == "BUNDLE":
            reader = BundleReader(io.BytesIO(data), max_bytes=1 << 20)
            manifest = reader.manifest.model_dump_json()
            assert reader.manifest.entities[0].secret_fields == ("password", "api_key")
            data += reader.open("people").read() + manifest.encode()
        assert marker.encode() not in data
        assert b"n" in data
    for selection in (where("password", "PREFIX", marker), where("api_key", "IN", marker), ordered("api_key")):
        with pytest.raises(InvalidRequest) as caught:
            begin(world, "people", kind="PARTIAL", selection=selection)
        assert caught.value.reason == "FIELD_SECRET"
        assert marker not in str(caught.value) + repr(caught.value.violations) + repr(caught.value.metadata)
    with psycopg.connect(world.resources.settings.control_dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'dataops'").fetchall()
        for (table,) in tables:
            kept = connection.execute(f"SELECT t::text FROM dataops.{table} t").fetchall()
            assert not [row for (row,) in kept if marker in row], table


@pytest.mark.parametrize("layout", ["CSV", "JSON", "JSON_LINES", "BUNDLE"])
def test_hidden_caps(made, layout):
    """100,001 rows, the last one present, the count shown is the count in the file."""
    world = made("CREATE TABLE public.t (id int PRIMARY KEY, v text)")
    world.sql("INSERT INTO public.t SELECT g, 'line' || chr(10) || g FROM generate_series(1, 100001) g")

    row, data = export(world, "t", format=layout)

    if layout == "BUNDLE":
        data = BundleReader(io.BytesIO(data), max_bytes=1 << 30).open("t").read()
    if layout == "CSV":
        found = {int(record[0]) for record in records(data)[1:]}
    else:
        lines = json.loads(data) if layout == "JSON" else [json.loads(line) for line in data.splitlines()]
        assert len(lines) == 100_001
        found = {line["id"] for line in lines}
    assert row.record_count == len(found) == 100_001
    assert max(found) == 100_001
    assert [entity["record_count"] for entity in row.entities] == [100_001]
