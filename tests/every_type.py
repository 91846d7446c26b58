"""Every type that PostgreSQL 18 has for columns, with the values at their edges: once, for the whole project.

`listed_types(connection)` gives those the server at hand can make. A test compares the list with `pg_type`, so that a
type of a later PostgreSQL is missed by name. Values are texts for the type's input function; NULL is in every column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

LONG = 10_000
"""Values above it go alone: a record is 2 MiB at the most, and several types have a text of 1 MB."""

SETUP = r"""
CREATE TYPE public.mood AS ENUM ('sad', 'so "so"', 'it''s, fine', 'NULL', '', E'a\nb\\c\t{(', '=1', ' ');
CREATE TYPE public.pair AS (a int, "b c" text, d numeric[]);
CREATE TYPE public.nested AS (p public.pair, m public.mood);
CREATE DOMAIN public.short AS varchar(4) CHECK (VALUE <> 'no');
CREATE DOMAIN public.shorter AS public.short;
CREATE DOMAIN public.numbers AS int[];
CREATE DOMAIN public.moods AS public.mood[];
CREATE DOMAIN public.couple AS public.pair CHECK ((VALUE).a IS DISTINCT FROM -1);
CREATE DOMAIN public.span AS int4range;
CREATE TYPE public.deep AS
    (ps public.pair[], n public.nested, r int4range, j json, b bytea, "t ""x" bool, s public.short);
CREATE DOMAIN public.document AS jsonb;
CREATE DOMAIN public.plain_json AS json;
CREATE TYPE public.mood_range AS RANGE (subtype = public.mood);
CREATE TYPE public.text_range AS RANGE (subtype = text, collation = "C");
CREATE TYPE public."Ünï ""q"", %s {x}" AS ENUM ('a');
CREATE TYPE public.json AS (shadow text);
CREATE FUNCTION public.mood_as_text(public.mood) RETURNS text LANGUAGE sql AS $$ SELECT 'lossy' $$;
CREATE CAST (public.mood AS text) WITH FUNCTION public.mood_as_text(public.mood);
"""
"""The installation's own types, one that is called like a type of PostgreSQL, and a cast to text that loses."""

CONTROL = "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f\u2028\u2029\ufeff\ufffe\U0001f600"
TEXTS = (
    "", "NULL", "null", r"\N", r"\.", " ", "  padded  ", "a,b;c|d\te", "quote \" and ' and `", "back\\slash\\",
    "a\nb\r\nc\rd", "\n", "\r", "\r\n", "a\n", "\na", "\t", '"', '""', '"""', "''", ",", ";",
    "\\", "\\\\N", "\\n", "\\.\n", CONTROL, "{a,b}", "[1]", '{"a": 1}', "=1+1", "+1", "-1", "@x", "'", "'=1",
    "007", "1e5", "3-4", "true", "1" * 40,
    "Ａ＝", "e\u0301", "\u00a0", "\u200b", "\ufeff", "שלום\u200f", "👩\u200d👩\u200d👧",
    "\U0010ffff", "%_\\%", "\\x41", "\\u0041", "x" * 1_000_000,
)  # fmt: skip
JSONS = (
    "null", "true", "false", "0", "-0", "1.500", "1e400", "12345678901234567890.12345678901234567890", '""', '"null"',
    "1e-400", "-1.7976931348623157e309", "0.1", "100000000000000000000000000000000000000",
    '"\\u0001\\t\\/\\u00e9"', "[" * 200 + "]" * 200,
    '"a\\n\\u2028\\"b\\\\"', '"\\ud83d\\ude00"', "[]", "{}", "[null]", "[[],{}]", '{"a":{"b":[1,2.50,{"c":null}]}}',
    '{"":"","null":null,"NULL":"NULL"}', '"1"', "[1,\"1\",true,\"true\"]", '{"n":1.10}',
)  # fmt: skip
JSON_TEXTS = (*JSONS, ' { "b" : 1 ,\n\t"a" :\r\n[ 1,2 ] } ', '{"a":1,"a":2}', '"\\u0000"', "  null ", '"\x7f"')
DATES = (
    "2026-11-26",
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "4714-11-24 BC",
    "0001-12-31 BC",
    "5874897-12-31",
    "0001-01-01",
    "10000-01-01",
)
STAMPS = (
    "2026-11-26 12:34:56.789012", "infinity", "-infinity", "0044-03-15 01:02:03 BC", "4714-11-24 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC", "294276-12-31 23:59:59.999999", "0001-01-01 00:00:00.000001",
    "1883-11-18 12:03:57",
)  # fmt: skip


@dataclass(frozen=True)
class TypeCase:
    """One type as a column has it. `base` are the `pg_type.typname` it stands for in the comparison with `pg_type`."""

    type: str
    values: tuple[str, ...]
    base: str = ""
    arrays: bool = True
    """Whether an array of these values, with a NULL among them, is to be tried too."""
    extension: str = ""
    needs: str = ""
    """A statement that fails where the server was built without the type."""


NUMBERS = [
    TypeCase("smallint", ("0", "-32768", "32767"), "int2"),
    TypeCase("integer", ("0", "-2147483648", "2147483647"), "int4"),
    TypeCase("bigint", ("0", "-9223372036854775808", "9223372036854775807", "9007199254740993"), "int8"),
    TypeCase(
        "numeric",
        (
            "0", "0.00", "-0.00000000000000000001", "NaN", "Infinity", "-Infinity", "1" * 60 + "." + "9" * 60, "1e100",
            "99999999999999999999999999999999999999.99", "1.10", "1e-200", "9" * 38, "-" + "9" * 38, "1e9000",
            "-1e-9000",
            "1" * 4500 + "." + "7" * 4500, "100", "100.000",
        ),
        "numeric",
    ),
    TypeCase("numeric(5,2)", ("-999.99", "1.50", "0.00")),
    TypeCase("numeric(3,-2)", ("12300", "0", "NaN")),
    TypeCase("numeric(38,10)", ("9" * 28 + "." + "9" * 10, "-0.0000000001", "0")),
    TypeCase("numeric(2,5)", ("0.00099", "-0.00001")),
    TypeCase("numeric(1000,-1000)", ("1e1999", "0")),
    TypeCase("numeric(1000,1000)", ("-0." + "9" * 1000, "1e-1000")),
    TypeCase("real", ("0", "-0", "NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38", "-3.4028235e38",
                      "1.17549435e-38", "0.1", "16777217"), "float4"),
    TypeCase(
        "double precision",
        ("0", "-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "-1.7976931348623157e308",
         "2.2250738585072014e-308", "0.1", "0.30000000000000004", "1e22",
         "123456789012345680"),
        "float8",
    ),
    TypeCase("money", ("0", "-92233720368547758.08", "92233720368547758.07", "-1.5"), "money"),
    TypeCase("oid", ("0", "4294967295"), "oid"),
]  # fmt: skip
PLAIN = [
    TypeCase("boolean", ("true", "false"), "bool"),
    TypeCase("text", TEXTS, "text"),
    TypeCase("character varying", TEXTS[:20], "varchar"),
    TypeCase("character varying(3)", ("", "abc", "ü€😀")),
    TypeCase("character(5)", ("", "ab", "abcde", " x")),
    TypeCase("bpchar", ("", "ab   ", "abcde", "=1  "), "bpchar"),
    TypeCase('"char"', ("", "a", "\\", "'", "=", ",", '"', "\n", "\\377", "\\200"), "char"),
    TypeCase("name", ("", "a b", "x" * 63), "name"),
    TypeCase("bytea", ("", "\\x", "\\x00ff5c27", "\\x" + "ab" * 1000), "bytea"),
    TypeCase("uuid", ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"), "uuid"),
    TypeCase("json", JSON_TEXTS, "json"),
    TypeCase("jsonb", JSONS, "jsonb"),
    TypeCase("jsonpath", ("$", '$."a b"[*] ? (@ > 1)', 'strict $.a'), "jsonpath"),
    TypeCase("xml", ("<a/>", "<?xml version=\"1.0\"?><a>1</a>", "text only"), "xml", needs="SELECT '<a/>'::xml"),
    TypeCase("bit(3)", ("101", "000")),
    TypeCase('"bit"', ("1", "1010101"), "bit"),
    TypeCase("bit varying", ("", "0", "1" * 100), "varbit"),
    TypeCase("bit varying(4)", ("", "1010")),
]  # fmt: skip
TIMES = [
    TypeCase("date", DATES, "date"),
    TypeCase("timestamp", STAMPS, "timestamp"),
    TypeCase("timestamp(0)", ("2026-11-26 12:34:56", "-infinity")),
    TypeCase("timestamptz", (*(f"{s}+02" if "BC" not in s and s[-1].isdigit() else s for s in STAMPS),
                             "0044-03-15 01:02:03-15:59:59 BC", "1883-11-18 12:03:57+00:00:17"), "timestamptz"),
    TypeCase("timestamptz(3)", ("2026-11-26 12:34:56.789+00", "infinity")),
    TypeCase("time", ("00:00:00", "24:00:00", "23:59:59.999999", "00:00:00.000001"), "time"),
    TypeCase("time(0)", ("24:00:00", "23:59:59")),
    TypeCase("timetz", ("00:00:00+15:59:59", "24:00:00-15:59:59", "12:34:56.789+02", "00:00:00-00:30", "00:00+00"),
             "timetz"),
    TypeCase(
        "interval",
        ("0", "1 year 2 mons -3 days 04:05:06.789", "-1 year", "infinity", "-infinity", "178000000 years",
         "-00:00:00.000001", "178956970 years 7 mons", "-178956970 years -8 mons", "2147483647 days",
         "-2147483648 days",
         "2562047788:00:54.775807", "-2562047788:00:54.775807", "-1 mons +1 day -00:00:01", "1 day -24:00:00"),
        "interval",
    ),
    TypeCase("interval year to month", ("1 year 2 mons", "-11 mons")),
    TypeCase("interval day to second(3)", ("1 day 02:03:04.567",)),
]  # fmt: skip
NETWORK_AND_PLACE = [
    TypeCase("inet", ("1.2.3.4", "1.2.3.4/24", "0.0.0.0/0", "::1", "2001:db8::/32", "::ffff:1.2.3.4"), "inet"),
    TypeCase("cidr", ("10.0.0.0/8", "::/0", "1.2.3.4/32"), "cidr"),
    TypeCase("macaddr", ("08:00:2b:01:02:03",), "macaddr"),
    TypeCase("macaddr8", ("08:00:2b:01:02:03:04:05",), "macaddr8"),
    TypeCase("point", ("(0,0)", "(-0,1e-300)", "(-1.5e300,NaN)", "(Infinity,0.1)"), "point"),
    TypeCase("line", ("{1,-1,0}",), "line"),
    TypeCase("lseg", ("[(0,0),(1,1)]",), "lseg"),
    TypeCase("box", ("(1,1),(0,0)", "(Infinity,NaN),(-Infinity,0)"), "box"),
    TypeCase("path", ("[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"), "path"),
    TypeCase("polygon", ("((0,0),(1,1),(2,0))",), "polygon"),
    TypeCase("circle", ("<(0,0),1.5>", "<(1e300,-1),Infinity>", "<(0,0),0>"), "circle"),
]
SEARCH = [
    TypeCase("tsvector", ("", "'a':1A,2 'b c' 'it''s':3", "'\\\\':1", "'\n' ' ' ','", "'a':16383D"), "tsvector"),
    TypeCase("tsquery", ("", "'a' & !( 'b' | 'c' )", "'fat' <-> 'cat':*AB"), "tsquery"),
]
RANGES = [
    TypeCase("int4range", ("empty", "(,)", "[1,5)", "(,3)", "[2,)"), "int4range"),
    TypeCase("int8range", ("empty", "(,)", "[-9223372036854775808,9223372036854775807)"), "int8range"),
    TypeCase(
        "numrange",
        ("empty", "(,)", "(1.50,2.00]", "[1.0,1.00]", "[NaN,NaN]", "(-Infinity,Infinity)", "[,1e300)"),
        "numrange",
    ),
    TypeCase("daterange", ("empty", "[2026-01-01,infinity)", "(,)", "[-infinity,2026-01-01)"), "daterange"),
    TypeCase("tsrange", ("empty", "(,)", '["2026-01-01 00:00:00",infinity]', '["4714-11-24 00:00:00 BC",)'), "tsrange"),
    TypeCase("tstzrange", ("empty", '["2026-01-01 00:00:00+00",)'), "tstzrange"),
    TypeCase("int4multirange", ("{}", "{[1,3),[5,7)}", "{(,)}"), "int4multirange"),
    TypeCase("int8multirange", ("{}", "{[1,3)}"), "int8multirange"),
    TypeCase("nummultirange", ("{}", "{(,)}", "{[1.5,2.5],(3,)}", "{(,-Infinity],[NaN,NaN]}"), "nummultirange"),
    TypeCase("datemultirange", ("{}", "{[2026-01-01,2026-02-01),[2026-03-01,)}"), "datemultirange"),
    TypeCase("tsmultirange", ("{}", '{["2026-01-01 00:00:00",)}'), "tsmultirange"),
    TypeCase("tstzmultirange", ("{}", '{["2026-01-01 00:00:00+00",)}'), "tstzmultirange"),
    TypeCase("public.mood_range", ("empty", "(,)", '[sad,"so \\"so\\""]')),
    TypeCase("public.mood_multirange", ("{}", '{[sad,"so \\"so\\""],("it\'s, fine",)}')),
    TypeCase("public.text_range", ("empty", "(,)", '["",a)', '["a,b","c\\"d\\\\"]', '("a\nb",)', '[" ",NULL]')),
]
ARRAYS = [
    TypeCase("integer[]", ("{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][2:3]={{1,2},{3,4}}", "{{{1}}}"),
             arrays=False),
    TypeCase("text[]", ("{}", '{""}', '{NULL,"NULL","null"}', '{"a,b","{c}","\\"d\\"","\\\\e"," f "}', "[5:5]={x}"),
             arrays=False),
    TypeCase("boolean[]", ("{t,f,NULL}", "{{t},{f}}"), arrays=False),
    TypeCase("numeric[]", ("{NaN,1.50,Infinity}", "{" + "1" * 60 + "}"), arrays=False),
    TypeCase("json[]", ('{null,NULL,"\\"null\\"","{\\"a\\": 1,  \\"a\\":2}"}', "{}"), arrays=False),
    TypeCase("integer[]", ("{{{{{{1,NULL}}}}}}", "{{NULL,NULL},{1,2}}", "[2147483646:2147483646]={1}",
                           "[-5:-5]={NULL}"), arrays=False),
    TypeCase("text[]", ('{{"",NULL},{"a\nb","{\\"x\\"}"}}', "[0:0][1:2]={{a,NULL}}", '{" ","\t","\\\\","[1]"}'),
             arrays=False),
    TypeCase("date[]", ("[0:1]={infinity,NULL}", '{{2026-01-01},{"0044-03-15 BC"}}', "{-infinity}"), arrays=False),
    TypeCase("timestamptz[]", ('{infinity,NULL,"0044-03-15 00:00:00+00 BC"}', '[2:2]={"2026-01-01 00:00:00+00"}'),
             arrays=False),
    TypeCase("interval[]", ('{{"1 day"},{infinity}}', '[0:0]={"-1 mons +1 day"}'), arrays=False),
    TypeCase("double precision[]", ("{-0,NaN,-Infinity,5e-324,NULL}", "[0:1]={1,0.1}", "{{1},{2}}"), arrays=False),
    TypeCase("real[]", ("{-0,NaN,0.1}",), arrays=False),
    TypeCase("numeric(5,2)[]", ("{1.50,NULL,NaN}", "{{0.00},{-999.99}}"), arrays=False),
    TypeCase("character(5)[]", ('{"ab   ",NULL,""}',), arrays=False),
    TypeCase("jsonb[]", ('{{"null"},{"[1, 2.50]"}}', '[0:0]={"{\\"a\\": \\"b\\"}"}', "{NULL}"), arrays=False),
    TypeCase("bytea[]", ('{{"\\\\x"},{"\\\\x00ff"}}', "[0:0]={NULL}"), arrays=False),
    TypeCase("public.mood[]", ("{{sad,NULL},{\"NULL\",\"\"}}", "[0:0]={sad}"), arrays=False),
    TypeCase("public.pair[]", ('{NULL,"(,,)","(1,\\"\\",{})"}', '[0:0]={"(,x,)"}', '{{"(1,,)"},{"(,,{NULL})"}}'),
             arrays=False),
    TypeCase("int4range[]", ('{empty,"(,)",NULL,"[1,5)"}', '{{"[1,2)"}}'), arrays=False),
    TypeCase("int2vector", ("", "1 2 3"), "int2vector"),
    TypeCase("oidvector", ("", "1 2 3"), "oidvector"),
]  # fmt: skip
OWN = [
    TypeCase("public.mood", ("sad", 'so "so"', "it's, fine", "NULL", "")),
    TypeCase('public."Ünï ""q"", %s {x}"', ("a",)),
    TypeCase("public.pair", ("(,,)", '(1,"",{})', '(1,"a ""b"", (c)\\\\","{1.50,NULL}")')),
    TypeCase("public.nested", ("(,)", '("(1,x,)",sad)', '("(,,)",)')),
    TypeCase("public.json", ("()", '("{""a"":1}")')),
    TypeCase("public.short", ("", "abcd", "=1")),
    TypeCase("public.shorter", ("", "abcd")),
    TypeCase("public.numbers", ("{}", "{1,2}", "[0:0]={1}", "{{1,NULL},{3,4}}")),
    TypeCase("public.moods", ("{}", '{sad,NULL,"NULL",""}', "[0:0]={sad}")),
    TypeCase("public.couple", ("(,,)", '(1,"",{})')),
    TypeCase("public.span", ("empty", "(,)", "[1,5)")),
    TypeCase(
        "public.deep",
        (
            "(,,,,,,)",
            '({},"(,)",empty,null,"\\\\x",t,"")',
            '("{NULL,""(1,\\\\""a b\\\\"",)""}","(""(1,,)"",sad)","[1,5)","{""a"":  1}","\\\\x00ff",f,abcd)',
        ),
    ),
    TypeCase("public.document", JSONS),
    TypeCase("public.plain_json", JSON_TEXTS),
]
SYSTEM = [
    TypeCase("xid", ("0", "4294967295"), "xid"),
    TypeCase("xid8", ("0", "18446744073709551615"), "xid8"),
    TypeCase("cid", ("0", "4294967295"), "cid"),
    TypeCase("tid", ("(0,0)", "(4294967295,65535)"), "tid"),
    TypeCase("pg_lsn", ("0/0", "FFFFFFFF/FFFFFFFF"), "pg_lsn"),
    TypeCase("pg_snapshot", ("1:1:", "10:20:10,14,15"), "pg_snapshot"),
    TypeCase("txid_snapshot", ("1:1:", "10:20:10,14,15"), "txid_snapshot"),
    TypeCase("refcursor", ("", "a cursor"), "refcursor"),
    TypeCase("aclitem", ("=r/pg_monitor", "pg_monitor=r*w/pg_monitor"), "aclitem"),
    TypeCase("regclass", ("pg_class", "-", "4294967295"), "regclass"),
    TypeCase("regcollation", ('"C"', "-"), "regcollation"),
    TypeCase("regconfig", ("english",), "regconfig"),
    TypeCase("regdictionary", ("simple",), "regdictionary"),
    TypeCase("regnamespace", ("pg_catalog", "-"), "regnamespace"),
    TypeCase("regoper", ("||/", "0"), "regoper"),
    TypeCase("regoperator", ("+(integer,integer)", "0"), "regoperator"),
    TypeCase("regproc", ("now", "-"), "regproc"),
    TypeCase("regprocedure", ("now()", "-"), "regprocedure"),
    TypeCase("regrole", ("pg_monitor", "-"), "regrole"),
    TypeCase("regtype", ("integer", "public.mood", "-"), "regtype"),
]
EXTENSIONS = [
    TypeCase("public.citext", ("", "AbC", "NULL", "=1"), extension="citext"),
    TypeCase("public.hstore", ("", '"a"=>"1", "b"=>NULL', '"\\"q\\""=>""'), extension="hstore"),
    TypeCase("public.ltree", ("", "a.b.c"), extension="ltree"),
]
EVERY_TYPE = [
    *NUMBERS, *PLAIN, *TIMES, *NETWORK_AND_PLACE, *SEARCH, *RANGES, *ARRAYS, *OWN, *SYSTEM, *EXTENSIONS
]  # fmt: skip

NO_INPUT = frozenset(
    {
        "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list",
        "pg_ndistinct", "pg_node_tree",
    }
)  # fmt: skip
"""Types of PostgreSQL's own catalogs whose input functions refuse every text: nothing can bring such a value back."""


def make_types(connection: psycopg.Connection[Any]) -> list[TypeCase]:
    """Makes the installation's own types and returns the cases that this server can have."""
    connection.execute(SETUP)
    available = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions")}
    for name in sorted({case.extension for case in EVERY_TYPE if case.extension} & available):
        connection.execute(f'CREATE EXTENSION "{name}" SCHEMA public'.encode())
    return [
        case
        for case in EVERY_TYPE
        if (not case.extension or case.extension in available) and not _lacking(connection, case)
    ]


def unlisted_types(connection: psycopg.Connection[Any]) -> list[str]:
    """Types of this server for columns that the list above does not have."""
    known = {case.base for case in EVERY_TYPE if case.base} | NO_INPUT
    found = connection.execute(
        "SELECT typname FROM pg_catalog.pg_type WHERE typnamespace = 'pg_catalog'::regnamespace"
        " AND typtype IN ('b', 'r', 'm', 'e') AND typcategory <> 'A' OR typname IN ('int2vector', 'oidvector')"
    )
    return sorted({row[0] for row in found} - known)


def _lacking(connection: psycopg.Connection[Any], case: TypeCase) -> bool:
    if not case.needs:
        return False
    try:
        connection.execute(case.needs.encode())
    except psycopg.errors.FeatureNotSupported:
        return True
    return False
