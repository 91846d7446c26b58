"""Validate, second half: what the server and the table tell of one row at a time, in SQL, a rule at a time.

What other rows tell stands in `uniques` and `references`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from engine.catalog import Check, Field
from engine.db.platform import one_row
from engine.errors import DataInvalid, FailedPrecondition
from engine.imports.mapping import Lookup, MappedColumn
from engine.imports.model import Severity
from engine.imports.once import stand_once
from engine.imports.refusals import is_refusal
from engine.imports.sqltext import ROW, all_of, equal, joined
from engine.imports.staging import Doubtful, Staging, staged_name
from engine.imports.validate import MASK
from engine.imports.verdicts import Verdicts, names, shown, who

_CODES = {
    "22001": "TOO_LONG",
    "22003": "OUT_OF_RANGE",
    "22007": "INVALID_DATE",
    "22008": "INVALID_DATE",
    "23514": "CHECK_VIOLATED",
}


@dataclass(frozen=True)
class _Condition:
    """A domain or a CHECK: when the staged row `s` breaks it, and what is said of it then."""

    name: str
    broken: sql.Composable
    fields: list[Field]
    message: str
    sooner: sql.Composable | None = None
    """The same at half the cost, with an error where it would be true."""


class Rules:
    """The rules of one entity over one staged file. Each leaves its verdicts; a row without one is good."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._entity = staging.entity
        self._verdicts = Verdicts(staging)
        partial = [k.name for k in self._entity.unique if k.partial]
        self.unchecked: list[str] = [*self._entity.expression_keys, *partial]
        """Names of what planning cannot judge, or could not evaluate, and apply will."""
        self.unchecked_new: list[str] = []
        """The same, of new rows alone: what hangs on values that only the database will give them."""
        for key in self._entity.unique:
            self._note_unjudged(key.name, key.columns)

    def cells(self, unsure: frozenset[str], *, check: Callable[[], None]) -> None:
        """The type's own input function on every doubtful text; rows that nothing is wrong with are staged then.

        Raises:
            Doubtful: where they cannot be, since `staged` does not hold all of a row.
        """
        for mapped in self._staging.columns.mapped:
            if mapped.field.name in unsure:
                self._input(mapped)
                self._too_long(mapped)
                check()
        if not self._staging.narrowed:
            self._promote()
        elif self._any_doubtful():
            raise Doubtful

    def lookups(self, peers: Iterable[Staging]) -> None:
        """References by another unique field: the table's rows first, then those of the file."""
        for mapped in self._staging.columns.mapped:
            if mapped.lookup is not None:
                self._lookup(mapped, mapped.lookup, [p for p in peers if p.is_target(mapped.lookup.reference)])

    def rows(self, *, check: Callable[[], None]) -> None:
        """What a whole row must meet: a value where one is needed, domains, checks; ADDITIVE leaves known keys.

        What the file itself says is judged in every row; what only defaults would say, in rows that will get them.
        """
        for missing in self._staging.columns.missing:
            if missing.code == "COLUMN_MISSING":
                message = "expected a value for a new row, and the file has no column for it"
                self._new_row_refused(missing.field, message)
        self._domains_and_checks(set(self._staging.touched), said=True, check=check)
        self._verdicts.analyze()
        if not self._staging.matches:
            self._staging.once = stand_once(self._staging)
            check()
            if self._staging.narrowed and self._staging.is_joined:
                self._staging.analyze()
        if self._staging.keyed and not self._staging.matches and not self._staging.apart(self._staging.key):
            self._existing()
            self._verdicts.analyze()
        self._domains_and_checks(set(self._staging.touched), said=False, check=check)

    def _domains_and_checks(self, touched: set[str], *, said: bool, check: Callable[[], None]) -> None:
        fields = [f for f in self._staging.columns.planned if f.is_domain and (f.column in touched) is said]
        rules = [self._domain(field) for field in fields]
        rules += [r for c in self._entity.checks if (touched >= set(c.columns)) is said and (r := self._check(c))]
        for rule in self._broken(rules):
            self._try(rule)
            check()

    def _broken(self, rules: list[_Condition]) -> list[_Condition]:
        """Those that some row may break: all are looked at in one pass, which most files hold. One that cannot be
        evaluated makes all of them doubtful."""
        if len(rules) < 2:
            return rules
        found = self._any([rule.sooner or rule.broken for rule in rules])
        if found is None and any(rule.sooner for rule in rules):
            found = self._any([rule.broken for rule in rules])
        return [rule for rule, some in zip(rules, found or [True] * len(rules), strict=True) if some]

    def _any(self, conditions: list[sql.Composable]) -> list[bool] | None:
        """Of each whether some good row meets it; None where one cannot be evaluated."""
        some = joined(sql.SQL("coalesce(bool_or({}), false)").format(condition) for condition in conditions)
        query = sql.SQL("SELECT ARRAY[{}] FROM {} s WHERE {}").format(some, self._staging.staged, self._staging.good())
        try:
            with self._staging.connection.transaction():
                (found,) = one_row(self._staging.connection, query)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            return None
        return list(found)

    def secrets(self) -> None:
        """Raises:
        DataInvalid: SECRET_REQUIRED, once, where a new row would need a secret that nothing fills.
        """
        for missing in self._staging.columns.missing:
            if missing.code == "SECRET_REQUIRED" and self._any_new():
                raise DataInvalid(missing.message, reason=missing.code)

    def _note_unjudged(self, name: str, columns: tuple[str, ...]) -> None:
        staging = self._staging
        if staging.matches and staging.touches(columns) and not staging.knows(columns):
            self.unchecked.append(name)
        elif not staging.has(columns):
            self.unchecked_new.append(name)

    # --- cells

    def _input(self, mapped: MappedColumn) -> None:
        """Raises:
        FailedPrecondition: ENTITY_NOT_IMPORTABLE where the input function knows errors that end the statement only.
        """
        try:
            self._input_errors(mapped, mapped.read_as)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            raise FailedPrecondition(
                f"{self._entity.name}: values of {mapped.field.name}, which is {mapped.read_as.storage_type}, cannot be"
                " checked",
                reason="ENTITY_NOT_IMPORTABLE",
            ) from None

    def _input_errors(self, mapped: MappedColumn, field: Field) -> None:
        secret = mapped.field.secret or field.secret
        text = sql.SQL("d.") + staged_name(mapped)
        self._staging.blame(
            sql.SQL(
                "INSERT INTO {verdicts} SELECT d.{row}, {failed}, {name}, "
                "coalesce({codes}::jsonb ->> e.sql_error_code, 'INVALID_VALUE'), {message}, {value} "
                "FROM {doubtful} d, LATERAL pg_input_error_info({text}, {type}) e "
                "WHERE {text} IS NOT NULL AND e.message IS NOT NULL"
            ).format(
                verdicts=self._staging.verdicts,
                row=ROW,
                failed=sql.Literal(Severity.FAILED.value),
                name=sql.Literal(mapped.field.name),
                codes=sql.Literal(json.dumps(_CODES)),
                message=sql.Literal(f"expected {field.storage_type}") if secret else sql.SQL("left(e.message, 300)"),
                value=sql.Literal(MASK) if secret else shown(text, field),
                doubtful=self._staging.doubtful,
                text=text,
                type=sql.Literal(field.storage_type),
            )
        )

    def _too_long(self, mapped: MappedColumn) -> None:
        """The two types whose input function cuts a text in silence."""
        field, text = mapped.read_as, sql.SQL("d.") + staged_name(mapped)
        cut = {
            "name": sql.SQL("octet_length({}) > 63").format(text),
            "char": sql.SQL("octet_length({0}) > 1 AND {0} !~ {1}").format(text, sql.Literal(r"^\\[0-3][0-7]{2}$")),
        }.get(field.base)
        if cut is None:
            return
        secret = mapped.field.secret or field.secret
        self._staging.blame(
            sql.SQL("INSERT INTO {} SELECT d.{}, {}, {}, 'TOO_LONG', {}, {} FROM {} d WHERE {}").format(
                self._staging.verdicts, ROW, sql.Literal(Severity.FAILED.value), sql.Literal(mapped.field.name),
                sql.Literal(f"found more than a value of {field.storage_type} holds"),
                sql.Literal(MASK) if secret else shown(text, field), self._staging.doubtful, cut,
            )
        )  # fmt: skip

    def _any_doubtful(self) -> bool:
        """Whether some doubtful row has not been refused."""
        (found,) = one_row(
            self._staging.connection,
            sql.SQL("SELECT EXISTS (SELECT FROM {} d WHERE NOT EXISTS (SELECT FROM {} v WHERE v.row = d.{}))").format(
                self._staging.doubtful, self._staging.verdicts, ROW
            ),
        )
        return bool(found)

    def _promote(self) -> None:
        """Doubtful rows that nothing is wrong with become staged ones."""
        staging = self._staging
        into = [ROW, *map(staged_name, staging.columns.mapped)]
        casts = [staging.typed(m) for m in staging.columns.mapped]
        promoted = staging.run(
            sql.SQL(
                "INSERT INTO {} ({}) SELECT {} FROM {} d WHERE NOT EXISTS (SELECT FROM {} v WHERE v.row = d.{})"
            ).format(
                staging.staged, joined(into), joined([sql.SQL("d.") + ROW, *casts]), staging.doubtful,
                staging.verdicts, ROW,
            )
        )  # fmt: skip
        staging.shuffled = staging.shuffled or promoted > 0

    def _lookup(self, mapped: MappedColumn, lookup: Lookup, peers: list[Staging]) -> None:
        staging, text = self._staging, staged_name(mapped)
        target = lookup.reference.target_columns[0]
        source: list[sql.Composable] = [
            sql.SQL("SELECT t.{}, t.{} FROM {} t").format(
                sql.Identifier(lookup.field.column), sql.Identifier(target), lookup.target.relation
            )
        ]
        source += [
            sql.SQL("SELECT DISTINCT ON (q.{0}) q.{0}, q.{1} FROM {2} q WHERE q.{0} IS NOT NULL ORDER BY q.{0}, q.{3}")
            .format(sql.Identifier(lookup.field.column), sql.Identifier(target), peer.staged, ROW)
            for peer in peers
            if peer.has((lookup.field.column, target))
        ]  # fmt: skip
        staging.shuffled = True
        for found in source:
            staging.run(
                sql.SQL(
                    "UPDATE {} s SET {} = f.found FROM ({}) f (text, found) "
                    "WHERE s.{} IS NULL AND f.text {} s.{}"
                ).format(
                    staging.staged, sql.Identifier(mapped.field.column), found, sql.Identifier(mapped.field.column),
                    sql.SQL(lookup.field.equality), text,
                )
            )  # fmt: skip
        self._verdicts.refuse(
            all_of(sql.SQL("s.{} IS NOT NULL AND s.{} IS NULL").format(text, sql.Identifier(mapped.field.column))),
            [mapped.field],
            "LOOKUP_MISSING",
            f"no row of {lookup.target.name} has this {lookup.field.name}",
            value=shown(sql.SQL("s.{}::text").format(text), lookup.field),
        )
        staging.run(sql.SQL("ANALYZE {}").format(staging.staged))

    # --- rows

    def _new_row_refused(self, field: Field, message: str) -> None:
        self._verdicts.refuse(
            sql.SQL("NOT ") + self._staging.is_matched(), [field], "REQUIRED", message, value=sql.SQL("''")
        )

    def _any_new(self) -> bool:
        row = self._staging.connection.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM {} s WHERE {} AND NOT {})").format(
                self._staging.staged, self._staging.good(), self._staging.is_matched()
            )
        ).fetchone()
        return bool(row and row[0])

    def _domain(self, field: Field) -> _Condition:
        """`staged` holds the type behind the domain, so that the domain's own rules give a verdict, not an error."""
        value = sql.SQL("s.") + sql.Identifier(field.column)
        broken = sql.SQL("NOT pg_input_is_valid({}::text, {})").format(value, sql.Literal(field.type))
        sooner = sql.SQL("{0}::{1} IS NULL AND {0} IS NOT NULL").format(value, sql.SQL(field.type))
        return _Condition(field.type, broken, [field], f"expected a value of {field.type}", sooner)

    def _check(self, check: Check) -> _Condition | None:
        """A CHECK of the table over the planned row; None where it concerns no row."""
        applies = who(self._staging, check.columns)
        self._note_unjudged(check.name, check.columns)
        if applies is None:
            return None
        fields = [self._entity.column(column) for column in check.columns]
        broken = all_of(applies, sql.SQL("NOT ({})").format(sql.SQL(check.expression)))
        return _Condition(check.name, broken, fields, f"the check {check.name} does not hold")

    def _try(self, rule: _Condition) -> None:
        """CHECK_VIOLATED where it can be told; a rule that cannot be evaluated here is left to apply, by name."""
        value = sql.SQL("''") if len(rule.fields) > 1 else None
        try:
            with self._staging.connection.transaction():
                self._verdicts.refuse(rule.broken, rule.fields, "CHECK_VIOLATED", rule.message, value=value)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            self.unchecked.append(rule.name)

    def _existing(self) -> None:
        """ADDITIVE leaves rows whose key the table has."""
        fields = self._staging.key_fields
        self._verdicts.refuse(
            sql.SQL("EXISTS (SELECT FROM {} t WHERE {})").format(self._entity.relation, equal(fields)),
            fields,
            "KEY_EXISTS",
            f"the table has a row of this {'key' if self._staging.key == self._entity.key else names(fields)}",
            severity=Severity.SKIPPED,
        )
