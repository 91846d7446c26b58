"""One value as JSON, so that an import reads back exactly what was stored.

PostgreSQL's own `row_to_json` writes; here each field is brought into a type of which that makes the right form:

| type | JSON |
| --- | --- |
| integers, numeric, floats | a number with PostgreSQL's own digits; NaN and the infinities a string |
| boolean | true, false |
| jsonb object, array, number, boolean | as it is |
| jsonb string or null, and every `json` | a string that holds the JSON text |
| arrays of plain elements, counted from 1 | an array |
| all else | a string: PostgreSQL's text under the pinned session settings |

A jsonb null must differ from NULL, which is JSON's null; `json` keeps white space and repeated keys only as text.
"""

from __future__ import annotations

from psycopg import sql

from engine.catalog import Field

_NATIVE = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean"})
_TEXTS = frozenset({"text", "character varying", "bpchar", "name", "uuid", "enum"})
_PLAIN_ELEMENTS = _NATIVE | _TEXTS
"""`to_json` of such an array gives what its elements' input functions read back."""

_MOMENTS = frozenset(
    {
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "time without time zone",
        "time with time zone",
        "interval",
    }
)
"""JSON's own form of a time (with a `T`, without ` BC` in some) is not PostgreSQL's text."""


def json_value(field: Field) -> sql.Composable:
    """The expression whose column in `row_to_json` is the field's JSON form."""
    value = field.expression
    if field.element:
        return _array(field, value)
    if field.bare_type == "jsonb":
        # a jsonb of the text; casting everything else to json would parse each document again
        return sql.SQL(
            "CASE WHEN jsonb_typeof({0}) IN ('string', 'null') THEN to_jsonb({0}::text) ELSE {0}::jsonb END"
        ).format(value)
    if field.bare_type == "json" or field.bare_type in _MOMENTS:
        return sql.SQL("{}::text").format(value)
    if field.bare_type in _NATIVE | _TEXTS:
        return value
    return output_text(value)


def output_text(value: sql.Composable) -> sql.Composable:
    """What the type's output function gives.

    A cast to text may be another thing: bpchar loses its padding, inet gains a mask, a type of the installation's own
    has whatever cast it was given. `num_nulls`, because a composite whose every part is NULL is not NULL.
    """
    return sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN concat({0}) END").format(value)


def _array(field: Field, value: sql.Composable) -> sql.Composable:
    """JSON has no lower bounds: an array that does not count from 1 is a string. Its text then begins with them."""
    if field.element in _MOMENTS:
        elements = sql.SQL("to_json({}::text[])").format(value)
    elif field.element in _PLAIN_ELEMENTS:
        elements = sql.SQL("to_json({})").format(value)
    else:
        return output_text(value)
    return sql.SQL(
        "CASE WHEN array_ndims({0}) = 1 AND array_lower({0}, 1) = 1 THEN {1}"
        " WHEN starts_with({2}, '[') THEN to_json({2}) ELSE {1} END"
    ).format(value, elements, output_text(value))
