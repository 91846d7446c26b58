"""Which rows of an entity, as SQL: checked against the catalog, values bound as literals of the field's type.

COPY takes no parameters, so values are quoted by psycopg on our side, for a session whose `standard_conforming_strings`
and encoding are pinned. Operators are named with their schema: under `search_path = pg_catalog` a citext would be
compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
from psycopg import sql

from engine.catalog import Entity, Field
from engine.db.platform import Connection
from engine.errors import InvalidRequest, Violation
from engine.exports.model import Condition, FilterOperator, Selection, Span

Op = FilterOperator

_COMPARISONS = {Op.LESS: "<", Op.LESS_OR_EQUAL: "<=", Op.GREATER: ">", Op.GREATER_OR_EQUAL: ">="}
_TIMES = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})
_TEXTS = frozenset({"text", "varchar", "bpchar", "citext"})
_QUALIFIED = re.compile(r"(OPERATOR\(.+\.)=\)")

Value = tuple[str, Field, str]
"""What a value is called in the request, its field, and its text."""


def check_selection(entity: Entity, selection: Selection, *, alone: bool) -> list[Value]:
    """Returns the values that `check_values` must find to be of their fields' types.

    Args:
        alone: whether the export takes this entity only; of several, each must have what the filter names.

    Raises:
        InvalidRequest: FIELD_UNKNOWN, FIELD_SECRET, FIELD_NOT_FILTERABLE, FIELD_DUPLICATE, FILTER_NOT_APPLICABLE,
            FILTER_VALUE_INVALID.
    """
    values: list[Value] = []
    for name, span, found in (
        ("created", selection.created, entity.created_field),
        ("updated", selection.updated, entity.updated_field),
    ):
        if any(span):
            _check_span(entity, name, span, found)
    if selection.statuses:
        status = _role_field(entity, "statuses", entity.status_field)
        values += [(f"filter.statuses[{n}]", status, text) for n, text in enumerate(selection.statuses)]
    for number, condition in enumerate(selection.conditions):
        values += _check_condition(entity, condition, f"filter.conditions[{number}]", alone=alone)
    seen: set[str] = set()
    for number, step in enumerate(selection.order_by):
        path = f"order_by[{number}]"
        field = _named_field(entity, step.field, path, alone=True)
        if not field.comparable or not (field.filterable or field.column in entity.key):
            raise _refused(path, f"{field.name!r} is neither filterable nor of the key", reason="FIELD_NOT_FILTERABLE")
        if field.name in seen:
            raise _refused(path, f"{field.name!r} is named twice", reason="FIELD_DUPLICATE")
        seen.add(field.name)
    return values


def check_values(connection: Connection, values: list[Value]) -> None:
    """Asks PostgreSQL whether each value is one of its field's type.

    Raises:
        InvalidRequest: FILTER_VALUE_INVALID, with such values as violations.
    """
    wrong = [value for value in values if not _can_be_sent(value[2])]
    if not wrong and values:
        wrong = _not_of_type(connection, values)
    if wrong:
        path, field, text = wrong[0]
        raise InvalidRequest(
            f"{path}: expected a value of {field.name!r}, which is {field.bare_type}; found {text[:80]!r}",
            reason="FILTER_VALUE_INVALID",
            metadata={"field": field.name, "value": text[:80]},
            violations=[Violation(p, f"{t[:80]!r} is no value of {f.name!r} ({f.bare_type})") for p, f, t in wrong],
        )


def rows_of(entity: Entity, selection: Selection | None) -> sql.Composable:
    """What follows `FROM <relation> t`: WHERE, ORDER BY, LIMIT; nothing without a selection.

    With one the rows stand in its order, ties by the key, so that a limit takes the same rows every time.
    """
    if selection is None:
        return sql.SQL("")
    clauses = list(_conditions(entity, selection))
    where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(clauses) if clauses else sql.SQL("")
    limit = sql.SQL(" LIMIT {}").format(sql.Literal(selection.limit)) if selection.limit else sql.SQL("")
    return where + sql.SQL(" ORDER BY ") + sql.SQL(", ").join(_order(entity, selection)) + limit


def _check_span(entity: Entity, name: str, span: Span, found: str) -> None:
    field = _role_field(entity, name, found)
    if field.bare_type not in _TIMES:
        raise _not_applicable(
            f"filter.{name}", f"{field.name!r} of {entity.name} is {field.bare_type}, which is no time"
        )
    start, end = span
    if start is not None and end is not None and start > end:
        raise _refused(
            f"filter.{name}", "expected a start before the end, found it after", reason="FILTER_VALUE_INVALID"
        )


def _check_condition(entity: Entity, condition: Condition, path: str, *, alone: bool) -> list[Value]:
    field = _named_field(entity, condition.field, f"{path}.field", alone=alone)
    operator, count = condition.operator, len(condition.values)
    if not field.filterable:
        raise _refused(
            f"{path}.field", f"{field.name!r} of {entity.name} is not filterable", reason="FIELD_NOT_FILTERABLE"
        )
    if operator in (Op.IS_NULL, Op.IS_NOT_NULL):
        if count:
            raise _refused(f"{path}.values", f"{operator} takes no value, found {count}", reason="FILTER_VALUE_INVALID")
        return []
    if operator is Op.PREFIX and field.base not in _TEXTS:
        raise _not_applicable(path, f"PREFIX needs a text type, {field.name!r} of {entity.name} is {field.type}")
    if not field.comparable or (operator in _COMPARISONS and _operator(field, "<") is None):
        raise _not_applicable(path, f"values of {field.name!r} ({field.type}) cannot be compared")
    if operator in (Op.IN, Op.NOT_IN):
        if not count:
            raise _refused(
                f"{path}.values", f"{operator} takes one value or more, found none", reason="FILTER_VALUE_INVALID"
            )
    elif count != 1:
        raise _refused(f"{path}.values", f"{operator} takes one value, found {count}", reason="FILTER_VALUE_INVALID")
    return [(f"{path}.values[{number}]", field, text) for number, text in enumerate(condition.values)]


def _role_field(entity: Entity, part: str, name: str) -> Field:
    field = entity.field(name) if name else None
    if field is None:
        raise _not_applicable(f"filter.{part}", f"{entity.name} has no field for {part!r} in the catalog")
    if field.secret:
        raise _refused(f"filter.{part}", f"{name!r} is secret", reason="FIELD_SECRET")
    return field


def _named_field(entity: Entity, name: str, path: str, *, alone: bool) -> Field:
    field = entity.field(name)
    if field is None and not alone:
        raise _not_applicable(path, f"{name!r} is no field of {entity.name}")
    if field is None:
        raise _refused(path, f"{name!r} is no field of {entity.name}", reason="FIELD_UNKNOWN")
    if field.secret:
        raise _refused(path, f"{name!r} is secret; nothing can be told by it", reason="FIELD_SECRET")
    return field


def _can_be_sent(text: str) -> bool:
    """Whether PostgreSQL's text can hold it: no NUL, no half of a surrogate pair."""
    return not re.search("[\0\ud800-\udfff]", text)


def _not_of_type(connection: Connection, values: list[Value]) -> list[Value]:
    texts, types = [text for _, _, text in values], [field.bare_type for _, field, _ in values]
    query = (
        "SELECT n FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY v(value, type, n)"
        " WHERE NOT pg_input_is_valid(value, type) ORDER BY n"
    )
    try:
        found = connection.execute(query, (texts, types)).fetchall()
    except psycopg.errors.DataError:
        # an input function of an extension that raises instead of answering: one by one, to say which
        return [value for value in values if not _is_input(connection, value)]
    return [values[number - 1] for (number,) in found]


def _is_input(connection: Connection, value: Value) -> bool:
    try:
        with connection.transaction():
            row = connection.execute("SELECT pg_input_is_valid(%s, %s)", (value[2], value[1].bare_type)).fetchone()
    except psycopg.errors.DataError:
        return False
    return bool(row and row[0])


def _conditions(entity: Entity, selection: Selection) -> Iterator[sql.Composable]:
    for name, span in ((entity.created_field, selection.created), (entity.updated_field, selection.updated)):
        for moment, operator in zip(span, (">=", "<"), strict=True):
            if moment is not None:
                # a time without zone is read in the session's: UTC
                yield sql.SQL("{} {} {}::timestamptz").format(
                    _named(entity, name).expression, sql.SQL(operator), sql.Literal(moment.isoformat())
                )
    if selection.statuses:
        yield _is_one_of(_named(entity, entity.status_field), selection.statuses)
    for condition in selection.conditions:
        yield _condition(_named(entity, condition.field), condition)


def _condition(field: Field, condition: Condition) -> sql.Composable:
    operator, values = condition.operator, condition.values
    if operator is Op.IN:
        return _is_one_of(field, values)
    if operator is Op.NOT_IN:
        return sql.SQL("({}) IS NOT TRUE").format(_is_one_of(field, values))
    if operator in (Op.IS_NULL, Op.IS_NOT_NULL):
        # IS NULL also holds for a composite whose parts are all NULL
        word = "IS NOT DISTINCT FROM NULL" if operator is Op.IS_NULL else "IS DISTINCT FROM NULL"
        return sql.SQL("({} {})").format(field.expression, sql.SQL(word))
    if operator is Op.PREFIX:
        return _begins_with(field, values[0])
    return sql.SQL("{} {} {}").format(
        field.expression, sql.SQL(_operator(field, _COMPARISONS[operator]) or ""), _literal(field, values[0])
    )


def _is_one_of(field: Field, values: tuple[str, ...]) -> sql.Composable:
    equals = sql.SQL(field.equality)
    if field.element:  # an array of arrays would be one array of more dimensions
        each = (sql.SQL("{} {} {}").format(field.expression, equals, _literal(field, value)) for value in values)
        return sql.SQL("({})").format(sql.SQL(" OR ").join(each))
    listed = sql.SQL(", ").join(_literal(field, value) for value in values)
    return sql.SQL("{} {} ANY (ARRAY[{}])").format(field.expression, equals, listed)


def _begins_with(field: Field, value: str) -> sql.Composable:
    """Byte for byte, `%` and `_` mean themselves; of a citext as it compares itself, by lower case.

    COLLATE "C": a nondeterministic collation knows no prefixes.
    """
    text, prefix = sql.SQL("{}::text").format(field.expression), sql.SQL("{}::text").format(sql.Literal(value))
    if field.base == "citext":
        text, prefix = sql.SQL("lower({})").format(text), sql.SQL("lower({})").format(prefix)
    return sql.SQL('starts_with({} COLLATE "C", {} COLLATE "C")').format(text, prefix)


def _order(entity: Entity, selection: Selection) -> list[sql.Composable]:
    steps: list[sql.Composable] = []
    for step in selection.order_by:
        way = "DESC NULLS FIRST" if step.descending else "ASC NULLS LAST"
        steps.append(sql.SQL("{} {}").format(_named(entity, step.field).expression, sql.SQL(way)))
    key = [entity.column(column) for column in entity.key]
    if key and not any(field.secret for field in key):
        named = {step.field for step in selection.order_by}
        return steps + [field.expression for field in key if field.name not in named]
    # by place: the same in one snapshot, and a secret's order would tell of the secret
    return [*steps, sql.SQL("t.tableoid"), sql.SQL("t.ctid")]


def _operator(field: Field, name: str) -> str | None:
    """The comparison beside the field's equality; None where that is called something else than `=`."""
    if field.equality == "=":
        return name
    found = _QUALIFIED.fullmatch(field.equality)
    return f"{found[1]}{name})" if found else None


def _literal(field: Field, value: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(field.bare_type))


def _named(entity: Entity, name: str) -> Field:
    field = entity.field(name)
    if field is None:
        raise _refused("filter", f"{name!r} is no field of {entity.name}", reason="FIELD_UNKNOWN")
    return field


def _not_applicable(path: str, why: str) -> InvalidRequest:
    return _refused(path, why, reason="FILTER_NOT_APPLICABLE")


def _refused(path: str, why: str, *, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {why}", reason=reason, violations=[Violation(path, why)])
