"""JSON in: every value as the file has it, every record by its number, every broken file refused by its place."""

from __future__ import annotations

import io
import json
import os
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DataInvalid
from engine.formats import json_chunks
from engine.formats.base import BrokenRow
from engine.formats.json import JsonReader
from tests.fix_stack import skip_or_fail

DATA = Path(os.environ.get("DATAOPS_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
SUITE = DATA / "json" / "JSONTestSuite"

Rows = list[tuple[int, list[str | None]]]


def read(data: bytes, **options: bool) -> tuple[tuple[str, ...], Rows, list[BrokenRow]]:
    reader = JsonReader(lambda: io.BytesIO(data), **options)
    rows: Rows = []
    broken: list[BrokenRow] = []
    for batch in reader.batches():
        assert batch.raw is not None
        cells = [column.to_pylist() for column in batch.cells.columns]
        here = [(n, [c[i] for c in cells]) for i, n in enumerate(batch.rows.to_pylist())]
        assert len(batch.raw()) == len(here)
        rows += here
        broken += batch.broken
    return reader.header, rows, broken


def refusal(data: bytes, **options: bool) -> DataInvalid:
    with pytest.raises(DataInvalid) as caught:
        read(data, **options)
    return caught.value


@pytest.fixture(params=[False, True], ids=["lines", "array"])
def written(request):
    """Records, as bytes of the file they make, and the numbers they have there."""

    def write(*records: bytes) -> tuple[bytes, list[int]]:
        numbers = list(range(1, len(records) + 1))
        return (b"[%b]" % b",\n".join(records) if request.param else b"\n".join(records) + b"\n"), numbers

    return write


def test_every_kind_of_value_is_the_text_that_stands_in_the_file(written):
    values = [
        b"null",
        b'"null"',
        b'""',
        b"true",
        b"false",
        b"-0.10e+05",
        b"1" * 500,
        b'{"x": [1.0,\t2]}',
        b'"\\u00e9\\n"',
    ]
    data, _ = written(b'{"v":%b}' % b'"a"', *(b'{"v":%b}' % v for v in values))

    texts = [None, "null", "", "true", "false", "-0.10e+05", "1" * 500, '{"x": [1.0,\t2]}', "é\n"]
    assert [cells for _, cells in read(data)[1]] == [["a"], *([t] for t in texts)]


def test_the_order_of_keys_is_the_first_record_s(written):
    data, numbers = written(b'{"a":1,"b":"x"}', b'{"b":"y","a":2}', b'{ "b" : "z" , "a" : 3 }')

    assert read(data) == (("a", "b"), list(zip(numbers, [["1", "x"], ["2", "y"], ["3", "z"]], strict=True)), [])


@pytest.mark.parametrize(
    ("record", "code", "named"),
    [
        (b'{"a":1,"b":2,"c":3}', "FIELD_UNKNOWN", "'c'"),
        (b'{"a":1}', "FIELD_ABSENT", "'b'"),
        (b"{}", "FIELD_ABSENT", "'a'"),
        (b'{"a":1,"b":2,"a":3}', "FIELD_DUPLICATE", "'a'"),
        (b'{"a":1,"b":2,"\\u0061":3}', "FIELD_DUPLICATE", "'a'"),
        (b'{"a":1,"b":2,"a" :3}', "FIELD_DUPLICATE", "'a'"),
        (b'{"a":1,"b":"\\u0022:","a":"x"}', "FIELD_DUPLICATE", "'a'"),
        (b'{"a":1,"b":"\\"\\u003A","a":"x"}', "FIELD_DUPLICATE", "'a'"),
        (b'{"a":1,"b":"\\ud800"}', "INVALID_TEXT", "b"),
        (b'{"a":1,"b":"\\udc00\\ud800"}', "INVALID_TEXT", "b"),
        (b'{"a":1,"\\ud800":1}', "INVALID_TEXT", "ud800"),
        (b"[1]", "RECORD_NOT_OBJECT", "an array"),
        (b"7", "RECORD_NOT_OBJECT", "a number"),
        (b'"x"', "RECORD_NOT_OBJECT", "a string"),
        (b"null", "RECORD_NOT_OBJECT", "null"),
    ],
)
def test_a_record_that_does_not_fit_is_told_by_name_and_the_others_stay(written, record, code, named):
    data, numbers = written(b'{"a":0,"b":"p"}', record, b'{"a":9,"b":"q"}')

    _, rows, broken = read(data)

    assert rows == [(numbers[0], ["0", "p"]), (numbers[2], ["9", "q"])]
    assert [(b.row, b.code, b.text) for b in broken] == [(numbers[1], code, record.decode())]
    assert named in broken[0].message


def test_a_doubled_key_is_seen_among_many_records_however_they_are_written(written):
    records = [b'{"a":"x","b":"t \\" : \\":"}'] * 5000
    for at, odd in ((1000, b'{"a":"x","a":"y","b":"z"}'), (4000, b'{"a" :"x","b":"z","a":"y"}')):
        records[at] = odd
    data, _ = written(*records)

    assert [b.row for b in read(data)[2]] == [1001, 4001]


def test_a_doubled_key_is_not_made_up_for_by_a_text_that_says_the_same(written, monkeypatch):
    """A column of text is compared as it reads, where `\\u0022:` says what ends a key and does not stand there."""
    monkeypatch.setattr(json_chunks, "BLOCK", 4096)
    records = [b'{"a":"x","b":"t"}'] * 2000
    records[1500] = b'{"a":"x","a":"y","b":"t"}'
    records[1501] = b'{"a":"x","b":"\\u0022:"}'
    data, _ = written(*records)

    assert [b.row for b in read(data)[2]] == [1501]


def test_lines_are_numbered_as_an_editor_numbers_them():
    data = b'\n\n{"a":1}\r\n\n  {"a":2}  \n{"a"\n:\n3}\n{"a":4}'

    assert read(data)[1] == [(3, ["1"]), (5, ["2"]), (6, ["3"]), (9, ["4"])]


def test_what_is_absent_is_null_when_the_caller_says_so(written):
    data, numbers = written(b'{"a":"1"}', b'{"b":"2","a":null}', b'{"c":3}', b"{}")

    header, rows, broken = read(data, absent_is_null=True)

    assert header == ("a", "b", "c")
    assert rows == list(
        zip(numbers, [["1", None, None], [None, "2", None], [None, None, "3"], [None] * 3], strict=True)
    )
    assert not broken


def test_absent_fields_do_not_hide_a_doubled_one(written):
    data, _ = written(*[b'{"a":"1"}', b'{"a":"1","b":"2"}'] * 500, b'{"a":"1","a":"2"}')

    assert [b.code for b in read(data, absent_is_null=True)[2]] == ["FIELD_DUPLICATE"]


def test_names_that_a_struct_cannot_have_are_columns_too(written):
    data, numbers = written(b'{"":1,"a\\"b":2,"c\\\\d":3,"\\n":4}')

    assert read(data) == (("", 'a"b', "c\\d", "\n"), [(numbers[0], ["1", "2", "3", "4"])], [])


def test_a_nul_stays_in_its_cell_and_is_told(written):
    data, _ = written(b'{"a":"x\\u0000y"}')
    (batch,) = JsonReader(lambda: io.BytesIO(data)).batches()

    assert batch.has_nul
    assert batch.cells.column(0).to_pylist() == ["x\0y"]


def test_a_byte_order_mark_is_no_part_of_the_file():
    assert read(b"\xef\xbb\xbf" + b'[{"a":1}]')[1] == [(1, ["1"])]


def test_a_file_without_records_has_no_header():
    assert read(b" [ ] ") == ((), [], [])


def test_a_file_without_objects_has_no_header_and_tells_each_record():
    header, rows, broken = read(b"[1,{},[]]")

    assert (header, rows) == ((), [])
    assert [(b.row, b.code) for b in broken] == [
        (1, "RECORD_NOT_OBJECT"),
        (2, "FIELD_ABSENT"),
        (3, "RECORD_NOT_OBJECT"),
    ]


@pytest.mark.parametrize(
    ("data", "offset", "line"),
    [
        (b'{"a":1}\n{"a":2\n{"a":3}\n', 15, 3),
        (b'{"a":1}{"a":2}', 7, 1),
        (b'[{"a":1} {"a":2}]', 9, 1),
        (b'[{"a":1},]', 9, 1),
        (b'[{"a":1}', 8, 1),
        (b'[{"a":1}]\n]', 10, 2),
        (b'[{"a":1}]{"a":2}', 9, 1),
        (b"[", 1, 1),
        (b'{"a":NaN}', 5, 1),
        (b'{"a":-Infinity}', 6, 1),
        (b'\xef\xbb\xbf{"a":01}', 9, 1),
        (b'{"a":"x\ty"}', 7, 1),
        (b'{"a":"\\x"}', 6, 1),
        (b"{'a':1}", 1, 1),
        (b'{"a":1,}', 7, 1),
        (b'{"a":tru', 5, 1),
        (b'{"a":"x', 7, 1),
        (b"hello", 0, 1),
    ],
)
def test_what_is_no_json_is_refused_by_its_place(data, offset, line):
    error = refusal(data)

    assert (error.reason, error.metadata) == ("FILE_NOT_JSON", {"offset": str(offset), "line": str(line)})


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b'[{"a":' + b"[" * 100_000, b'{"a":1}\n' + b"[" * 9999]
)
def test_a_bomb_of_depth_is_refused_at_once(data):
    started = time.process_time()  # of the processor: the machine may be busy with other things

    assert refusal(data).reason == "FILE_NOT_JSON"
    assert time.process_time() - started < 5


def test_a_depth_that_is_borne_is_the_same_in_either_decoder(written):
    deep = b"[" * 900 + b"]" * 900
    data, _ = written(b'{"a":1}', b'{"a":%b}' % deep)

    assert read(data)[1][1][1] == [deep.decode()]


@pytest.mark.parametrize("data", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_a_file_without_content_is_empty(data):
    assert refusal(data).reason == "FILE_EMPTY"


def test_broken_utf8_is_named_by_its_byte():
    data = b'{"a":"\xc3\xa9"}\n' * 300_000

    error = refusal(data + b'{"a":"\xff"}')

    assert (error.reason, error.metadata["offset"]) == ("FILE_NOT_UTF8", str(len(data) + 6))
    assert refusal('{"a":1}'.encode("utf-16")).reason == "FILE_NOT_UTF8"


def test_a_record_larger_than_a_block_is_refused_and_one_just_smaller_is_read(written, monkeypatch):
    monkeypatch.setattr(json_chunks, "BLOCK", 4096)
    for size, fits in ((4000, True), (4200, False), (9000, False)):
        data, _ = written(b'{"a":"1"}', b'{"a":"%b"}' % (b"x" * size), b'{"a":"2"}')
        if fits:
            assert len(read(data)[1]) == 3
        else:
            assert refusal(data).reason == "FILE_RECORD_TOO_LARGE"


text = st.text(st.characters(codec="utf-8", exclude_characters="\x01"))
value = st.recursive(
    st.none() | st.booleans() | st.integers() | text | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab":', max_size=2), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(value | text, min_size=2, max_size=2), min_size=1, max_size=12),
    st.sampled_from([("a", "b"), ("a", 'b":')]),
    st.sampled_from([None, 1]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    st.booleans(),
    st.booleans(),
    st.integers(40, 400),
)
def test_whatever_a_json_writer_writes_is_read_as_it_stands(table, names, indent, marks, escaped, in_array, block):
    """Against the standard library, which keeps a number's digits when told to; in blocks of any size."""
    records = [dict(zip(names, map(_marked, row), strict=True)) for row in table]
    written = [json.dumps(r, indent=indent, separators=marks, ensure_ascii=escaped) for r in records]
    written = [re.sub(r'"\\u0001(.*?)\\u0001"', r"\1", text) for text in written]
    data = (f"[{marks[0].join(written)}]" if in_array else "\n".join(written)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_chunks, "BLOCK", max(block, *(len(text.encode()) + 8 for text in written), 0))
        header, rows, broken = read(data)

    assert header == names
    assert not broken
    for (_, cells), row in zip(rows, table, strict=True):
        expected = [str(value) if isinstance(value, Decimal) else value for value in row]
        assert [_said(*pair) for pair in zip(cells, row, strict=True)] == expected


def _marked(found: object) -> object:
    """With decimals as marked texts: the standard library cannot write one with all its digits."""
    if isinstance(found, Decimal):
        return f"\x01{found}\x01"
    if isinstance(found, list):
        return [_marked(item) for item in found]
    if isinstance(found, dict):
        return {name: _marked(item) for name, item in found.items()}
    return found


def _said(cell: str | None, original: object) -> object:
    """The cell in the original's kind; of a decimal the very characters."""
    if cell is None or isinstance(original, str | Decimal):
        return cell
    return json.loads(cell, parse_float=Decimal)


@pytest.mark.parametrize("path", sorted(SUITE.glob("*.json")), ids=lambda p: p.stem)
@pytest.mark.parametrize("place", ["file", "field"])
def test_json_test_suite(path, place):
    """y_ is accepted, n_ refused with a place, i_ either: never a crash and never a hang."""
    case = path.read_bytes()
    data = case if place == "file" else b'[{"v": %b}]' % case
    accepted = True
    try:
        read(data)
    except DataInvalid as error:
        accepted = False
        assert error.reason in ("FILE_NOT_JSON", "FILE_NOT_UTF8", "FILE_EMPTY")
        assert "offset" in error.metadata or error.reason == "FILE_EMPTY"

    if path.name.startswith("y_"):
        assert accepted
    elif path.name.startswith("n_"):
        assert not accepted


def test_the_suite_of_others_is_there():
    if not DATA.is_dir():
        skip_or_fail("DATAOPS_TEST_DATA names no folder")
    assert len(list(SUITE.glob("*.json"))) == 318
