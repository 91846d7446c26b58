"""The steps from a cell to a field's text: each alone, their order, and dates against Python's own reading of them."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.catalog import Entity, Field, ForeignKey
from engine.formats.base import RawBatch
from engine.imports.dates import parse_pattern
from engine.imports.mapping import Columns, Lookup, MappedColumn
from engine.imports.model import FieldMapping, LetterCase
from engine.imports.transform import Refused, transform
from engine.imports.validate import Judge, Judged


def field(base: str = "text", **more) -> Field:
    return Field("f", "f", base, base, "A" if base.startswith("_") else "S", True, base, **more)


def take(
    cells: list[str | None], on: Field | None = None, *, json: bool = False, **steps
) -> tuple[list[str | None], list[Refused]]:
    """What `transform` makes of cells that stand in records 2, 3 …"""
    mapped = MappedColumn(0, on or field(), FieldMapping("f", "f", **steps) if steps else None)
    rows = pa.array(range(2, 2 + len(cells)), pa.int64())
    texts, refused = transform(pa.array(cells, pa.string()), rows, mapped, json=json)
    assert texts.type == pa.string()
    assert len(texts) == len(cells)
    return texts.to_pylist(), refused


def told(refused: list[Refused]) -> list[tuple[int, str, str]]:
    """Row, code and shown value of every refused cell."""
    return [
        (row, one.code, value)
        for one in refused
        for row, value in zip(one.rows.to_pylist(), one.values.to_pylist(), strict=True)
    ]


TEXTS = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


# --- each step


def test_without_steps_a_cell_stays_as_it_is():
    assert take([" A ", "", None]) == ([" A ", "", None], [])


@given(TEXTS)
@example(["\xa0a\u3000", "\x1f\x85b c\v", " ", None, "\u200bx", "\ufeff"])
def test_trim_takes_off_what_python_calls_white_space(cells):
    assert take(cells, trim=True) == ([c if c is None else c.strip() for c in cells], [])


def test_empty_text_becomes_null_only_where_it_is_asked_for():
    assert take(["", " ", "a", None], empty_is_null=True)[0] == [None, " ", "a", None]


@given(TEXTS)
@example(["ß", "ŉ", "İ", "Σας", None])
@example(["abc", "XYZ", None])
def test_letters_are_changed_as_python_changes_them(cells):
    assert take(cells, letter_case=LetterCase.UPPER)[0] == [c if c is None else c.upper() for c in cells]
    assert take(cells, letter_case=LetterCase.LOWER)[0] == [c if c is None else c.lower() for c in cells]


def test_values_are_translated_and_the_others_stay():
    values = (("A", "1"), ("B", "A"), ("C", ""))

    assert take(["A", "B", "C", "a", None], values=values) == (["1", "A", "", "a", None], [])


def test_a_text_that_is_not_listed_is_refused_where_only_listed_ones_are_taken():
    cells, refused = take(["A", "x", "", None], values=(("A", "1"), ("B", "2")), only_listed_values=True)

    assert cells == ["1", None, None, None]
    assert told(refused) == [(3, "VALUE_NOT_MAPPED", "x"), (4, "VALUE_NOT_MAPPED", "")]
    assert refused[0].message == "found a text that the mapping does not list, expected one of 'A', 'B'"


def test_null_becomes_the_default_and_nothing_else_does():
    assert take([None, "", "a"], default="d") == (["d", "", "a"], [])
    assert take([None, "", "a"], default="", empty_is_null=True)[0] == ["", "", "a"]


def test_an_array_in_json_becomes_postgresqls_own():
    numbers = field("_int4")

    assert take(["[1,null,3]", "{1,2}", "[0:1]={1,2}", None, "[]"], numbers, json=True)[0] == [
        "{1,NULL,3}", "{1,2}", "[0:1]={1,2}", None, "{}",
    ]  # fmt: skip
    assert take(["[1]"], numbers)[0] == ["[1]"]
    assert take(["[1]"], field(), json=True)[0] == ["[1]"]


# --- their order


def test_the_steps_are_taken_in_the_contracts_order():
    values = (("YES", "2024-02-01"), ("NO", " "))
    steps: dict[str, Any] = {"trim": True, "empty_is_null": True, "letter_case": LetterCase.UPPER, "values": values}

    assert take(["\tyes ", "  ", None], field("date"), **steps, date_pattern="%Y-%m-%d", default="infinity") == (
        ["2024-02-01", "infinity", "infinity"],
        [],
    )
    assert take([" no"], **steps)[0] == [" "], "what a value becomes is neither trimmed nor made NULL"


def test_a_refused_cell_takes_no_default_and_is_refused_once():
    listed: dict[str, Any] = {"values": (("ok", "1.1.2024"), ("odd", "?")), "only_listed_values": True}
    cells, refused = take(["no", "odd", "ok", None], field("date"), **listed, date_pattern="%d.%m.%Y", default="today")

    assert cells == [None, None, "2024-01-01", "today"]
    assert told(refused) == [(2, "VALUE_NOT_MAPPED", "no"), (3, "INVALID_DATE", "?")]


def test_a_lookups_date_is_read_as_the_targets_field_is():
    reference = ForeignKey("r", ("f",), "public", "days", ("id",), "NO ACTION", "NO ACTION")
    day = field("date")
    target = Entity("days", "public", "days", (day,), ())
    steps = FieldMapping("f", "f", date_pattern="%d.%m.%Y", lookup="day")
    mapped = MappedColumn(0, field("int8"), steps, Lookup(reference, target, day))

    cells, _ = transform(pa.array(["1.2.2024"]), pa.array([2], pa.int64()), mapped, json=False)
    assert cells.to_pylist() == ["2024-02-01"]


# --- what is shown of a refused cell


def test_no_message_and_no_value_shows_a_secret():
    secret = field("date", secret=True)
    for steps in (
        {"date_pattern": "%Y-%m-%d"},
        {"values": (("hidden1", "x"),), "only_listed_values": True},
    ):
        _, refused = take(["hidden2", "hidden1x"], secret, **steps)
        assert {value for _, _, value in told(refused)} == {"***"}
        assert "hidden" not in refused[0].message


def test_a_shown_value_is_cut_and_can_be_stored():
    _, refused = take(["a\0b" + "ü" * 300], field("date"), date_pattern="%Y-%m-%d")

    (shown,) = refused[0].values.to_pylist()
    assert shown.startswith("a\\0bü")
    assert len(shown) == 200


# --- dates

SEPARATORS = st.sampled_from([" ", "-", "/", ".", ", ", "T", "%%", " of "])
DATES = st.permutations(["%d", "%m", "%Y"]) | st.permutations(["%d", "%b", "%y"]) | st.permutations(["%j", "%Y"])
TIMES = st.sampled_from([[], ["%H"], ["%H", "%M"], ["%M", "%H", "%S"], ["%H", "%M", "%S", "%f"], ["%I", "%M", "%p"]])
LONG_NAME = st.permutations(["%d", "%B", "%Y"])
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
NEAR = st.datetimes(datetime(1969, 1, 1), datetime(2068, 12, 31, 23, 59, 59))


@st.composite
def patterns(draw) -> str:
    parts = [*draw(DATES | LONG_NAME), *draw(TIMES)]
    return "".join(part + draw(SEPARATORS) for part in parts[:-1]) + parts[-1]


def read(text: str, pattern: str, base: str = "timestamp", zone: str = "") -> str | None:
    cells, refused = take([text], field(base), date_pattern=pattern, time_zone=zone)
    assert (cells[0] is None) == (len(told(refused)) == 1)
    return cells[0]


@given(patterns(), MOMENTS, NEAR)
def test_what_strftime_writes_is_read_as_strptime_reads_it(pattern, far, near):
    moment = near if "%y" in pattern else far
    text = moment.strftime(pattern)

    found = read(text, pattern)
    assert found is not None
    assert datetime.fromisoformat(found) == datetime.strptime(text, pattern)


@given(patterns(), NEAR, st.data())
def test_what_is_read_at_all_is_read_as_strptime_reads_it(pattern, moment, data):
    """Texts that are a little off: refused, or read with the same meaning."""
    letters = list(moment.strftime(pattern))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(letters) - 1))
        letters[at] = data.draw(st.sampled_from(["", "0", "1", "3", "9", " ", "-", "x", "٣"]))
    text = "".join(letters)

    found = read(text, pattern)
    if found is not None:
        assert datetime.fromisoformat(found) == datetime.strptime(text, pattern)


@given(NEAR, st.integers(-15 * 60 - 59, 15 * 60 + 59), st.booleans())
def test_an_offset_in_the_text_wins_over_the_time_zone(moment, minutes, colon):
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    text = f"{moment:%Y-%m-%d %H:%M:%S}{sign}{hours:02}{':' if colon else ''}{rest:02}"

    found = read(text, "%Y-%m-%d %H:%M:%S%z", "timestamptz", "America/New_York")
    assert found is not None
    assert datetime.fromisoformat(found) == datetime.strptime(text, "%Y-%m-%d %H:%M:%S%z")


def oracle(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """The moments at which the zone's clocks show `local`, found by looking at them from UTC."""
    around = (local.replace(tzinfo=UTC) - timedelta(minutes=15 * n) for n in range(-60, 61))
    offsets = {moment.astimezone(zone).utcoffset() for moment in around}
    moments = sorted(local.replace(tzinfo=UTC) - (offset or timedelta()) for offset in offsets)
    return [m for m in moments if m.astimezone(zone).replace(tzinfo=None) == local]


CHANGES = st.sampled_from(
    [
        ("America/New_York", datetime(2024, 3, 10, 2)),
        ("America/New_York", datetime(2024, 11, 3, 1)),
        ("Europe/Berlin", datetime(2024, 3, 31, 2)),
        ("Europe/Berlin", datetime(2024, 10, 27, 2)),
        ("Europe/Berlin", datetime(2077, 3, 28, 2)),
        ("Europe/Berlin", datetime(1893, 4, 1)),
        ("America/Sao_Paulo", datetime(2018, 11, 4)),
        ("Australia/Lord_Howe", datetime(2024, 4, 7, 1, 45)),
        ("Pacific/Apia", datetime(2011, 12, 30, 12)),
        ("Asia/Kathmandu", datetime(1986, 1, 1)),
    ]
)


@given(CHANGES, st.integers(-100_000, 100_000))
@example(("Pacific/Apia", datetime(2011, 12, 30, 12)), 0)
def test_a_local_time_is_the_one_moment_that_the_zones_clocks_show_it(change, seconds):
    name, at = change
    local = at + timedelta(seconds=seconds)
    moments = oracle(local, ZoneInfo(name))

    found = read(f"{local:%d.%m.%Y %H:%M:%S}", "%d.%m.%Y %H:%M:%S", "timestamptz", name)
    assert ([datetime.fromisoformat(found)] if found else []) == (moments if len(moments) == 1 else [])


@pytest.mark.parametrize(
    ("zone", "text", "found"),
    [
        ("America/New_York", "10.03.2024 01:59:59", "2024-03-10 01:59:59-05:00"),
        ("America/New_York", "10.03.2024 02:00:00", "found a time that America/New_York skips"),
        ("America/New_York", "10.03.2024 02:59:59", "found a time that America/New_York skips"),
        ("America/New_York", "10.03.2024 03:00:00", "2024-03-10 03:00:00-04:00"),
        ("America/New_York", "03.11.2024 00:59:59", "2024-11-03 00:59:59-04:00"),
        ("America/New_York", "03.11.2024 01:00:00", "found a time that America/New_York has twice"),
        ("America/New_York", "03.11.2024 01:59:59", "found a time that America/New_York has twice"),
        ("America/New_York", "03.11.2024 02:00:00", "2024-11-03 02:00:00-05:00"),
        ("Europe/Berlin", "31.03.2024 02:30:00", "found a time that Europe/Berlin skips"),
        ("Europe/Berlin", "27.10.2024 02:30:00", "found a time that Europe/Berlin has twice"),
        ("Europe/Berlin", "27.10.2024 03:00:00", "2024-10-27 03:00:00+01:00"),
        ("Europe/Berlin", "01.07.2099 12:00:00", "2099-07-01 12:00:00+02:00"),
        ("", "01.07.2024 12:00:00", "2024-07-01 12:00:00+00:00"),
        ("UTC", "31.03.2024 02:30:00", "2024-03-31 02:30:00+00:00"),
    ],
)
def test_a_time_that_the_zone_skips_or_has_twice_is_refused(zone, text, found):
    (cell,), refused = take([text], field("timestamptz"), date_pattern="%d.%m.%Y %H:%M:%S", time_zone=zone)

    if cell is None:
        assert told(refused) == [(2, "INVALID_DATE", text)]
        assert refused[0].message.startswith(found)
    else:
        assert (cell, refused) == (found, [])


@pytest.mark.parametrize(
    ("base", "pattern", "text", "found"),
    [
        ("date", "%d.%m.%Y", "1.2.2024", "2024-02-01"),
        ("date", "%d.%m.%Y", "29.02.2024", "2024-02-29"),
        ("date", "%d.%m.%Y", "29.02.2023", "a day that the calendar does not have"),
        ("date", "%d.%m.%Y", "29.02.1900", "a day that the calendar does not have"),
        ("date", "%d.%m.%Y", "29.02.2000", "2000-02-29"),
        ("date", "%d.%m.%Y", "29.02.2400", "2400-02-29"),
        ("date", "%d.%m.%Y", "29.02.2500", "a day that the calendar does not have"),
        ("date", "%d.%m.%Y", "31.04.2024", "a day that the calendar does not have"),
        ("date", "%d.%m.%Y", "01.01.0000", "a day that the calendar does not have"),
        ("date", "%d.%m.%Y", "01.01.0001", "0001-01-01"),
        ("date", "%Y%j", "2024366", "2024-12-31"),
        ("date", "%Y%j", "2023366", "a day that the calendar does not have"),
        ("date", "%Y%j", "2023060", "2023-03-01"),
        ("date", "%d%m%y", "311268", "2068-12-31"),
        ("date", "%d%m%y", "010169", "1969-01-01"),
        ("date", "%d%m%y", "11124", "of the pattern '%d%m%y'"),
        ("date", "%d %B %Y", "3 mAY 2024", "2024-05-03"),
        ("date", "%d %b %Y", "3  Sep\t2024", "2024-09-03"),
        ("date", "%d %B %Y", "3 Mai 2024", "of the pattern"),
        ("date", "%d.%m.%Y", "1.2.2024 ", "of the pattern"),
        ("date", "%d.%m.%Y", "1.2.2024\n", "of the pattern"),
        ("date", "%d.%m.%Y", "1x2x2024", "of the pattern"),
        ("date", "%d.%m.%Y", "\u0661.2.2024", "of the pattern"),
        ("date", "%d.%m.%Y %H:%M:%S", "1.2.2024 00:00:00", "2024-02-01"),
        ("date", "%d.%m.%Y %H:%M:%S", "1.2.2024 00:00:10", "a time of day, which the field does not hold"),
        ("date", "100%% %Y-%m-%d", "100% 2024-02-01", "2024-02-01"),
        ("timestamp", "%d.%m.%Y", "1.2.2024", "2024-02-01 00:00:00"),
        ("timestamp", "%Y-%m-%dT%H:%M:%S.%f", "2024-02-01T1:2:3.05", "2024-02-01 01:02:03.05"),
        ("timestamp", "%Y-%m-%d %H:%M", "2024-02-01 24:00", "of the pattern"),
        ("timestamp", "%Y-%m-%d %H:%M:%S", "2024-02-01 23:59:60", "of the pattern"),
        ("time", "%I:%M %p", "12:05 am", "00:05:00"),
        ("time", "%I:%M %p", "12:05 PM", "12:05:00"),
        ("time", "%I:%M %p", "11:05 pm", "23:05:00"),
        ("timetz", "%H:%M", "23:05", "23:05:00+00:00"),
        ("timetz", "%H:%M%z", "23:05-0330", "23:05:00-03:30"),
        ("timestamptz", "%Y-%m-%d %H:%M:%S%z", "2024-02-01 01:02:03Z", "2024-02-01 01:02:03+00:00"),
        ("timestamptz", "%Y-%m-%d %H:%M:%S%z", "2024-02-01 01:02:03+02", "2024-02-01 01:02:03+02:00"),
        ("timestamptz", "%Y-%m-%d %H:%M:%S%z", "2024-02-01 01:02:03+16:00", "of the pattern"),
    ],
)
def test_a_date_is_read_exactly_or_refused(base, pattern, text, found):
    (cell,), refused = take([text], field(base), date_pattern=pattern)

    if cell is None:
        assert told(refused) == [(2, "INVALID_DATE", text[:200])]
        assert found in refused[0].message
    else:
        assert (cell, refused) == (found, [])


@given(st.text(max_size=20).filter(lambda text: "%" not in text), st.times())
def test_literal_text_of_a_pattern_is_no_regular_expression(literal, at):
    pattern = literal + "%H:%M:%S" + literal
    text = literal + f"{at:%H:%M:%S}" + literal
    if not any("0" <= end <= "9" for end in (literal[:1], literal[-1:])):
        assert take([text], field("time"), date_pattern=pattern)[0] == [time.isoformat(at, "seconds")]


def test_patterns_are_kept():
    assert parse_pattern("%Y-%m-%d") is parse_pattern("%Y-%m-%d")


# --- from file to table


def judged(cells: list[str | None], mapped: MappedColumn) -> Judged:
    batch = pa.RecordBatch.from_arrays([pa.array(cells, pa.string())], ["f"])
    rows = pa.array(range(2, 2 + len(cells)), pa.int64())
    return Judge(Columns(("f",), (mapped,), (), ())).judge(RawBatch(batch, rows))


def test_a_record_with_a_refused_cell_is_judged_on_in_its_other_fields():
    """So that all that is wrong with it is told at once, and its key is known."""
    mapped = MappedColumn(0, field("text"), FieldMapping("f", "f", values=(("a", "b"),), only_listed_values=True))
    found = judged(["a", "x", None], mapped)

    assert found.proven.to_pydict() == {"row": [2, 4], "f": ["b", None]}
    assert found.doubtful.to_pydict() == {"row": [3], "f": [None]}
    assert [(v["row"], v["severity"], v["field"], v["code"], v["value"]) for v in found.verdicts.to_pylist()] == [
        (3, "FAILED", "f", "VALUE_NOT_MAPPED", "x")
    ]


def test_a_required_field_misses_a_value_where_no_step_gives_one():
    required = Field("f", "f", "text", "text", "S", False, "text")
    steps = FieldMapping("f", "f", empty_is_null=True, values=(("a", "b"),), only_listed_values=True)

    verdicts = judged(["", "x", "a", None], MappedColumn(0, required, steps)).verdicts.to_pylist()
    assert sorted((v["row"], v["code"]) for v in verdicts) == [
        (2, "REQUIRED"),
        (3, "VALUE_NOT_MAPPED"),
        (5, "REQUIRED"),
    ]
    assert judged([None], MappedColumn(0, required, FieldMapping("f", "f", default="d"))).verdicts.num_rows == 0


def test_a_looked_up_cell_is_certain_as_the_targets_field_and_null_as_its_own():
    reference = ForeignKey("r", ("f",), "public", "people", ("id",), "NO ACTION", "NO ACTION")
    email = Field("email", "email", "text", "text", "S", False, "text")
    target = Entity("people", "public", "people", (email,), ())
    steps = FieldMapping("f", "f", lookup="email")

    found = judged(["a@example.org", None], MappedColumn(0, field("int8"), steps, Lookup(reference, target, email)))
    assert (found.proven.num_rows, found.verdicts.num_rows) == (2, 0)


def test_a_mapping_with_every_step_ends_in_the_table(made):
    world = made(
        "CREATE TABLE public.a (id int PRIMARY KEY, name text, state text NOT NULL, day date, at timestamptz,"
        " opens time, opens_at timetz, tags int[], origin text, n int DEFAULT 7)"
    )
    mapping = (
        FieldMapping("name", "Name", trim=True, empty_is_null=True, letter_case=LetterCase.UPPER),
        FieldMapping("state", "state", values=(("j", "YES"), ("n", "NO")), only_listed_values=True, default="NO"),
        FieldMapping("day", "when", date_pattern="%d.%m.%Y %H:%M", time_zone=""),
        FieldMapping("at", "at", date_pattern="%d.%m.%Y %H:%M", time_zone="Europe/Berlin"),
        FieldMapping("opens", "opens", date_pattern="%I%p"),
        FieldMapping("opens_at", "opens", date_pattern="%I%p"),
        FieldMapping("origin", constant="shop 'x'"),
        FieldMapping("", "rest"),
    )
    head = "id,Name,state,when,at,opens,rest\n"
    row = world.load(
        "a",
        (
            head
            + "1, ä ,j,1.2.2024 00:00,1.7.2024 12:00,3pm,?\n"
            + "2,  ,,,,,\n"
            + "3,c,x,1.2.2024 10:00,31.03.2024 02:30,25pm,\n"
            + "4,d,j,,27.10.2024 02:30,,\n"
            + "x,e,?,,,,\n"
        ).encode(),
        mapping=mapping,
    )

    assert row.status == "COMPLETED", row.error
    assert world.sql(
        "SELECT id, name, state, day::text, at AT TIME ZONE 'UTC' = '2024-07-01 10:00', opens::text, opens_at::text,"
        " origin, n FROM public.a ORDER BY id"
    ) == [
        (1, "Ä", "YES", "2024-02-01", True, "15:00:00", "15:00:00+00", "shop 'x'", 7),
        (2, None, "NO", None, None, None, None, "shop 'x'", 7),
    ]
    assert {(e.row, e.field, e.code, e.value) for e in world.errors(row)} == {
        (4, "state", "VALUE_NOT_MAPPED", "x"),
        (4, "day", "INVALID_DATE", "1.2.2024 10:00"),
        (4, "at", "INVALID_DATE", "31.03.2024 02:30"),
        (4, "opens", "INVALID_DATE", "25pm"),
        (4, "opens_at", "INVALID_DATE", "25pm"),
        (5, "at", "INVALID_DATE", "27.10.2024 02:30"),
        (6, "id", "INVALID_VALUE", "x"),
        (6, "state", "VALUE_NOT_MAPPED", "?"),
    }
    rejects = world.read(row.rejects_artifact_id).decode()
    assert rejects.startswith(head.strip())
    assert '"3","c","x","1.2.2024 10:00","31.03.2024 02:30","25pm"' in rejects, "the file's own texts, to be corrected"


@pytest.mark.parametrize("base", ["date", "timestamp", "timestamptz", "time", "timetz"])
def test_what_is_read_is_what_postgresql_reads(made, base):
    """The edges of what a pattern takes, given to the server: the same moment, or no such text could be stored."""
    world = made("SELECT 1")
    dated = base not in ("time", "timetz")
    texts = [
        f"{day}{hour}:{minute}"
        for day in (("0001-01-01 ", "1582-10-10 ", "2024-02-29 ", "9999-12-31 ") if dated else ("",))
        for hour, minute in (("00", "00"), ("23", "59"))
        if base != "date" or (hour, minute) == ("00", "00")
    ]
    zones = ("",) if base != "timestamptz" else ("", "Asia/Tokyo", "America/New_York", "Europe/Berlin")
    for zone in zones:
        cells, refused = take(
            list(texts), field(base), date_pattern="%Y-%m-%d %H:%M" if dated else "%H:%M", time_zone=zone
        )
        assert refused == []
        for text, cell in zip(texts, cells, strict=True):
            plain = text if not zone else f"{text} {zone}"
            assert world.sql(f"SELECT '{cell}'::{base} = '{plain}'::{base}") == [(True,)], (text, cell)
