"""Malformed and tricky files, each with the one outcome that it must have, through the whole import.

A case is a table, a file, what becomes of the import, what is wrong with which record, and the rows
afterwards. What the file itself is refused for leaves the table as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.imports.model import FieldMapping, LetterCase

T = "CREATE TABLE public.t (id int PRIMARY KEY, v text)"
UNCHECKED = object()


@dataclass(frozen=True)
class Case:
    """`errors` are (record, field, code); `rows` the table by its first column, as text where `text` says so."""

    name: str
    file: bytes
    table: str = T
    options: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why the import fails; empty: it completes."""
    errors: Sequence[tuple[int, str, str]] = ()
    rows: Any = UNCHECKED
    columns: str = "*"
    counts: dict[str, int] = field(default_factory=dict)


def upsert(**options: Any) -> dict[str, Any]:
    return {"import_type": "UPSERT", **options}


def replace(**options: Any) -> dict[str, Any]:
    return {"import_type": "REPLACE", "max_deletes": 100, **options}


def mapped(*steps: FieldMapping, **options: Any) -> dict[str, Any]:
    return {"mapping": steps, **options}


def of(kind: str, more: str = "") -> str:
    return f"{more};CREATE TABLE public.t (id int PRIMARY KEY, v {kind})"


def csv(**options: Any) -> dict[str, Any]:
    return {"csv": options}


SPLITTING = [
    Case("a quoted delimiter and a quoted line break", b'id,v\n1,"a,b"\n2,"c\nd"\n', rows=[(1, "a,b"), (2, "c\nd")]),
    Case("doubled quotes", b'id,v\n1,"say ""hi"""\n2,""""\n', rows=[(1, 'say "hi"'), (2, '"')]),
    Case("line ends of Windows", b"id,v\r\n1,a\r\n2,b\r\n", rows=[(1, "a"), (2, "b")]),
    Case("line ends of old Macs", b"id,v\r1,a\r2,b\r", rows=[(1, "a"), (2, "b")]),
    Case("no line end at the end", b"id,v\n1,a", rows=[(1, "a")]),
    Case("a line break of Windows inside quotes", b'id,v\n1,"a\r\nb"\n', rows=[(1, "a\r\nb")]),
    Case("a byte order mark", b"\xef\xbb\xbfid,v\n1,a\n", rows=[(1, "a")]),
    Case("a byte order mark before a quoted header", b'\xef\xbb\xbf"id","v"\n1,a\n', rows=[(1, "a")]),
    Case("a byte order mark inside a cell is text", "id,v\n1,\ufeffa\n".encode(), rows=[(1, "\ufeffa")]),
    Case("semicolons where commas are expected", b"id;v\n1;a\n", reason="COLUMNS_REFUSED", rows=[]),
    Case("semicolons that were announced", b'id;v\n1;"a;b"\n', options=csv(delimiter=";"), rows=[(1, "a;b")]),
    Case("tabs that were announced", b"id\tv\n1\ta,b\n", options=csv(delimiter="\t"), rows=[(1, "a,b")]),
    Case("a quote as delimiter", b"id,v\n1,a\n", options=csv(delimiter='"'), reason="OPTION_INVALID", rows=[]),
    Case("a quote that is never closed", b'id,v\n1,"a\n2,b\n', reason="FILE_UNTERMINATED_QUOTE", rows=[]),
    Case("an empty file", b"", reason="FILE_EMPTY", rows=[]),
    Case("white space alone", b" \n\n ", reason="FILE_EMPTY", rows=[]),
    Case("a header alone", b"id,v\n", rows=[], counts={"total": 0}),
    Case("a header without line end", b"id,v", rows=[], counts={"total": 0}),
    Case("a first line of commas", b",,\n1,a\n", reason="FILE_NOT_CSV", rows=[]),
    Case("a short record and a long one", b"id,v\n1\n2,a,b\n3,c\n",
         errors=[(2, "", "WRONG_FIELD_COUNT"), (3, "", "WRONG_FIELD_COUNT")], rows=[(3, "c")]),
    Case("blank lines are counted and left out", b"id,v\n\n1,a\n,\n\nx,b\n", errors=[(6, "id", "INVALID_VALUE")],
         rows=[(1, "a")], counts={"blank": 3, "total": 2}),
    Case("record numbers go by records, not by lines", b'id,v\n1,"a\nb\nc"\nx,d\n',
         errors=[(3, "id", "INVALID_VALUE")], rows=[(1, "a\nb\nc")]),
    Case("Latin-1", b"id,v\n1,caf\xe9\n", reason="FILE_NOT_UTF8", rows=[]),
    Case("UTF-16", "id,v\n1,a\n".encode("utf-16"), reason="FILE_NOT_UTF8", rows=[]),
    Case("half a surrogate pair", b"id,v\n1,\xed\xa0\x80\n", reason="FILE_NOT_UTF8", rows=[]),
    Case("an overlong slash", b"id,v\n1,\xc0\xaf\n", reason="FILE_NOT_UTF8", rows=[]),
    Case("a NUL byte", b"id,v\n1,a\0b\n2,c\n", errors=[(2, "v", "NUL_BYTE")], rows=[(2, "c")]),
]  # fmt: skip

COLUMNS = [
    Case("a header twice", b"id,v,v\n1,a,b\n", reason="COLUMN_DUPLICATE", rows=[]),
    Case("headers that differ in case", b"id,v,V\n1,a,b\n", reason="COLUMNS_REFUSED", rows=[]),
    Case("an unknown header", b"id,v,w\n1,a,b\n", reason="COLUMN_UNKNOWN", rows=[]),
    Case("a header in another case is no field", b"ID,v\n1,a\n", reason="COLUMNS_REFUSED", rows=[]),
    Case("a header with a space is no field", b"id, v\n1,a\n", reason="COLUMN_UNKNOWN", rows=[]),
    Case("an empty header name", b"id,v,\n1,a,\n", reason="COLUMN_UNKNOWN", rows=[]),
    Case("no column for the key", b"v\na\n", reason="COLUMN_MISSING", rows=[]),
    Case("no column for a key that rows are found by", b"v\na\n", options=upsert(), reason="KEY_MISSING", rows=[]),
    Case("two columns for one field", b"id,a,b\n1,x,y\n",
         options=mapped(FieldMapping("v", "a"), FieldMapping("v", "b")), reason="COLUMN_DUPLICATE", rows=[]),
    Case("columns in another order", b"v,id\na,1\n", rows=[(1, "a")]),
    Case("a column that is left out", b"id,v,w\n1,a,b\n", options=mapped(FieldMapping("", "w")), rows=[(1, "a")]),
    Case("a generated column", b"id,v\n1,2\n",
         table="CREATE TABLE public.t (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id * 2) STORED)",
         reason="FIELD_NOT_SETTABLE", rows=[]),
    Case("two hundred columns", b"id," + b",".join(b"c%d" % i for i in range(200)) + b"\n1" + b",x" * 200 + b"\n",
         table="CREATE TABLE public.t (id int PRIMARY KEY, " + ", ".join(f"c{i} text" for i in range(200)) + ")",
         rows=[(1, "x")], columns="id, c199"),
]  # fmt: skip

VALUES = [
    Case("NULL, '' and the words for them are four things", b'id,v\n1,\n2,""\n3,NULL\n4,\\N\n5,None\n',
         rows=[(1, None), (2, ""), (3, "NULL"), (4, "\\N"), (5, "None")]),
    Case("NULL by another word", b'id,v\n1,\\N\n2,"\\N"\n3,\n', options=csv(null_text="\\N"),
         rows=[(1, None), (2, "\\N"), (3, "")]),
    Case("'' is no number", b'id,v\n1,""\n2,\n', table=of("int"), errors=[(2, "v", "INVALID_VALUE")],
         rows=[(2, None)]),
    Case("'' in a required text stands", b'id,v\n1,""\n2,\n', table=of("text NOT NULL"),
         errors=[(3, "v", "REQUIRED")], rows=[(1, "")]),
    Case("trailing spaces stay in text", b"id,v\n1,a  \n2, b\n", rows=[(1, "a  "), (2, " b")]),
    Case("what looks like a number stays text", b"id,v\n1,007\n2,1e5\n3,12345678901234567890\n4,3-4\n5,true\n",
         rows=[(1, "007"), (2, "1e5"), (3, "12345678901234567890"), (4, "3-4"), (5, "true")]),
    Case("integers at and beyond their ends", b"id,v\n1,2147483647\n2,2147483648\n3,-2147483648\n4,1.5\n5,1e3\n",
         table=of("int"), rows=[(1, 2147483647), (3, -2147483648)],
         errors=[(3, "v", "OUT_OF_RANGE"), (5, "v", "INVALID_VALUE"), (6, "v", "INVALID_VALUE")]),
    Case("integers as PostgreSQL also writes them", b"id,v\n1,0x1F\n2, 7 \n3,1_000\n4,+5\n", table=of("int"),
         rows=[(1, 31), (2, 7), (3, 1000), (4, 5)]),
    Case("bigints at and beyond their ends", b"id,v\n1,9223372036854775807\n2,9223372036854775808\n",
         table=of("bigint"), errors=[(3, "v", "OUT_OF_RANGE")], rows=[(1, 9223372036854775807)]),
    Case("numbers keep every digit", b"id,v\n1,1234567890.12345678901234567890\n2,1.10\n3,-0\n",
         table=of("numeric"), columns="id, v::text",
         rows=[(1, "1234567890.12345678901234567890"), (2, "1.10"), (3, "0")]),
    Case("a scale rounds, a precision refuses", b"id,v\n1,1.005\n2,12345.6\n3,9999.995\n", table=of("numeric(6,2)"),
         columns="id, v::text", rows=[(1, "1.01")], errors=[(3, "v", "OUT_OF_RANGE"), (4, "v", "OUT_OF_RANGE")]),
    Case("a decimal comma", b'id,v\n1,"1,5"\n2,"1.000,5"\n', table=of("numeric"),
         errors=[(2, "v", "INVALID_VALUE"), (3, "v", "INVALID_VALUE")], rows=[]),
    Case("infinity and no number", b"id,v\n1,Infinity\n2,-inf\n3,NaN\n", table=of("float8"), columns="id, v::text",
         rows=[(1, "Infinity"), (2, "-Infinity"), (3, "NaN")]),
    Case("a float beyond its range", b"id,v\n1,1e400\n2,0.1\n", table=of("float8"),
         errors=[(2, "v", "OUT_OF_RANGE")], rows=[(2, 0.1)]),
    Case("dates that are none", b"id,v\n1,2025-02-29\n2,2024-02-29\n3,31.12.2024\n4,2024-13-01\n5,\n",
         table=of("date"), columns="id, v::text", rows=[(2, "2024-02-29"), (5, None)],
         errors=[(2, "v", "INVALID_DATE"), (4, "v", "INVALID_DATE"), (5, "v", "INVALID_DATE")]),
    Case("infinite, ancient and far dates", b"id,v\n1,infinity\n2,-infinity\n3,0044-03-15 BC\n4,294276-01-01\n",
         table=of("date"), columns="id, v::text",
         rows=[(1, "infinity"), (2, "-infinity"), (3, "0044-03-15 BC"), (4, "294276-01-01")]),
    Case("moments with and without a zone", b"id,v\n1,2024-01-01T12:00:00+02:00\n2,2024-01-01 12:00\n"
         b"3,2024-01-01 12:00 Nowhere/City\n", table=of("timestamptz"),
         columns="id, v = ('2024-01-01 ' || CASE id WHEN 1 THEN '10:00Z' ELSE '12:00Z' END)::timestamptz",
         rows=[(1, True), (2, True)], errors=[(4, "v", "INVALID_VALUE")]),
    Case("booleans as PostgreSQL reads them", b"id,v\n1,t\n2,NO\n3,on\n4,0\n5,ja\n6,2\n", table=of("boolean"),
         rows=[(1, True), (2, False), (3, True), (4, False)],
         errors=[(6, "v", "INVALID_VALUE"), (7, "v", "INVALID_VALUE")]),
    Case("arrays", b'id,v\n1,"{1,2,NULL}"\n2,{}\n3,"{1,x}"\n4,"[1,2]"\n5,"{{1,2},{3}}"\n', table=of("int[]"),
         rows=[(1, [1, 2, None]), (2, [])],
         errors=[(4, "v", "INVALID_VALUE"), (5, "v", "INVALID_VALUE"), (6, "v", "INVALID_VALUE")]),
    Case("arrays of texts", b'id,v\n1,"{a,""b,c"",""NULL"",NULL}"\n', table=of("text[]"),
         rows=[(1, ["a", "b,c", "NULL", None])]),
    Case("json is kept or refused", b'id,v\n1,"{""a"":1.10}"\n2,null\n3,{a}\n4,\n', table=of("json"),
         columns="id, v::text", rows=[(1, '{"a":1.10}'), (2, "null"), (4, None)],
         errors=[(4, "v", "INVALID_VALUE")]),
    Case("a NUL written in jsonb", b'id,v\n1,"""\\u0000"""\n2,"""a"""\n', table=of("jsonb"), columns="id, v::text",
         rows=[(2, '"a"')], errors=[(2, "v", "INVALID_VALUE")]),
    Case("bytes", b"id,v\n1,\\xdeadbeef\n2,\\xZZ\n", table=of("bytea"), rows=[(1, b"\xde\xad\xbe\xef")],
         errors=[(3, "v", "INVALID_VALUE")]),
    Case("a composite", b'id,v\n1,"(1,""a,b"")"\n2,"(1)"\n', table=of("public.pair",
         "CREATE TYPE public.pair AS (a int, b text)"), columns="id, (v).b", rows=[(1, "a,b")],
         errors=[(3, "v", "INVALID_VALUE")]),
    Case("a domain's own rule", b"id,v\n1,5\n2,-5\n3,x\n", table=of("public.d",
         "CREATE DOMAIN public.d AS int CHECK (VALUE > 0)"), rows=[(1, 5)],
         errors=[(3, "v", "CHECK_VIOLATED"), (4, "v", "INVALID_VALUE")]),
    Case("an enum is exact in case and spaces", b"id,v\n1,RED\n2,Red\n3,RED \n", table=of("public.e",
         "CREATE TYPE public.e AS ENUM ('RED')"), rows=[(1, "RED")],
         errors=[(3, "v", "INVALID_VALUE"), (4, "v", "INVALID_VALUE")]),
    Case("a padded character field", b"id,v\n1,ab\n2,abc   \n3,abcd\n", table=of("char(3)"),
         rows=[(1, "ab "), (2, "abc")], errors=[(4, "v", "TOO_LONG")]),
    Case("a text that is too long, and one whose end is spaces", "id,v\n1,äöü\n2,abc  \n3,abcd\n".encode(),
         table=of("varchar(3)"), rows=[(1, "äöü"), (2, "abc")], errors=[(4, "v", "TOO_LONG")]),
    Case("identifiers in any spelling", b"id,v\n1,A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\n2,{a0eebc999c0b4ef8bb6d"
         b"6bb9bd380a11}\n3,a0eebc99\n", table=of("uuid"), columns="id, v::text", errors=[(4, "v", "INVALID_VALUE")],
         rows=[(i, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11") for i in (1, 2)]),
    Case("ranges and networks", b'id,v\n1,"[1,5)"\n2,"[5,1)"\n', table=of("int4range"), columns="id, v::text",
         rows=[(1, "[1,5)")], errors=[(3, "v", "INVALID_VALUE")]),
    Case("a bit string of another length", b"id,v\n1,101\n2,10\n", table=of("bit(3)"), columns="id, v::text",
         rows=[(1, "101")], errors=[(3, "v", "INVALID_VALUE")]),
    Case("an identity that is always the database's, numbered by the file", b"id,v\n7,a\n",
         table="CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)", rows=[(7, "a")]),
    Case("an identity that the file leaves to the database", b"v\na\nb\n",
         table="CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
         rows=[(1, "a"), (2, "b")]),
    Case("two faults in one record are both told", b"id,v,w\nx,y,1\n1,2,3\n",
         table="CREATE TABLE public.t (id int PRIMARY KEY, v int, w int)", rows=[(1, 2, 3)],
         errors=[(2, "id", "INVALID_VALUE"), (2, "v", "INVALID_VALUE")]),
    Case("guarded texts, unguarded", b"id,v\n1,'=1+1\n2,''a\n3,b'\n4,=2\n", options=csv(undo_formula_guard=True),
         rows=[(1, "=1+1"), (2, "'a"), (3, "b'"), (4, "=2")]),
    Case("formulas are text", b"id,v\n1,=1+1\n2,+1\n3,@x\n4,'=1\n5,\t=1\n",
         rows=[(1, "=1+1"), (2, "+1"), (3, "@x"), (4, "'=1"), (5, "\t=1")]),
]  # fmt: skip

STEPS = [
    Case("trim, then empty is NULL", b'id,v\n1,"  a "\n2,"   "\n', rows=[(1, "a"), (2, None)],
         options=mapped(FieldMapping("v", "v", trim=True, empty_is_null=True))),
    Case("letter case before values", b"id,v\n1,Yes\n2,no\n3,maybe\n", rows=[(1, "1"), (2, "0")],
         options=mapped(FieldMapping("v", "v", letter_case=LetterCase.UPPER, values=(("YES", "1"), ("NO", "0")),
                                     only_listed_values=True)), errors=[(4, "v", "VALUE_NOT_MAPPED")]),
    Case("a date by a pattern", b"id,v\n1,31.12.2024\n2,12/31/2024\n", table=of("date"), columns="id, v::text",
         rows=[(1, "2024-12-31")], options=mapped(FieldMapping("v", "v", date_pattern="%d.%m.%Y")),
         errors=[(3, "v", "INVALID_DATE")]),
    Case("a default for NULL alone", b'id,v\n1,\n2,""\n', rows=[(1, "none"), (2, "")],
         options=mapped(FieldMapping("v", "v", default="none"))),
    Case("a default that is no value of the field", b"id,v\n1,\n2,5\n", table=of("int"), rows=[(2, 5)],
         options=mapped(FieldMapping("v", "v", default="none")), errors=[(2, "v", "INVALID_VALUE")]),
    Case("a constant that is no value of the field", b"id\n1\n", table=of("int"), rows=[], reason="MAPPING_INVALID",
         options=mapped(FieldMapping("v", constant="none"))),
    Case("a lookup that finds nothing", b"id,v\n1,tool\n2,toy\n", rows=[(1, 7)],
         table="CREATE TABLE public.k (id int PRIMARY KEY, name text UNIQUE); INSERT INTO public.k VALUES (7, 'tool');"
               "CREATE TABLE public.t (id int PRIMARY KEY, v int REFERENCES public.k)",
         options=mapped(FieldMapping("v", "v", lookup="name")), errors=[(3, "v", "LOOKUP_MISSING")]),
]  # fmt: skip

TWO = T + ";INSERT INTO public.t VALUES (1, 'a'), (2, 'b')"
UNIQUE = (
    "CREATE TABLE public.t (id int PRIMARY KEY, v text UNIQUE);INSERT INTO public.t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
)
TREE = (
    "CREATE TABLE public.t (id int PRIMARY KEY, v int REFERENCES public.t);"
    "INSERT INTO public.t VALUES (1, NULL), (2, 1)"
)
NUMERIC = "CREATE TABLE public.t (id numeric PRIMARY KEY, v text); INSERT INTO public.t VALUES (1.00, 'a')"
FOLDED = (
    "CREATE EXTENSION citext SCHEMA public;"
    "CREATE TABLE public.t (id public.citext PRIMARY KEY, v text); INSERT INTO public.t VALUES ('Abc', 'a')"
)

MODES = [
    Case("ADDITIVE leaves the keys that are there", b"id,v\n1,x\n3,c\n", TWO, errors=[(2, "id", "KEY_EXISTS")],
         rows=[(1, "a"), (2, "b"), (3, "c")], counts={"skip": 1, "insert": 1}),
    Case("a key twice in the file: the first stands", b"id,v\n1,x\n1,y\n3,z\n3,w\n", TWO, upsert(),
         errors=[(3, "id", "DUPLICATE_IN_FILE"), (5, "id", "DUPLICATE_IN_FILE")],
         rows=[(1, "x"), (2, "b"), (3, "z")]),
    Case("a key twice, the first of them bad", b"id,v\n1,x\n1,3\n", of("int"), upsert(),
         errors=[(2, "v", "INVALID_VALUE")], rows=[(1, 3)]),
    Case("a NULL key", b'id,v\n,x\n"",y\n3,z\n', TWO, upsert(),
         errors=[(2, "id", "REQUIRED"), (3, "id", "INVALID_VALUE")], rows=[(1, "a"), (2, "b"), (3, "z")]),
    Case("a NULL key in REPLACE", b"id,v\n,x\n1,a\n2,b\n", TWO, replace(error_budget=5), reason="KEY_UNREADABLE",
         rows=[(1, "a"), (2, "b")]),
    Case("an unreadable key in REPLACE", b"id,v\nx,x\n1,a\n2,b\n", TWO, replace(error_budget=5),
         reason="KEY_UNREADABLE", rows=[(1, "a"), (2, "b")]),
    Case("a short record in REPLACE", b"id,v\n1\n2,b\n", TWO, replace(error_budget=5), reason="KEY_UNREADABLE",
         rows=[(1, "a"), (2, "b")]),
    Case("a key and nothing else changes nothing", b"id\n1\n2\n", TWO, upsert(), rows=[(1, "a"), (2, "b")],
         counts={"unchanged": 2}),
    Case("a key and nothing else, new", b"id\n1\n5\n", TWO, upsert(), rows=[(1, "a"), (2, "b"), (5, None)],
         counts={"unchanged": 1, "insert": 1}),
    Case("a key and nothing else replaces the others", b"id\n2\n", TWO, replace(), rows=[(2, "b")],
         counts={"unchanged": 1, "delete": 1}),
    Case("an empty file in UPSERT", b"", TWO, upsert(), reason="FILE_EMPTY", rows=[(1, "a"), (2, "b")]),
    Case("an empty file in REPLACE", b"", TWO, replace(), reason="FILE_EMPTY", rows=[(1, "a"), (2, "b")]),
    Case("a header alone in UPSERT", b"id,v\n", TWO, upsert(), rows=[(1, "a"), (2, "b")], counts={"total": 0}),
    Case("blank lines alone in REPLACE ask for the number", b"id,v\n\n\n", TWO, replace(), rows=[],
         counts={"delete": 2}),
    Case("NULL and '' are changes", b'id,v\n1,\n2,""\n', TWO, upsert(), rows=[(1, None), (2, "")],
         counts={"update": 2}),
    Case("a swap of unique values", b"id,v\n1,b\n2,a\n3,x\n", UNIQUE, upsert(), rows=[(1, "a"), (2, "b"), (3, "x")],
         errors=[(2, "", "UNIQUE_CYCLE"), (3, "", "UNIQUE_CYCLE")]),
    Case("a swap in REPLACE", b"id,v\n1,b\n2,a\n3,c\n", UNIQUE, replace(), reason="ERROR_BUDGET_EXCEEDED",
         errors=[(2, "", "UNIQUE_CYCLE"), (3, "", "UNIQUE_CYCLE")], rows=[(1, "a"), (2, "b"), (3, "c")]),
    Case("a swap under a deferrable rule", b"id,v\n1,b\n2,a\n",
         "CREATE TABLE public.t (id int PRIMARY KEY, v text UNIQUE"
         " DEFERRABLE);INSERT INTO public.t VALUES (1, 'a'), (2, 'b')", upsert(), rows=[(1, "b"), (2, "a")]),
    Case("a value that a deleted row frees", b"id,v\n1,b\n4,c\n", UNIQUE, replace(), rows=[(1, "b"), (4, "c")],
         counts={"update": 1, "insert": 1, "delete": 2}),
    Case("a value that another row keeps", b"id,v\n1,b\n5,c\n", UNIQUE, upsert(),
         errors=[(2, "v", "UNIQUE_TAKEN"), (3, "v", "UNIQUE_TAKEN")], rows=[(1, "a"), (2, "b"), (3, "c")]),
    Case("a value twice in the file", b"id,v\n1,x\n2,x\n", UNIQUE, upsert(), errors=[(3, "v", "UNIQUE_IN_FILE")],
         rows=[(1, "x"), (2, "b"), (3, "c")]),
    Case("unique NULLs are no twins", b"id,v\n1,\n2,\n", UNIQUE, upsert(), rows=[(1, None), (2, None), (3, "c")]),
    Case("unique NULLs that are twins", b"id,v\n1,\n2,\n", "CREATE TABLE public.t (id int PRIMARY KEY, v text,"
         " UNIQUE NULLS NOT DISTINCT (v))", rows=[(1, None)], errors=[(3, "v", "UNIQUE_IN_FILE")]),
    Case("children before their parents", b"id,v\n5,4\n4,3\n3,\n", TREE, rows=[(1, None), (2, 1), (3, None), (4, 3),
         (5, 4)]),
    Case("children before their parents in UPSERT", b"id,v\n2,5\n5,4\n4,1\n", TREE, upsert(),
         rows=[(1, None), (2, 5), (4, 1), (5, 4)]),
    Case("a circle of references", b"id,v\n3,4\n4,3\n", TREE, rows=[(1, None), (2, 1), (3, 4), (4, 3)]),
    Case("a circle of references made by UPSERT", b"id,v\n1,2\n", TREE, upsert(), rows=[(1, 2), (2, 1)]),
    Case("a reference to itself", b"id,v\n1,1\n7,7\n", TREE, upsert(), rows=[(1, 1), (2, 1), (7, 7)]),
    Case("a child of a bad parent falls, and its own", b"id,v\n3,99\n4,3\n5,4\n6,1\n", TREE,
         errors=[(n, "v", "REFERENCE_MISSING") for n in (2, 3, 4)], rows=[(1, None), (2, 1), (6, 1)]),
    Case("REPLACE takes a parent and its child", b"id,v\n9,\n", TREE, replace(), rows=[(9, None)]),
    Case("REPLACE takes a parent whose child stays", b"id,v\n2,1\n", TREE, replace(),
         reason="ROWS_REFERENCED", rows=[(1, None), (2, 1)]),
    Case("REPLACE turns a tree upside down", b"id,v\n1,2\n2,\n", TREE, replace(), rows=[(1, 2), (2, None)]),
    Case("equal numbers, other images: one key", b"id,v\n1.0,x\n1,y\n01.000,z\n", NUMERIC, upsert(),
         columns="id::text, v", rows=[("1.00", "x")],
         errors=[(3, "id", "DUPLICATE_IN_FILE"), (4, "id", "DUPLICATE_IN_FILE")]),
    Case("an equal key deletes nothing in REPLACE", b"id,v\n1.0,a\n", NUMERIC, replace(), columns="id::text, v",
         rows=[("1.00", "a")], counts={"unchanged": 1}),
    Case("texts equal but for case: one key", b"id,v\nABC,x\nabc,y\nabd,z\n", FOLDED, upsert(),
         rows=[("Abc", "x"), ("abd", "z")], errors=[(3, "id", "DUPLICATE_IN_FILE")]),
    Case("texts equal but for case in REPLACE", b"id,v\nABC,a\n", FOLDED, replace(),
         rows=[("Abc", "a")],
         counts={"unchanged": 1}),
    Case("texts equal but for case in ADDITIVE", b"id,v\naBC,x\n", FOLDED, rows=[("Abc", "a")],
         errors=[(2, "id", "KEY_EXISTS")]),
    Case("a padded key", b"id,v\na,x\nb  ,y\n", "CREATE TABLE public.t (id char(3) PRIMARY KEY, v text);"
         "INSERT INTO public.t VALUES ('a', 'p'), ('b', 'q')", upsert(), rows=[("a  ", "x"), ("b  ", "y")]),
    Case("a row without change in another spelling of its numbers", b"id,v\n1,1.50\n2,1.5\n",
         of("numeric(6,2)") + ";INSERT INTO public.t VALUES (1, 1.5), (2, 1.5)", upsert(), counts={"unchanged": 2},
         columns="id, v::text", rows=[(1, "1.50"), (2, "1.50")]),
    Case("an invalid value in a row that would not change", b"id,v,w\n1,a,x\n2,b,5\n",
         "CREATE TABLE public.t (id int PRIMARY KEY, v text, w int); INSERT INTO public.t VALUES (1, 'a', 1), "
         "(2, 'b', 5)",
         upsert(), errors=[(2, "w", "INVALID_VALUE")], rows=[(1, "a", 1), (2, "b", 5)],
         counts={"unchanged": 1, "failed": 1}),
    Case("an identity that updates cannot set", b"id,v\n9,b\n", "CREATE TABLE public.t (id int GENERATED ALWAYS AS"
         " IDENTITY UNIQUE, v text PRIMARY KEY)", upsert(), reason="FIELD_NOT_SETTABLE", rows=[]),
    Case("rows found by a key of two fields in any order", b"b,a,v\n2,1,x\n1,2,y\n",
         "CREATE TABLE public.t (a int, b int,"
         " v text, PRIMARY KEY (a, b)); INSERT INTO public.t VALUES (1, 2, 'p')", upsert(key_fields=["b", "a"]),
         rows=[(1, 2, "x"), (2, 1, "y")]),
    Case("a check over a field that the file does not touch", b"id,v\n1,5\n2,5\n",
         "CREATE TABLE public.t (id int PRIMARY"
         " KEY, v int, w int, CHECK (v < w)); INSERT INTO public.t VALUES (1, 1, 9), (2, 1, 3)", upsert(),
         errors=[(3, "v,w", "CHECK_VIOLATED")], rows=[(1, 5, 9), (2, 1, 3)]),
]  # fmt: skip


def lines(**options: Any) -> dict[str, Any]:
    return {"format": "JSON_LINES", **options}


def array(**options: Any) -> dict[str, Any]:
    return {"format": "JSON", **options}


JSON = [
    Case("an array of objects", b'[{"id":1,"v":"a"},\n {"v":"b","id":2}]', options=array(), rows=[(1, "a"), (2, "b")]),
    Case("one object a line", b'{"id":1,"v":"a"}\r\n\n{"id":2,"v":null}', options=lines(), rows=[(1, "a"), (2, None)]),
    Case("the other layout than announced", b'[{"id":1,"v":"a"}]', options=lines(), rows=[(1, "a")]),
    Case("null, '' and the words for them",
         b'{"id":1,"v":null}\n{"id":2,"v":""}\n{"id":3,"v":"null"}\n{"id":4,"v":"\\\\N"}\n',
         options=lines(), rows=[(1, None), (2, ""), (3, "null"), (4, "\\N")]),
    Case("numbers keep every digit",
         b'[{"id":1,"v":1234567890.12345678901234567890},{"id":2,"v":1.10},{"id":3,"v":1E3}]',
         of("numeric"), array(), columns="id, v::text",
         rows=[(1, "1234567890.12345678901234567890"), (2, "1.10"), (3, "1000")]),
    Case("a number in a text field keeps its spelling", b'[{"id":1,"v":1.10},{"id":2,"v":1e5}]', options=array(),
         rows=[(1, "1.10"), (2, "1e5")]),
    Case("a number in quotes is a number of the field", b'[{"id":"1","v":"5"}]', of("int"), array(), rows=[(1, 5)]),
    Case("true is no number", b'[{"id":1,"v":true},{"id":2,"v":2}]', of("int"), array(),
         errors=[(1, "v", "INVALID_VALUE")], rows=[(2, 2)]),
    Case("booleans", b'[{"id":1,"v":true},{"id":2,"v":false},{"id":3,"v":"t"},{"id":4,"v":1}]', of("boolean"), array(),
         rows=[(1, True), (2, False), (3, True), (4, True)]),
    Case("escapes and surrogate pairs", b'[{"id":1,"v":"\\ud83d\\ude00\\n\\u00e9\\/"}]', options=array(),
         rows=[(1, "\U0001f600\n\u00e9/")]),
    Case("half a surrogate pair in JSON", b'[{"id":1,"v":"\\ud83d"},{"id":2,"v":"b"}]', options=array(),
         errors=[(1, "", "INVALID_TEXT")], rows=[(2, "b")]),
    Case("an escaped NUL", b'[{"id":1,"v":"a\\u0000"},{"id":2,"v":"b"}]', options=array(),
         errors=[(1, "v", "NUL_BYTE")], rows=[(2, "b")]),
    Case("arrays of JSON are arrays", b'[{"id":1,"v":[1,null,3]},{"id":2,"v":"{4,5}"},{"id":3,"v":[]}]', of("int[]"),
         array(), rows=[(1, [1, None, 3]), (2, [4, 5]), (3, [])]),
    Case("an object in a jsonb field", b'[{"id":1,"v":{"a":[1,"x"]}},{"id":2,"v":"{}"}]', of("jsonb"), array(),
         rows=[(1, {"a": [1, "x"]}), (2, {})]),
    Case("a key that no field has", b'[{"id":1,"v":"a","w":1}]', options=array(), reason="COLUMN_UNKNOWN", rows=[]),
    Case("an empty array", b"[]", options=array(), rows=[], counts={"total": 0}),
    Case("an empty array whose fields a mapping renames, leaves out and sets", b"[]", rows=[], counts={"total": 0},
         options=array(mapping=(FieldMapping("v", "w"), FieldMapping("", "x"), FieldMapping("id", constant="1")))),
    Case("objects without a field", b"[{}, {}]", options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("objects without a field in REPLACE", b"{}\n", TWO, lines(**replace()), reason="FILE_NOT_JSON",
         rows=[(1, "a"), (2, "b")]),
    Case("no object in REPLACE", b"[1, 2]", TWO, array(**replace()), reason="FILE_NOT_JSON",
         rows=[(1, "a"), (2, "b")]),
    Case("an object and something else", b'[5, {"id":1,"v":"a"}, null]', options=array(), rows=[(1, "a")],
         errors=[(1, "", "RECORD_NOT_OBJECT"), (3, "", "RECORD_NOT_OBJECT")]),
    Case("an empty object among others", b'[{"id":1,"v":"a"},{}]', options=array(), rows=[(1, "a")],
         errors=[(2, "", "FIELD_ABSENT")]),
    Case("a comma too many", b'[{"id":1,"v":"a"},]', options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("cut short", b'[{"id":1,"v":"a"},{"id":2', options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("something after the end", b'[{"id":1,"v":"a"}] x', options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("no object", b"[1, 2]", options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("a scalar", b'"id"', options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("NaN is no JSON", b'[{"id":1,"v":NaN}]', of("float8"), array(), reason="FILE_NOT_JSON", rows=[]),
    Case("single quotes", b"[{'id':1}]", options=array(), reason="FILE_NOT_JSON", rows=[]),
    Case("nothing", b"", options=array(), reason="FILE_EMPTY", rows=[]),
    Case("JSON in Latin-1", b'[{"id":1,"v":"caf\xe9"}]', options=array(), reason="FILE_NOT_UTF8", rows=[]),
    Case("JSON rows that update and replace", b'[{"id":1,"v":"x"},{"id":3,"v":null}]', TWO, array(**replace()),
         rows=[(1, "x"), (3, None)], counts={"update": 1, "insert": 1, "delete": 1}),
    Case("JSON keys that are equal", b'[{"id":1.0,"v":"x"},{"id":1,"v":"y"}]', NUMERIC, array(**upsert()),
         columns="id::text, v", rows=[("1.00", "x")], errors=[(2, "id", "DUPLICATE_IN_FILE")]),
    Case("an empty array in REPLACE asks for the number", b"[]", TWO, array(**replace()), rows=[],
         counts={"delete": 2}),
    Case("a key twice in one object", b'[{"id":1,"v":"a","v":"b"}]', options=array(), rows=[],
         errors=[(1, "", "FIELD_DUPLICATE")]),
    Case("a record without a field that others have", b'[{"id":1,"v":"a"},{"id":2},{"id":3,"v":"c"}]', options=array(),
         errors=[(2, "", "FIELD_ABSENT")], rows=[(1, "a"), (3, "c")]),
    Case("a record without a field, where absent means null", b'[{"id":1,"v":"a"},{"id":2}]',
         options=array(json={"absent_is_null": True}), rows=[(1, "a"), (2, None)]),
    Case("a record without its key in REPLACE", b'[{"id":1,"v":"a"},{"v":"b"}]', TWO, array(**replace(error_budget=9)),
         reason="KEY_UNREADABLE", rows=[(1, "a"), (2, "b")]),
]  # fmt: skip

CASES = [*SPLITTING, *COLUMNS, *VALUES, *STEPS, *MODES, *JSON]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_has_the_one_outcome(fresh, case):
    world = fresh(case.table)
    row = world.plan("t", case.file, **case.options)
    if row.status == "AWAITING_APPROVAL":
        planned = row.plan_summary["counts"]
        assert {name: planned[name] for name in case.counts} == case.counts
        row = world.apply(row, deletes=planned["delete"])

    assert (row.error or {}).get("reason", "") == case.reason, row.error
    assert row.status == ("COMPLETED" if not case.reason else "FAILED")
    found = [(e.row, e.field, e.code) for e in world.errors(row)]
    assert found == list(case.errors)
    if case.rows is not UNCHECKED:
        assert world.sql(f"SELECT {case.columns} FROM public.t ORDER BY 1") == case.rows
    if not case.reason:
        told = row.report
        parts = ("inserted", "updated", "unchanged", "skipped", "failed")
        assert told["total_records"] == sum(told[part] for part in parts)
