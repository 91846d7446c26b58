"""The big list of naughty strings: each survives CSV and JSON to the byte."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.engine.formats.reading import DATA, read
from tests.fix_stack import skip_or_fail

FILE: Path = DATA / "text" / "blns.json"


@pytest.fixture(scope="module")
def strings() -> list[str]:
    if not FILE.is_file():
        skip_or_fail("DATAOPS_TEST_DATA names no folder with text/blns.json")
    found: list[str] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("quote", ['"', "'"])
def test_each_survives_csv(strings, quote):
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, quotechar=quote).writerows([["n", "s"], *enumerate(strings)])

    _, rows, broken = read(out.getvalue().encode(), quote=quote)

    assert not broken
    assert [(cells[1] or "").encode() for cells in rows.values()] == [s.encode() for s in strings]


@pytest.mark.parametrize("escaped", [True, False], ids=["ascii", "utf-8"])
@pytest.mark.parametrize("in_array", [True, False], ids=["array", "lines"])
def test_each_survives_json(strings, escaped, in_array):
    records = [{"n": n, "s": s} for n, s in enumerate(strings)]
    lines = "\n".join(json.dumps(record, ensure_ascii=escaped) for record in records)
    text = json.dumps(records, ensure_ascii=escaped) if in_array else lines

    _, rows, broken = read(text.encode(), "JSON")

    assert not broken
    assert [(cells[1] or "").encode() for cells in rows.values()] == [s.encode() for s in strings]


def test_each_is_a_column_s_name_in_json_too(strings):
    names = list(dict.fromkeys(strings))
    header, rows, _ = read(json.dumps([dict.fromkeys(names, "x")]).encode(), "JSON")

    assert header == tuple(names)
    assert rows == {1: ["x"] * len(names)}
