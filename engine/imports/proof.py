"""Which texts are certainly valid values of a type, told without asking the server.

A pattern here is a proof, not a definition: what matches is accepted by PostgreSQL's own input function, what does not
is only doubtful and goes to that function. So a missed match costs time, never a row, as long as every pattern stays
inside what the server accepts; a property test holds each one against `pg_input_is_valid`.
"""

from __future__ import annotations

from engine.catalog import Field

_YEAR = r"[1-9][0-9]{3}"
_LEAP_YEAR = r"(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
_SHORT = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
_LONG = r"(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31"
_DATE = rf"(?:{_YEAR}-(?:{_SHORT}|{_LONG})|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
_STRING = r'"[^"\\\x00-\x1f]*"'
_VALUE = rf"(?:{_STRING}|-?(?:0|[1-9][0-9]{{0,14}})(?:\.[0-9]{{1,15}})?|true|false|null)"
_PAIR = rf"{_STRING} ?: ?{_VALUE}"
_WORD = r"[A-Za-z0-9_]+"

_PATTERNS = {
    "int2": r"-?[0-9]{1,4}",
    "int4": r"-?[0-9]{1,9}",
    "int8": r"-?[0-9]{1,18}",
    "oid": r"0|[1-9][0-9]{0,8}",
    "float4": r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?",
    "float8": r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?",
    "bool": r"t|f|true|false|0|1",
    "uuid": r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    "date": _DATE,
    "timestamp": rf"{_DATE}[ T]{_TIME}",
    "timestamptz": rf"{_DATE}[ T]{_TIME}{_ZONE}?",
    "time": _TIME,
    "json": rf"\{{(?:{_PAIR}(?:, ?{_PAIR})*)?\}}",
    "jsonb": rf"\{{(?:{_PAIR}(?:, ?{_PAIR})*)?\}}",
    "bytea": r"\\x(?:[0-9a-f]{2})*",
    "_text": rf"\{{(?:{_WORD}(?:,{_WORD})*)?\}}",
}


def always_valid(field: Field) -> bool:
    """Whether every text is a value of the field (NUL bytes apart)."""
    return field.base == "text" or (field.base == "varchar" and field.modifier < 0)


def longest(field: Field) -> int | None:
    """The most characters that a text field holds; None where the type says nothing of it."""
    if field.base in ("varchar", "bpchar") and field.modifier >= 4:
        return field.modifier - 4
    return None


def pattern(field: Field) -> str | None:
    """A pattern whose whole matches are valid values; None where nothing is certain."""
    if field.base == "numeric":
        found = _numeric(field.modifier)
    else:
        found = _PATTERNS.get(field.base, "")
        if field.modifier >= 0 and field.base not in ("int2", "int4", "int8"):
            found = ""  # timestamp(3) and its like round; leave them to the server
    return rf"^(?:{found})$" if found else None


def _numeric(modifier: int) -> str:
    """`numeric(p, s)` packs p and s into its modifier, s as an 11-bit two's complement."""
    if modifier < 4:
        return r"-?[0-9]{1,100}(?:\.[0-9]{1,100})?"
    precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
    whole = precision - scale
    if scale >= 1024 or whole < 1:
        return ""
    fraction = rf"(?:\.[0-9]{{1,{scale}}})?" if scale else ""
    return rf"-?[0-9]{{1,{whole}}}{fraction}"
