"""Dates and times as a file writes them, by a pattern, turned into the text that PostgreSQL's input functions read.

A pattern is stricter than `strptime`: what it takes, `strptime` takes with the same meaning, but digits must be ASCII,
literal text must be the same in case, and numbers that touch others must have all their digits (`%d%m` does not take
`111`). Names of months are English, in full or by three letters, in any case; `%y` is 1969 to 2068, as POSIX has it.
Times are exact: nothing goes through a float or a time zone that is not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa
import pyarrow.compute as pc

_MONTHS = (
    "january february march april may june july august september october november december".split()  # noqa: SIM905
)
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# directive → (its form, its form beside another digit, what it tells)
_DIRECTIVES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Y": ("[0-9]{4}", "[0-9]{4}", ("year",)),
    "y": ("[0-9]{2}", "[0-9]{2}", ("year",)),
    "m": ("1[0-2]|0?[1-9]", "1[0-2]|0[1-9]", ("month",)),
    "b": ("(?i:" + "|".join(m[:3] for m in _MONTHS) + ")",) * 2 + (("month",),),
    "B": ("(?i:" + "|".join(_MONTHS) + ")",) * 2 + (("month",),),
    "d": ("3[01]|[12][0-9]|0?[1-9]", "3[01]|[12][0-9]|0[1-9]", ("day",)),
    "j": (
        "36[0-6]|3[0-5][0-9]|[12][0-9]{2}|0?[1-9][0-9]|0{0,2}[1-9]",
        "36[0-6]|3[0-5][0-9]|[12][0-9]{2}|0[1-9][0-9]|00[1-9]",
        ("month", "day"),
    ),
    "H": ("2[0-3]|[01]?[0-9]", "2[0-3]|[01][0-9]", ("hour",)),
    "I": ("1[0-2]|0?[1-9]", "1[0-2]|0[1-9]", ("hour",)),
    "p": ("(?i:AM|PM)", "(?i:AM|PM)", ("half",)),
    "M": ("[0-5]?[0-9]", "[0-5][0-9]", ("minute",)),
    "S": ("[0-5]?[0-9]", "[0-5][0-9]", ("second",)),
    "f": ("[0-9]{1,6}", "[0-9]{6}", ("fraction",)),
    "z": (
        "Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?",
        "Z|[+-](?:0[0-9]|1[0-5]):?[0-5][0-9]",
        ("offset",),
    ),
}
_SPACE = " \t\n\r\f\v"
"""A run of these in a pattern stands for any run of them."""
_DATE_PARTS = {"year", "month", "day"}
_NEEDS = {"half": "hour", "minute": "hour", "second": "minute", "fraction": "second"}
_HOLDS = {
    "date": _DATE_PARTS,
    "timestamp": _DATE_PARTS,
    "timestamptz": _DATE_PARTS,
    "time": {"hour"},
    "timetz": {"hour"},
}
"""What a pattern must tell of a value of these types."""

ZONED = ("timestamptz", "timetz")
DATE_TYPES = tuple(_HOLDS)


class PatternFault(ValueError):
    """A pattern that cannot be meant; its text says what was found and expected."""


@dataclass(frozen=True)
class Pattern:
    text: str
    regex: str
    """With one group named for each directive."""
    directives: frozenset[str]
    parts: frozenset[str]
    """What it tells: year, month, day, hour, half, minute, second, fraction, offset."""


@lru_cache(maxsize=1_000)
def parse_pattern(text: str) -> Pattern:
    """Raises:
    PatternFault: for an unknown directive, or a part that is told twice.
    """
    pieces = list(_pieces(text))
    parts: list[str] = []
    regex = []
    for at, (directive, literal) in enumerate(pieces):
        if not directive:
            regex.append(f"[{_SPACE}]+" if literal == " " else re.escape(literal))
            continue
        loose, strict, told = _DIRECTIVES[directive]
        form = strict if _touches(pieces, at) else loose
        regex.append(f"(?P<{directive}>{form})")
        if twice := [part for part in told if part in parts]:
            raise PatternFault(f"found the {twice[0]} twice, expected it once")
        parts += told
    return Pattern(text, f"^{''.join(regex)}$", frozenset(d for d, _ in pieces if d), frozenset(parts))


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Directives and literal characters in order, one of the two empty; a run of white space is one blank."""
    for found in re.finditer(f"%(.?)|[{_SPACE}]+|[^%]", text, re.DOTALL):
        if found[0][0] in _SPACE:
            yield "", " "
        elif found[0][0] != "%" or found[1] == "%":
            yield "", found[0][-1]
        elif found[1] in _DIRECTIVES:
            yield found[1], ""
        else:
            known = " ".join(f"%{d}" for d in _DIRECTIVES)
            raise PatternFault(f"found {found[0]!r}, expected one of {known} %%")


def _touches(pieces: list[tuple[str, str]], at: int) -> bool:
    """Whether a number stands right beside another one, so that only its full width tells where it ends."""
    before = pieces[at - 1] if at else ("", "")
    after = pieces[at + 1] if at + 1 < len(pieces) else ("", "")
    begins = after[1].isdigit() or (after[0] != "" and after[0] not in "bBpz")
    if pieces[at][0] == "z":  # begins with a sign
        return begins
    return begins or before[1].isdigit() or (before[0] != "" and before[0] not in "bBp")


def refuse_misfit(pattern: Pattern, base: str) -> None:
    """That a pattern tells what a value of the type `base` holds, and nothing that would be lost.

    Raises:
        PatternFault.
    """
    parts = pattern.parts
    if lacks := sorted(_HOLDS[base] - parts):
        raise PatternFault(f"found no {' and no '.join(lacks)}, which a {base} has")
    if base in ("time", "timetz") and (more := sorted(parts & _DATE_PARTS)):
        raise PatternFault(f"found a {more[0]}, which a {base} does not hold")
    if "offset" in parts and base not in ZONED:
        raise PatternFault(f"found %z, expected none since a {base} has no time zone")
    for part, other in _NEEDS.items():
        if part in parts and other not in parts:
            raise PatternFault(f"found a {part} without {other}")
    if ("I" in pattern.directives) != ("half" in parts):
        raise PatternFault("expected %I and %p together, found one of them")


def known_zone(name: str) -> bool:
    return name in _zones()


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


@dataclass(frozen=True)
class ReadDates:
    """`texts` is null where the cell was null or is refused; `faults` are masks with what is wrong there."""

    texts: pa.StringArray
    faults: list[tuple[pa.BooleanArray, str]]


def read_dates(cells: pa.StringArray, pattern: Pattern, base: str, zone: str) -> ReadDates:
    """Cells of `pattern` as ISO text for the type `base`; times without an offset are of `zone`, UTC if empty."""
    groups = pc.extract_regex(cells, pattern.regex)
    faults = [(pc.and_(pc.is_valid(cells), pc.is_null(groups)), f"expected a text of the pattern {pattern.text!r}")]
    told = {d: groups.field(d) for d in pattern.directives}
    if groups.null_count:  # a struct's children have values of their own where the struct is null
        told = {d: pc.if_else(pc.is_valid(groups), values, None) for d, values in told.items()}
    date = _date(told) if "year" in pattern.parts else None
    if date is not None:
        faults.append((pc.and_(pc.is_valid(groups), pc.is_null(date)), "found a day that the calendar does not have"))
    time = _time(told, len(cells))
    if base == "date":
        later = pc.fill_null(pc.not_equal(pc.replace_substring_regex(time, "[:.0]", ""), ""), False)
        faults.append((pc.and_(later, pc.is_valid(date)), "found a time of day, which the field does not hold"))
        return ReadDates(pc.if_else(later, None, date), faults)
    if base == "time":
        return ReadDates(time, faults)
    if base == "timestamp":
        return ReadDates(_joined(date, " ", time), faults)
    offset, refused = _offset(told, date, time, zone)
    texts = _joined(time, offset) if date is None else _joined(date, " ", time, offset)
    return ReadDates(texts, [*faults, *refused])


def _date(told: dict[str, pa.StringArray]) -> pa.StringArray:
    """YYYY-MM-DD; null where the calendar has no such day."""
    if "Y" in told:
        year = pc.cast(told["Y"], pa.int32())
    else:
        short = pc.cast(told["y"], pa.int32())
        year = pc.add(short, pc.if_else(pc.less(short, 69), 2000, 1900))
    leap = pc.and_(_divides(4, year), pc.or_(pc.invert(_divides(100, year)), _divides(400, year)))
    if "j" in told:
        at = pc.add(pc.cast(told["j"], pa.int32()), pc.if_else(leap, 365, -1))
        month, day = _MONTH_OF.take(at), _DAY_OF.take(at)
    else:
        month = _month(told)
        day = pc.cast(told["d"], pa.int32())
        most = pc.add(pa.array(_LENGTHS, pa.int32()).take(pc.subtract(month, 1)), _one(pc.and_(leap, _is(2, month))))
        day = pc.if_else(pc.less_equal(day, most), day, None)
    year = pc.if_else(pc.greater(year, 0), year, None)
    return _joined(_digits(year, 4), "-", _digits(month), "-", _digits(day))


def _year_days() -> Iterator[tuple[int | None, int | None]]:
    """Month and day by number of the day, for a common year and then for a leap year; 366 each."""
    for february in (28, 29):
        for month, length in enumerate((31, february, *_LENGTHS[2:]), 1):
            yield from ((month, day) for day in range(1, length + 1))
        if february == 28:
            yield None, None


_MONTH_OF = pa.array([month for month, _ in _year_days()], pa.int32())
_DAY_OF = pa.array([day for _, day in _year_days()], pa.int32())


def _month(told: dict[str, pa.StringArray]) -> pa.Int32Array:
    if "m" in told:
        return pc.cast(told["m"], pa.int32())
    name = pc.utf8_slice_codeunits(pc.ascii_lower(told["b"] if "b" in told else told["B"]), 0, 3)
    return pc.add(pc.index_in(name, value_set=pa.array([m[:3] for m in _MONTHS], pa.string())), 1)


def _time(told: dict[str, pa.StringArray], length: int) -> pa.StringArray:
    """HH:MM:SS, with the fraction as it is written."""
    if "I" in told:
        afternoon = pc.equal(pc.ascii_upper(told["p"]), "PM")
        hour = pc.cast(told["I"], pa.int32())
        hour = pc.add(pc.if_else(_is(12, hour), 0, hour), pc.if_else(afternoon, 12, 0))
    elif "H" in told:
        hour = pc.cast(told["H"], pa.int32())
    else:
        return pa.repeat("00:00:00", length)
    rest = [_digits(pc.cast(told[d], pa.int32())) if d in told else "00" for d in "MS"]
    time = _joined(_digits(hour), ":", rest[0], ":", rest[1])
    return _joined(time, ".", told["f"]) if "f" in told else time


def _offset(
    told: dict[str, pa.StringArray], date: pa.StringArray | None, time: pa.StringArray, zone: str
) -> tuple[pa.StringArray, list[tuple[pa.BooleanArray, str]]]:
    if "z" in told:
        full = pc.replace_substring_regex(told["z"], "^Z$", "+00:00")
        full = pc.replace_substring_regex(full, r"^([+-]\d\d):?(\d\d)$", r"\1:\2")
        return pc.replace_substring_regex(full, r"^([+-]\d\d)$", r"\1:00"), []
    if date is None or zone in ("", "UTC"):
        return pa.repeat("+00:00", len(time)), []
    return _offset_of_zone(date, pc.utf8_slice_codeunits(time, 0, 8), zone)


def _offset_of_zone(
    date: pa.StringArray, time: pa.StringArray, zone: str
) -> tuple[pa.StringArray, list[tuple[pa.BooleanArray, str]]]:
    """Offsets by day, and by second on the few days on which the zone's offset changes.

    `zoneinfo` knows the rules behind a zone's last listed change; pyarrow's own time zones end there.
    """
    days = date.dictionary_encode()
    offsets = pa.array([_offset_all_day(zone, d) for d in days.dictionary.to_pylist()], pa.string()).take(days.indices)
    changing = pc.and_(pc.is_valid(date), pc.is_null(offsets))
    if not changing.true_count:
        return offsets, []
    moments = _joined(date, " ", time).filter(changing).dictionary_encode()
    answers = pa.array([_offset_at(zone, m) for m in moments.dictionary.to_pylist()], pa.string()).take(moments.indices)
    offsets = pc.replace_with_mask(offsets, changing, answers)
    skipped = pc.fill_null(pc.equal(offsets, _SKIPPED), False)
    twice = pc.fill_null(pc.equal(offsets, _TWICE), False)
    faults = [
        (skipped, f"found a time that {zone} skips, expected one that its clocks show"),
        (twice, f"found a time that {zone} has twice, expected one with an offset (%z)"),
    ]
    return pc.if_else(pc.or_(skipped, twice), None, offsets), faults


_SKIPPED, _TWICE = "skipped", "twice"


@lru_cache(maxsize=100_000)
def _offset_all_day(zone: str, date: str) -> str | None:
    """The offset of every moment of a day; None if it changes on it. No zone changes twice within an hour."""
    day, tz = datetime.fromisoformat(date), ZoneInfo(zone)
    times = [day.replace(hour=hour) for hour in range(24)]
    times.append(day.replace(hour=23, minute=59, second=59))
    found = {t.replace(tzinfo=tz, fold=fold).utcoffset() for t in times for fold in (0, 1)}
    return _offset_text(found.pop()) if len(found) == 1 else None


def _offset_at(zone: str, moment: str) -> str:
    local = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))
    first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
    assert first is not None
    assert second is not None
    if first != second:
        return _SKIPPED if first < second else _TWICE
    return _offset_text(first)


def _offset_text(offset: timedelta | None) -> str:
    assert offset is not None
    seconds = int(offset.total_seconds())
    minutes, second = divmod(abs(seconds), 60)
    text = f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{second:02}" if second else text


def _joined(*parts: pa.StringArray | str) -> pa.StringArray:
    """Null where any part is."""
    return pc.binary_join_element_wise(*parts, "")


def _digits(numbers: pa.Int32Array, width: int = 2) -> pa.StringArray:
    return pc.utf8_lpad(pc.cast(numbers, pa.string()), width, "0")


def _divides(by: int, numbers: pa.Int32Array) -> pa.BooleanArray:
    return _is(0, pc.subtract(numbers, pc.multiply(pc.divide(numbers, by), by)))


def _is(number: int, numbers: pa.Int32Array) -> pa.BooleanArray:
    return pc.equal(numbers, number)


def _one(mask: pa.BooleanArray) -> pa.Int32Array:
    return pc.cast(mask, pa.int32())
