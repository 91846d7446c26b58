"""Malformed and tricky files, each with the outcome it must have: what is read and told, or the refusal's place."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.errors import DataInvalid
from tests.engine.formats.reading import read


@dataclass(frozen=True)
class Read:
    """The file is read: each good record's cells and each broken record's code, by number."""

    rows: dict[int, list[str | None]]
    broken: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """Nothing of the file is used: why and where."""

    reason: str
    at: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    expected: Read | Refused
    file_format: str = "CSV"
    options: dict[str, Any] = field(default_factory=dict)


def csv(name: str, data: bytes, expected: Read | Refused, **options: Any) -> Case:
    return Case(f"csv: {name}", data, expected, "CSV", options)


def json(name: str, data: bytes, expected: Read | Refused, **options: Any) -> Case:
    return Case(f"json: {name}", data, expected, "JSON", options)


def at(offset: int, line: int) -> dict[str, str]:
    return {"offset": str(offset), "line": str(line)}


WIDE = "WRONG_FIELD_COUNT"

CASES = [
    csv("nothing", b"", Refused("FILE_EMPTY")),
    csv("white space alone", b" \r\n \n", Refused("FILE_EMPTY")),
    csv("a mark alone", b"\xef\xbb\xbf", Refused("FILE_EMPTY")),
    csv("a header of nothing", b",\n1,2\n", Refused("FILE_NOT_CSV")),
    csv("a header with an open quote", b'a,"b\n1,2\n', Refused("FILE_NOT_CSV", {"line": "1"})),
    csv("a header with text after a quote", b'"a"x,b\n1,2\n', Refused("FILE_NOT_CSV", {"line": "1"})),
    csv("a header alone", b"a,b", Read({})),
    csv("a mark before the header", b"\xef\xbb\xbfa,b\n1,2\n", Read({2: ["1", "2"]})),
    csv("no line end at the end", b"a,b\n1,2", Read({2: ["1", "2"]})),
    csv("carriage returns alone", b"a,b\r1,2\r3,4\r", Read({2: ["1", "2"], 3: ["3", "4"]})),
    csv("line ends of three kinds", b"a,b\r\n1,2\n3,4\r5,6\n", Read({2: ["1", "2"], 3: ["3", "4"], 4: ["5", "6"]})),
    csv("a record too short", b"a,b\n1\n3,4\n", Read({3: ["3", "4"]}, {2: WIDE})),
    csv("a record too long", b"a,b\n1,2,3\n3,4\n", Read({3: ["3", "4"]}, {2: WIDE})),
    csv("an unquoted delimiter", b"a,b\n1,000,x\n", Read({}, {2: WIDE})),
    csv("blank lines between", b"a,b\n\n1,2\n,\n3,4\n", Read({3: ["1", "2"], 5: ["3", "4"]})),
    csv("NULL and the empty text", b'a,b\n,""\n', Read({2: [None, ""]})),
    csv("the words null and \\N", b"a,b\nnull,\\N\n", Read({2: ["null", "\\N"]})),
    csv("a NULL of one's own", b'a,b\n\\N,"\\N"\n', Read({2: [None, "\\N"]}), null_text="\\N"),
    csv("a line break in a cell", b'a,b\n"1\r\n1",2\n3,4\n', Read({2: ["1\r\n1", "2"], 3: ["3", "4"]})),
    csv("a doubled quote", b'a,b\n"say ""hi""",2\n', Read({2: ['say "hi"', "2"]})),
    csv("a quote in a bare cell", b'a,b\n5" pipe,2\n', Read({2: ['5" pipe', "2"]})),
    csv("text after a quote", b'a,b\n1,2\n"3"x,4\n', Refused("FILE_TEXT_AFTER_QUOTE", {"line": "3"})),
    csv("a space after a quote", b'a,b\n"1" ,2\n', Refused("FILE_TEXT_AFTER_QUOTE", {"line": "2"})),
    csv("text after an empty quoted cell", b'a,b\n""x,2\n', Refused("FILE_TEXT_AFTER_QUOTE", {"line": "2"})),
    csv("a backslash before a quote", b'a,b\n"1\\"2",3\n', Refused("FILE_TEXT_AFTER_QUOTE", {"line": "2"})),
    csv("a space before a quote", b'a,b\n1, "2"\n', Read({2: ["1", ' "2"']})),
    csv("an open quote", b'a,b\n1,2\n3,"4\n5,6\n', Refused("FILE_UNTERMINATED_QUOTE", {"line": "3"})),
    csv("an open quote at the end", b'a,b\n1,2\n3,"', Refused("FILE_UNTERMINATED_QUOTE", {"line": "3"})),
    csv("digits as they stand", b"a,b\n007,1e5\n", Read({2: ["007", "1e5"]})),
    csv("spaces as they stand", b"a,b\n 1 ,\t2\n", Read({2: [" 1 ", "\t2"]})),
    csv("a NUL", b"a,b\n1\0,2\n", Read({2: ["1\0", "2"]})),
    csv("latin-1 that nobody told of", b"a,b\n1,caf\xe9\n", Refused("FILE_NOT_UTF8", {"offset": "9"})),
    csv("latin-1 that was told", b"a,b\n1,caf\xe9\n", Read({2: ["1", "café"]}), encoding="latin-1"),
    csv("UTF-16 that nobody told of", "a,b\n1,2\n".encode("utf-16"), Refused("FILE_NOT_UTF8", {"offset": "0"})),
    csv("UTF-16 that was told", "a,b\n1,2\n".encode("utf-16"), Read({2: ["1", "2"]}), encoding="UTF-16"),
    csv("half of a pair in UTF-8", b"a,b\n1,\xed\xa0\x80\n", Refused("FILE_NOT_UTF8", {"offset": "6"})),
    csv("semicolons", b"a;b\n1,5;2\n", Read({2: ["1,5", "2"]}), delimiter=";"),
    csv("tabs and apostrophes", b"a\tb\n'x\ty'\t'it''s'\n", Read({2: ["x\ty", "it's"]}), delimiter="\t", quote="'"),
    csv("a cell over two blocks", b"a,b\n1," + b"x" * (5 << 20) + b"\n", Refused("FILE_RECORD_TOO_LARGE")),
    csv("compressed", gzip.compress(b"a,b\n1,2\n"), Read({2: ["1", "2"]})),
    csv("compressed and cut off", gzip.compress(b"a,b\n1,2\n")[:-3], Refused("FILE_DAMAGED", {"offset": "25"})),
    csv("an unknown encoding", b"a,b\n", Refused("OPTION_INVALID"), encoding="klingon"),
    json("nothing", b"", Refused("FILE_EMPTY")),
    json("white space alone", b" \n\t ", Refused("FILE_EMPTY")),
    json("an array of nothing", b"[]", Read({})),
    json("one object a line", b'{"a":1}\n{"a":2}\n', Read({1: ["1"], 2: ["2"]})),
    json("one object over lines", b'{\n  "a": 1\n}\n', Read({1: ["1"]})),
    json("blank lines between objects", b'{"a":1}\n\n\n{"a":2}', Read({1: ["1"], 4: ["2"]})),
    json("two objects on a line", b'{"a":1} {"a":2}', Refused("FILE_NOT_JSON", at(8, 1))),
    json("commas between lines", b'{"a":1},\n{"a":2}', Refused("FILE_NOT_JSON", at(7, 1))),
    json("a comma behind the last record", b'[{"a":1},]', Refused("FILE_NOT_JSON", at(9, 1))),
    json("no comma between records", b'[{"a":1}\n{"a":2}]', Refused("FILE_NOT_JSON", at(9, 2))),
    json("an array that does not end", b'[{"a":1},\n', Refused("FILE_NOT_JSON", at(10, 2))),
    json("a record that does not end", b'[{"a":1},{"a":', Refused("FILE_NOT_JSON", at(14, 1))),
    json("a line cut off", b'{"a":1}\n{"a":"x', Refused("FILE_NOT_JSON", at(15, 2))),
    json("something behind the array", b'[{"a":1}] x', Refused("FILE_NOT_JSON", at(10, 1))),
    json("a comment", b'[{"a":1} /* one */]', Refused("FILE_NOT_JSON", at(9, 1))),
    json("NaN", b'[{"a":NaN}]', Refused("FILE_NOT_JSON", at(6, 1))),
    json("Infinity", b'{"a":1}\n{"a":Infinity}', Refused("FILE_NOT_JSON", at(13, 2))),
    json("a number with a leading zero", b'[{"a":007}]', Refused("FILE_NOT_JSON", at(7, 1))),
    json("a line break in a string", b'[{"a":"x\ny"}]', Refused("FILE_NOT_JSON", at(8, 1))),
    json("a NUL byte in a string", b'[{"a":"x\0"}]', Refused("FILE_NOT_JSON", at(8, 1))),
    json("a NUL by its number", b'[{"a":"x\\u0000"}]', Read({1: ["x\0"]})),
    json("numbers beyond every machine", b'[{"a":1e400,"b":0.1000}]', Read({1: ["1e400", "0.1000"]})),
    json("minus nothing", b'[{"a":-0,"b":-0.0}]', Read({1: ["-0", "-0.0"]})),
    json("null and its likes", b'[{"a":null,"b":"null","c":""}]', Read({1: [None, "null", ""]})),
    json("arrays and objects", b'[{"a":[1, "x"],"b":{ }}]', Read({1: ['[1, "x"]', "{ }"]})),
    json("a whole pair", b'[{"a":"\\ud83d\\ude00"}]', Read({1: ["😀"]})),
    json("half of a pair", b'[{"a":"x"},{"a":"\\ud83d"}]', Read({1: ["x"]}, {2: "INVALID_TEXT"})),
    json("a key twice", b'{"a":1}\n{"a":1,"a":2}', Read({1: ["1"]}, {2: "FIELD_DUPLICATE"})),
    json("a key that differs in case", b'{"a":1}\n{"A":1}', Read({1: ["1"]}, {2: "FIELD_UNKNOWN"})),
    json("a key less", b'[{"a":1,"b":2},{"a":1}]', Read({1: ["1", "2"]}, {2: "FIELD_ABSENT"})),
    json("a key less, or NULL", b'[{"a":1},{"b":2}]', Read({1: ["1", None], 2: [None, "2"]}), absent_is_null=True),
    json("a record that is no object", b'[{"a":1},[1]]', Read({1: ["1"]}, {2: "RECORD_NOT_OBJECT"})),
    json("a line that is no object", b'"x"\n{"a":1}', Read({2: ["1"]}, {1: "RECORD_NOT_OBJECT"})),
    json("UTF-16", '[{"a":1}]'.encode("utf-16"), Refused("FILE_NOT_UTF8", {"offset": "0"})),
    json("latin-1", b'[{"a":"caf\xe9"}]', Refused("FILE_NOT_UTF8", {"offset": "10"})),
    json("a mark before it", b'\xef\xbb\xbf[{"a":1}]', Read({1: ["1"]})),
    json("a bomb of depth", b'[{"a":' + b"[" * 100_000, Refused("FILE_NOT_JSON", at(1005, 1))),
    json("a record too large", b'[{"a":"' + b"x" * (5 << 20) + b'"}]', Refused("FILE_RECORD_TOO_LARGE", at(1, 1))),
    json("compressed lines", gzip.compress(b'{"a":1}\n'), Read({1: ["1"]})),
    json("a CSV file", b"a,b\n1,2\n", Refused("FILE_NOT_JSON", at(0, 1))),
    csv("a JSON file", b'[{"a":1},{"a":2}]\n', Read({})),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_tricky_file_has_the_outcome_it_must_have(case):
    if isinstance(case.expected, Refused):
        with pytest.raises(DataInvalid) as caught:
            read(case.data, case.file_format, **case.options)
        assert (caught.value.reason, caught.value.metadata) == (case.expected.reason, case.expected.at)
        assert "found" in caught.value.message
    else:
        _, rows, broken = read(case.data, case.file_format, **case.options)
        assert rows == case.expected.rows
        assert {b.row: b.code for b in broken} == case.expected.broken
