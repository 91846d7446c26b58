"""CSV in: every cell as the file has it, every record under its own number, every broken file refused by name."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataInvalid
from engine.formats import csv as csv_format
from engine.formats.base import BLOCK
from engine.formats.csv import CsvReader
from tests.fix_stack import skip_or_fail

DATA = Path(os.environ.get("DATAOPS_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def read(data: bytes, **options: Any) -> tuple[tuple[str, ...], list[tuple[int, list[str | None]]], list]:
    reader = CsvReader(lambda: io.BytesIO(data), **options)
    rows: list[tuple[int, list[str | None]]] = []
    broken: list = []
    for batch in reader.batches():
        cells = [column.to_pylist() for column in batch.cells.columns]
        rows += [(n, [c[i] for c in cells]) for i, n in enumerate(batch.rows.to_pylist())]
        broken += batch.broken
    return reader.header, rows, broken


def reason(data: bytes, **options: str) -> DataInvalid:
    with pytest.raises(DataInvalid) as caught:
        read(data, **options)
    return caught.value


def test_null_is_an_empty_cell_and_empty_text_is_a_quoted_one():
    assert read(b'a,b\n,""\n')[1] == [(2, [None, ""])]


@pytest.mark.parametrize("end", ["", "\n", "\r", "\r\n"], ids=["no end", "LF", "CR", "CRLF"])
@pytest.mark.parametrize(
    ("last", "cells"),
    [('"x",', ["x", None]), ("x,", ["x", None]), ('"",', ["", None]), ('x,""', ["x", ""]), ('"x","y"', ["x", "y"])],
)
def test_the_last_record_is_the_same_with_and_without_a_line_end(last, cells, end):
    assert read(f"a,b\n1,2\n{last}{end}".encode()) == (("a", "b"), [(2, ["1", "2"]), (3, cells)], [])


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_last_record_without_a_line_end_may_fill_a_block(monkeypatch, over):
    monkeypatch.setattr(csv_format, "BLOCK", 4096)
    last = "y" * (2048 + over - len(',""')) + ',""'
    data = f"a,b\n{'x' * 2046},\n{last}".encode()

    assert read(data)[1] == [(2, ["x" * 2046, None]), (3, [last[:-3], ""])]


def test_a_header_without_a_line_end_has_no_record():
    assert read(b"a,b") == (("a", "b"), [], [])


def test_a_null_text_of_ones_own_stands_for_null_only_unquoted():
    assert read(b'a,b,c\nNULL,"NULL",\n', null_text="NULL")[1] == [(2, [None, "NULL", ""])]


def test_records_are_numbered_as_a_spreadsheet_numbers_them():
    header, rows, broken = read(b'a,b\n1,"x\ny"\n\n3,4,5\n6,7\n')

    assert header == ("a", "b")
    assert rows == [(2, ["1", "x\ny"]), (5, ["6", "7"])]
    assert [(b.row, b.text, b.message) for b in broken] == [(4, "3,4,5", "found 3 fields, expected 2")]


def test_numbers_stay_right_across_blocks_and_broken_records(monkeypatch):
    monkeypatch.setattr(csv_format, "BLOCK", 4096)
    lines = [b"%d" % i if i % 97 == 0 else b"%d,%d" % (i, i) for i in range(1, 20_000)]

    _, rows, broken = read(b"a,b\n" + b"\n".join(lines))

    assert [n for n, cells in rows] == [int(cells[0] or "") + 1 for _, cells in rows]
    assert [b.row for b in broken] == [i + 1 for i in range(1, 20_000) if i % 97 == 0]


def test_a_file_of_broken_records_only_reports_them_all():
    _, rows, broken = read(b"a,b\n1\n2\n3,4,5\n")

    assert rows == []
    assert [b.row for b in broken] == [2, 3, 4]


def test_lines_of_delimiters_alone_are_blank():
    assert read(b"a,b\n,\n1,2\n,\n")[1] == [(3, ["1", "2"])]


def test_a_header_without_records_is_a_file_of_no_records():
    assert read(b"a,b\n") == (("a", "b"), [], [])
    assert read(b"a,b") == (("a", "b"), [], [])


def test_a_byte_order_mark_is_no_part_of_the_first_column():
    assert read(codecs.BOM_UTF8 + b"a,b\n1,2\n")[0] == ("a", "b")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_is_one(end):
    assert read(b"a,b" + end + b"1,2" + end + b"3,4")[1] == [(2, ["1", "2"]), (3, ["3", "4"])]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "FILE_EMPTY"),
        (b"  \n", "FILE_EMPTY"),
        (b",,\n1,2,3\n", "FILE_NOT_CSV"),
        (b'a,"b\n1,2\n', "FILE_NOT_CSV"),
        (b'a,b\n1,"2\n3,4\n', "FILE_UNTERMINATED_QUOTE"),
        ("a,b\n1,2\n".encode("utf-16"), "FILE_NOT_UTF8"),
        (b"a,b\n1,\xff\n", "FILE_NOT_UTF8"),
        (b"a,b\n1,\xc3", "FILE_NOT_UTF8"),
        (b"caf\xe9,b\n1,2\n", "FILE_NOT_UTF8"),
        (b"a,b\n1," + b"x" * (BLOCK * 2 + 9) + b"\n", "FILE_RECORD_TOO_LARGE"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_by_name(data, expected):
    assert reason(data).reason == expected


def test_broken_utf8_is_named_by_its_byte_even_after_a_mark_and_in_a_later_block(monkeypatch):
    monkeypatch.setattr(csv_format, "BLOCK", 1024)
    good = codecs.BOM_UTF8 + b"a,b\n" + "é,ü\n".encode() * 40_000

    error = reason(good + b"1,\xff\n")

    assert error.metadata["offset"] == str(len(good) + 2)


def test_an_open_quote_is_named_by_its_line():
    assert reason(b'a,b\n1,2\n3,4\n5,"6\n7,8\n').metadata["line"] == "4"


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=3, max_size=3),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_a_csv_writer_writes_is_read_back(table):
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *table])

    _, rows, broken = read(out.getvalue().encode())

    assert [cells for _, cells in rows] == table
    assert not broken


@pytest.mark.parametrize("path", sorted((DATA / "csv/csv-spectrum/csvs").glob("*.csv")), ids=lambda p: p.stem)
def test_csv_spectrum_reads_as_its_json_says(path):
    expected = json.loads((path.parents[1] / "json" / f"{path.stem}.json").read_text(encoding="utf-8"))
    header, rows, _ = read(path.read_bytes())
    if isinstance(expected, dict):  # the corpus says one object here, and another phone number than its own file
        expected = [expected | {"Contact Phone Number": "2095257564"}]

    assert [{h: c or "" for h, c in zip(header, cells, strict=True)} for _, cells in rows] == expected


def test_the_files_of_others_are_there():
    if not DATA.is_dir():
        skip_or_fail("DATAOPS_TEST_DATA names no folder")
    assert list((DATA / "csv/csv-spectrum/csvs").glob("*.csv"))
