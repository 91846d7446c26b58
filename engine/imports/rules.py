"""Validate, second half: what only the server, the other rows and the table can tell, in SQL, a rule at a time."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
from psycopg import sql

from engine.catalog import Catalog, Check, Entity, Field, ForeignKey, UniqueKey
from engine.imports.model import Severity
from engine.imports.refusals import is_refusal
from engine.imports.staging import DOUBTFUL, ROW, STAGED, VERDICTS, Staging, equal
from engine.imports.validate import MASK, SHOWN

_CODES = {
    "22001": "TOO_LONG",
    "22003": "OUT_OF_RANGE",
    "22007": "INVALID_DATE",
    "22008": "INVALID_DATE",
    "23514": "CHECK_VIOLATED",
}


class Rules:
    """The rules of one entity over one staged file. Each leaves its verdicts; a row without one is good."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._entity: Entity = staging.entity
        self.unchecked: list[str] = [
            *self._entity.expression_keys,
            *(key.name for key in self._entity.unique if key.partial or not staging.has(key.columns)),
        ]
        """Names of what planning cannot judge, or could not evaluate, and apply will."""

    def judge(self, unsure: frozenset[str], catalog: Catalog, *, check: Callable[[], None]) -> None:
        """Every rule in turn; `check` is called between them and may raise."""
        for field in self._staging.fields:
            if field.name in unsure:
                self._input(field)
                check()
        self._promote()
        for field in self._staging.fields:
            if field.is_domain:
                self._domain(field)
        for rule in self._entity.checks:
            self._check(rule)
            check()
        self._analyze_verdicts()
        self._duplicates()
        check()
        for key in self._entity.unique:
            if key.columns != self._entity.key and self._staging.has(key.columns) and not key.partial:
                self._unique_in_file(key)
        self._analyze_verdicts()
        self._existing()
        check()
        for key in self._entity.unique:
            if key.columns != self._entity.key and self._staging.has(key.columns) and not key.partial:
                self._unique_taken(key)
                check()
        for reference in self._entity.references:
            if self._staging.has(reference.columns):
                self._reference(reference, catalog)
                check()
        self._analyze_verdicts()

    # --- rules about one row

    def _input(self, field: Field) -> None:
        """The type's own input function on every doubtful text."""
        self._staging.run(
            sql.SQL(
                "INSERT INTO {verdicts} SELECT d.{row}, {failed}, {name}, "
                "coalesce({codes}::jsonb ->> e.sql_error_code, 'INVALID_VALUE'), {message}, {value} "
                "FROM {doubtful} d, LATERAL pg_input_error_info(d.{column}, {type}) e "
                "WHERE d.{column} IS NOT NULL AND e.message IS NOT NULL"
            ).format(
                verdicts=VERDICTS,
                row=ROW,
                failed=sql.Literal(Severity.FAILED.value),
                name=sql.Literal(field.name),
                codes=sql.Literal(json.dumps(_CODES)),
                message=sql.Literal(f"expected {field.storage_type}")
                if field.secret
                else sql.SQL("left(e.message, 300)"),
                value=self._shown(sql.SQL("d.") + sql.Identifier(field.column), field),
                doubtful=DOUBTFUL,
                column=sql.Identifier(field.column),
                type=sql.Literal(field.storage_type),
            )
        )

    def _promote(self) -> None:
        """Doubtful rows that nothing is wrong with become staged ones."""
        casts = [
            sql.SQL("d.{}::{}").format(sql.Identifier(f.column), sql.SQL(f.storage_type)) for f in self._staging.fields
        ]
        columns = [ROW, *(sql.Identifier(f.column) for f in self._staging.fields)]
        self._staging.run(
            sql.SQL(
                "INSERT INTO {} ({}) SELECT {} FROM {} d WHERE NOT EXISTS (SELECT FROM {} v WHERE v.row = d.{})"
            ).format(
                STAGED,
                sql.SQL(", ").join(columns),
                sql.SQL(", ").join([sql.SQL("d.") + ROW, *casts]),
                DOUBTFUL,
                VERDICTS,
                ROW,
            )
        )

    def _domain(self, field: Field) -> None:
        """`staged` holds the type behind the domain, so that the domain's own rules give a verdict, not an error."""
        column = sql.Identifier(field.column)
        self._refuse(
            sql.SQL("NOT pg_input_is_valid(s.{}::text, {})").format(column, sql.Literal(field.type)),
            field.name,
            "CHECK_VIOLATED",
            f"expected a value of {field.type}",
            self._shown(sql.SQL("s.{}::text").format(column), field),
        )

    def _check(self, check: Check) -> None:
        """A CHECK of the table over the planned row; one that cannot be evaluated here is left to apply."""
        if not self._staging.has(check.columns):
            return
        fields = [self._entity.column(column) for column in check.columns]
        value = (
            self._shown(sql.SQL("s.{}::text").format(sql.Identifier(fields[0].column)), fields[0])
            if len(fields) == 1
            else sql.SQL("''")
        )
        try:
            with self._staging.connection.transaction():
                self._refuse(
                    sql.SQL("NOT ({})").format(sql.SQL(check.expression)),
                    ",".join(f.name for f in fields),
                    "CHECK_VIOLATED",
                    f"the check {check.name} does not hold",
                    value,
                )
        except psycopg.Error as error:
            # 25: the check's function writes, which this transaction forbids; that too is for apply to see
            if not is_refusal(error) and not (error.sqlstate or "").startswith("25"):
                raise
            self.unchecked.append(check.name)

    # --- rules about the other rows of the file

    def _duplicates(self) -> None:
        if self._staging.keyed:
            self._repeated(
                self._entity.key, "DUPLICATE_IN_FILE", Severity.SKIPPED, "the key stands in the file already, in row "
            )

    def _unique_in_file(self, key: UniqueKey) -> None:
        message = f"the unique value of {key.name} stands in the file already, in row "
        self._repeated(key.columns, "UNIQUE_IN_FILE", Severity.FAILED, message, nulls_distinct=key.nulls_distinct)

    def _repeated(
        self, columns: tuple[str, ...], code: str, severity: Severity, message: str, *, nulls_distinct: bool = True
    ) -> None:
        """Of the rows that are good so far, the first of each value stands.

        Grouped by hash and joined back, which costs half of a window function's sort where hardly any value repeats.
        """
        names = sql.SQL(", ").join(sql.SQL("s.") + sql.Identifier(c) for c in columns)
        fields = [self._entity.column(c) for c in columns]
        present = sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(c)) for c in columns)
        self._staging.run(
            sql.SQL(
                "INSERT INTO {verdicts} SELECT s.{row}, {severity}, {field}, {code}, {message} || t.first, {value} "
                "FROM (SELECT {names}, min(s.{row}) AS first FROM {staged} s WHERE {present} AND {good} "
                "GROUP BY {names} HAVING count(*) > 1) t JOIN {staged} s ON {same} "
                "WHERE s.{row} <> t.first AND {good}"
            ).format(
                verdicts=VERDICTS,
                row=ROW,
                severity=sql.Literal(severity.value),
                field=sql.Literal(",".join(f.name for f in fields)),
                code=sql.Literal(code),
                message=sql.Literal(message),
                value=self._shown_all(fields, "s"),
                names=names,
                staged=STAGED,
                present=present if nulls_distinct else sql.SQL("true"),
                good=self._good(),
                same=equal(columns, columns, nulls_distinct=nulls_distinct),
            )
        )

    # --- rules about the table

    def _existing(self) -> None:
        """ADDITIVE leaves rows whose key the table has."""
        if not self._staging.keyed:
            return
        fields = [self._entity.column(c) for c in self._entity.key]
        self._refuse(
            sql.SQL("EXISTS (SELECT FROM {} t WHERE {})").format(
                self._entity.relation, equal(self._entity.key, self._entity.key)
            ),
            ",".join(f.name for f in fields),
            "KEY_EXISTS",
            "the table has a row of this key",
            self._shown_all(fields, "s"),
            severity=Severity.SKIPPED,
        )

    def _unique_taken(self, key: UniqueKey) -> None:
        fields = [self._entity.column(c) for c in key.columns]
        self._refuse(
            sql.SQL("EXISTS (SELECT FROM {} t WHERE {})").format(
                self._entity.relation, equal(key.columns, key.columns, nulls_distinct=key.nulls_distinct)
            ),
            ",".join(f.name for f in fields),
            "UNIQUE_TAKEN",
            f"another row of the table has this value of {key.name}",
            self._shown_all(fields, "s"),
        )

    def _reference(self, reference: ForeignKey, catalog: Catalog) -> None:
        """The row referred to must be in the table or, for a self-reference, among the file's good rows."""
        target = catalog.of_table(reference.target_schema, reference.target_table)
        name = target.name if target else f"{reference.target_schema}.{reference.target_table}"
        own = (reference.target_schema, reference.target_table) == (self._entity.schema, self._entity.table)
        fields = [self._entity.column(c) for c in reference.columns]
        present = sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(f.column)) for f in fields)
        found = sql.SQL("NOT EXISTS (SELECT FROM {} t WHERE {})").format(
            sql.Identifier(reference.target_schema, reference.target_table),
            equal(reference.target_columns, reference.columns),
        )
        in_file = own and self._staging.has(reference.target_columns)
        if in_file:
            found = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} t WHERE {} AND {})").format(
                found, STAGED, equal(reference.target_columns, reference.columns), self._good("t")
            )
        while True:
            refused = self._refuse(
                sql.SQL("{} AND {}").format(present, found),
                ",".join(f.name for f in fields),
                "REFERENCE_MISSING",
                f"{name} has no such row",
                self._shown_all(fields, "s"),
            )
            if not (in_file and refused):  # a refused parent may be another row's only one
                return

    # --- the ways everything above is said

    def _refuse(
        self,
        condition: sql.Composable,
        field: str,
        code: str,
        message: str,
        value: sql.Composable,
        severity: Severity = Severity.FAILED,
    ) -> int:
        """A verdict on every good staged row `s` that meets the condition; how many there were."""
        return self._staging.run(
            sql.SQL("INSERT INTO {} SELECT s.{}, {}, {}, {}, {}, {} FROM {} s WHERE {} AND {}").format(
                VERDICTS,
                ROW,
                sql.Literal(severity.value),
                sql.Literal(field),
                sql.Literal(code),
                sql.Literal(message),
                value,
                STAGED,
                condition,
                self._good(),
            )
        )

    def _good(self, alias: str = "s") -> sql.Composable:
        return sql.SQL("NOT EXISTS (SELECT FROM {} v WHERE v.row = {}.{})").format(VERDICTS, sql.SQL(alias), ROW)

    def _shown(self, text: sql.Composable, field: Field) -> sql.Composable:
        if field.secret:
            return sql.Literal(MASK)
        return sql.SQL("coalesce(left({}, {}), '')").format(text, sql.Literal(SHOWN))

    def _shown_all(self, fields: list[Field], alias: str) -> sql.Composable:
        parts = [
            self._shown(sql.SQL("{}.{}::text").format(sql.SQL(alias), sql.Identifier(f.column)), f) for f in fields
        ]
        return sql.SQL(" || ',' || ").join(parts)

    def _analyze_verdicts(self) -> None:
        self._staging.run(sql.SQL("ANALYZE {}").format(VERDICTS))
