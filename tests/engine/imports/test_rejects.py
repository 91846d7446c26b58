"""The reject file has the input's own shape, holds every value as it was, and comes back once corrected."""

from __future__ import annotations

import gzip
import json

import pytest

from engine.imports.model import ImportOptions, ReportPart
from engine.imports.rejects import reject_name

LINES = (
    b'{"id": 2, "note": "a", "price": 1.10}\n'
    b'{"id":"x","note":"b \\u00e9","price":12345678901234567890.1234567890}\n'
    b'{"id":4,"note":"c","price":-1}\n'
    b'{"id":5,"note":"d"}\n'
    b'{"id":6,"note":"e","id":7,"price":null}\n'
    b'{"id":8,"note":"f","price":1,"extra":[1,\t2]}\n'
    b'{"id":9,"note":"\\ud800","price":1}\n'
    b"[10]\n"
    b'{"id":11,"note":"g","price":2}\n'
)
CODES = [
    "INVALID_VALUE",
    "CHECK_VIOLATED",
    "FIELD_ABSENT",
    "FIELD_DUPLICATE",
    "FIELD_UNKNOWN",
    "INVALID_TEXT",
    "RECORD_NOT_OBJECT",
]
ARRAY = b"[" + LINES.strip().replace(b"\n", b",\n") + b"]"


@pytest.mark.parametrize(
    ("file_format", "data"), [("JSON", ARRAY), ("JSON_LINES", LINES), ("JSON", gzip.compress(ARRAY))]
)
def test_rejected_json_holds_every_record_as_it_was_and_why(things, file_format, data):
    row = things.load("things", data, format=file_format)
    rejects = things.read(row.rejects_artifact_id).decode()
    lines = rejects.splitlines() if file_format == "JSON_LINES" else rejects[1:-3].strip().split(",\n")
    found = [json.loads(line, object_pairs_hook=list, parse_float=str) for line in lines]

    assert row.report["inserted"] == 2
    if file_format == "JSON":
        assert len(json.loads(rejects)) == 7
    assert [dict(record)["_row"] for record in found] == [2, 3, 4, 5, 6, 7, 8]
    assert [dict(record)["_code"] for record in found] == CODES
    assert lines[0].startswith('{"id":"x","note":"b \\u00e9","price":12345678901234567890.1234567890,"_row":2,')
    assert [pair for pair in found[3] if pair[0] == "id"] == [("id", 6), ("id", 7)]
    assert '"extra":[1,\t2],' in lines[4]
    assert '"note":"\\ud800",' in lines[5]
    assert lines[6].startswith('{"_record":[10],"_row":8,')


@pytest.mark.parametrize(("file_format", "data"), [("JSON", ARRAY), ("JSON_LINES", LINES)])
def test_rejected_json_comes_back_once_it_is_corrected(things, file_format, data):
    row = things.load("things", data, format=file_format)
    corrected = things.read(row.rejects_artifact_id).decode()
    for wrong, right in [
        ('"x"', "3"),
        ("12345678901234567890.1234567890", "1.5"),
        ('"price":-1', '"price":1'),
        ('"note":"d"', '"note":"d","price":null'),
        ('"id":6,"note":"e","id":7', '"id":6,"note":"e"'),
        (',"extra":[1,\t2]', ""),
        ("\\ud800", "whole"),
        ('"_record":[10]', '"id":10,"note":null,"price":0'),
    ]:
        assert wrong in corrected
        corrected = corrected.replace(wrong, right)

    row = things.load("things", corrected.encode(), format=file_format)

    assert (row.report["inserted"], row.failed_records) == (7, 0)
    assert things.sql("SELECT id, note FROM public.things WHERE id > 1 ORDER BY id") == [
        (2, "a"), (3, "b é"), (4, "c"), (5, "d"), (6, "e"), (8, "f"), (9, "whole"), (10, None), (11, "g"),
    ]  # fmt: skip


def test_rejected_csv_keeps_delimiter_quote_null_and_encoding(things):
    csv = {"delimiter": ";", "quote": "'", "null_text": "NULL", "encoding": "windows-1252"}
    data = "id;note;code\n2;'it''s é';TWO\nx;'NULL';NULL\ny;;'A;B'\n".encode("cp1252")

    row = things.load("things", data, csv=csv)
    rejects = things.read(row.rejects_artifact_id).decode("cp1252")

    header, *lines = rejects.splitlines()
    assert header == "id;note;code;_row;_code;_field;_message"
    assert [line.split(";")[:3] for line in lines] == [["'x'", "'NULL'", "NULL"], ["'y'", "''", "'A"]]

    corrected = rejects.replace("'x'", "'3'").replace("'y'", "'4'").replace("'A;B'", "'AB'")
    row = things.load("things", corrected.encode("cp1252"), csv=csv)

    assert row.failed_records == 0
    assert things.sql("SELECT id, note, code::text FROM public.things WHERE id > 1 ORDER BY id") == [
        (2, "it's é", "TWO"),
        (3, "NULL", None),
        (4, "", "AB"),
    ]


def test_a_secret_stands_in_no_reject_file_not_even_under_a_wrong_name(made):
    world = made("CREATE TABLE public.people (id integer PRIMARY KEY, password_hash text)")
    data = (
        b'[{"id":"x","password_hash":"hush1"},{"id":2,"password_hash":"hush2","Password":"hush3"},'
        b'{"id":3,"password_hash":"hush4","password_hash":"hush5"},["hush6"]]'
    )

    row = world.load("people", data, format="JSON")
    rejects = world.read(row.rejects_artifact_id).decode()

    assert "hush" not in rejects
    assert [record["_code"] for record in json.loads(rejects)] == [
        "INVALID_VALUE",
        "FIELD_UNKNOWN",
        "FIELD_DUPLICATE",
        "RECORD_NOT_OBJECT",
    ]
    assert all("hush" not in error.message + error.value for error in world.errors(row))


def test_a_reject_file_is_named_after_the_format(things):
    assert reject_name(ImportOptions()) == ("rejects.csv", "text/csv")
    row = things.load("things", LINES, format="JSON_LINES")
    file = things.imports.report_part(things.caller, row.id, ReportPart.REJECTS)

    assert (file.name.rpartition("-")[2], file.media_type) == ("rejects.jsonl", "application/x-ndjson")
