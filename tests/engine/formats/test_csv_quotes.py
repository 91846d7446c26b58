"""Quotes out of place: none passes in silence, none is seen where there is none, pyarrow agrees with the rest."""

from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import DataInvalid
from engine.formats import csv as csv_format
from engine.formats.csv import CsvReader
from engine.formats.csv_quotes import QuoteTest


def records(data: bytes, **options: Any) -> dict[int, list[str]]:
    """Each record's cells by its number; NULL as the empty text, broken records as their text alone."""
    reader = CsvReader(lambda: io.BytesIO(data), **options)
    found: dict[int, list[str]] = {}
    for batch in reader.batches():
        cells = [column.to_pylist() for column in batch.cells.columns]
        found |= {n: [c[i] or "" for c in cells] for i, n in enumerate(batch.rows.to_pylist())}
        found |= {b.row: [] for b in batch.broken}
    return found


def strict(text: str) -> dict[int, list[str]] | str:
    """The same by the standard library, or its error."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        return str(error)
    found = {n: cells if len(cells) == 2 else [] for n, cells in enumerate(rows[1:], 2) if cells}
    return {n: cells for n, cells in found.items() if cells != ["", ""]}


@settings(max_examples=1500, deadline=None)
@given(st.text('"",,\nax', max_size=24))
@example('"a,"b,"c"\n')
@example('"a,"b c",d",\n')
@example('""x,1\n')
@example('a,"b"c\n')
@example('5" pipe,1\n')
@example(',""""x"\n')
def test_pyarrow_and_the_strict_reader_agree_or_the_file_is_refused(body):
    expected = strict("a,b\n" + body)
    if isinstance(expected, str):
        with pytest.raises(DataInvalid) as caught:
            records(("a,b\n" + body).encode())

        unterminated = "unexpected end" in expected
        assert caught.value.reason == ("FILE_UNTERMINATED_QUOTE" if unterminated else "FILE_TEXT_AFTER_QUOTE")
    else:
        # a record of empty cells is blank when they are bare: NULL and the empty text are one to the standard library
        found = records(("a,b\n" + body).encode())
        assert {n: cells for n, cells in found.items() if cells != ["", ""]} == expected


@settings(max_examples=500, deadline=None)
@given(st.text('"",,\nax', max_size=24), st.lists(st.integers(0, 24), max_size=4))
def test_the_cheap_test_lets_nothing_pass_however_the_blocks_are_cut(body, cuts):
    test = QuoteTest(",", '"')
    edges = [0, *sorted(cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            test.see(body[start:end].encode())
    test.see(b"\n")

    test.see(b"")

    if isinstance(found := strict("a,b\n" + body), str):
        assert test.alarmed or ("unexpected end" in found and test.quotes % 2)


@pytest.mark.parametrize(
    "body",
    [
        '1,"x"\n"y","z"\r\n"",""\n',
        '1,"{""a"": ""b"", ""c"": [""d""]}"\n',
        '"say ""hi""","""quoted"""\n',
        '1,"two\nlines"\n2,"a ""quoted""\nline"\n',
    ],
)
def test_honest_quotes_raise_no_alarm(body):
    test = QuoteTest(",", '"')
    for at in range(0, len(body), 3):
        test.see(body[at : at + 3].encode())
    test.see(b"\n")

    assert not test.alarmed


def test_text_after_a_quote_is_named_by_its_line_even_in_a_later_block(monkeypatch):
    monkeypatch.setattr(csv_format, "BLOCK", 4096)
    body = '1,"one\nrecord"\n' * 2_000

    with pytest.raises(DataInvalid) as caught:
        records(("a,b\n" + body + '2,"x"y\n' + body).encode())

    assert caught.value.reason == "FILE_TEXT_AFTER_QUOTE"
    assert caught.value.metadata["line"] == "4002"


def test_a_literal_quote_in_a_bare_cell_stays_text():
    assert records(b'a,b\n5" pipe,x\n6" pipe,y\n7" pipe,z\n') == {
        2: ['5" pipe', "x"],
        3: ['6" pipe', "y"],
        4: ['7" pipe', "z"],
    }


def test_another_quote_is_a_quote_and_the_usual_one_is_text():
    assert records(b"a,b\n'x, ''y''','5\"'\n", quote="'") == {2: ["x, 'y'", '5"']}


@pytest.mark.parametrize(("option", "value"), [("quote", "|"), ("quote", ""), ("delimiter", '"'), ("delimiter", "::")])
def test_an_option_that_cannot_be_is_refused(option, value):
    with pytest.raises(DataInvalid, match="OPTION_INVALID"):
        records(b"a,b\n", **{option: value})
