"""Validate, second half: what only the server, the other rows and the table can tell, in SQL, a rule at a time."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
from psycopg import sql

from engine.catalog import Catalog, Check, Entity, Field, ForeignKey, UniqueKey
from engine.errors import FailedPrecondition
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
        self._existing()
        check()
        keys = [k for k in self._entity.unique if k.columns != self._entity.key and not k.partial]
        keys = [k for k in keys if self._staging.has(k.columns)]
        for key in keys:
            self._unique_taken(key)
            check()
        references = [r for r in self._entity.references if self._staging.has(r.columns)]
        own = [r for r in references if self._staging.in_file(r)]
        for reference in references:
            if reference not in own:
                self._reference(reference, catalog)
                check()
        # What stands in the file twice is told last, so that "the first stands" is true. A row that refers to a refused
        # one is refused with it, and may itself have been the first of its key: again, until none is.
        while True:
            self._forget("DUPLICATE_IN_FILE", "UNIQUE_IN_FILE")
            self._analyze_verdicts()
            self._duplicates()
            for key in keys:
                self._unique_in_file(key)
            self._analyze_verdicts()
            check()
            if not sum(self._reference(reference, catalog) for reference in own):
                break
        self._analyze_verdicts()

    # --- rules about one row

    def _input(self, field: Field) -> None:
        """The type's own input function on every doubtful text.

        Raises:
            FailedPrecondition: ENTITY_NOT_IMPORTABLE where that function knows errors that end the statement only.
        """
        try:
            self._input_errors(field)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            raise FailedPrecondition(
                f"{self._entity.name}: values of {field.name}, which is {field.storage_type}, cannot be checked",
                reason="ENTITY_NOT_IMPORTABLE",
            ) from None

    def _input_errors(self, field: Field) -> None:
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
        self._try(
            field.type,
            sql.SQL("NOT pg_input_is_valid(s.{}::text, {})").format(column, sql.Literal(field.type)),
            field.name,
            f"expected a value of {field.type}",
            self._shown(sql.SQL("s.{}::text").format(column), field),
        )

    def _check(self, check: Check) -> None:
        """A CHECK of the table over the planned row."""
        if not self._staging.has(check.columns):
            self.unchecked.append(check.name)
            return
        fields = [self._entity.column(column) for column in check.columns]
        value = (
            self._shown(sql.SQL("s.{}::text").format(sql.Identifier(fields[0].column)), fields[0])
            if len(fields) == 1
            else sql.SQL("''")
        )
        condition = sql.SQL("NOT ({})").format(sql.SQL(check.expression))
        name = ",".join(f.name for f in fields)
        self._try(check.name, condition, name, f"the check {check.name} does not hold", value)

    def _try(self, name: str, condition: sql.Composable, field: str, message: str, value: sql.Composable) -> None:
        """CHECK_VIOLATED where it can be told; a rule that cannot be evaluated here is left to apply, by name."""
        try:
            with self._staging.connection.transaction():
                self._refuse(condition, field, "CHECK_VIOLATED", message, value)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            self.unchecked.append(name)

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
                'INSERT INTO {verdicts} SELECT s.{row}, {severity}, {field}, {code}, {message} || t."#first", {value} '
                'FROM (SELECT {names}, min(s.{row}) AS "#first" FROM {staged} s WHERE {present} AND {good} '
                "GROUP BY {names} HAVING count(*) > 1) t JOIN {staged} s ON {same} "
                'WHERE s.{row} <> t."#first" AND {good}'
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
                same=equal(fields, nulls_distinct=nulls_distinct),
            )
        )

    # --- rules about the table

    def _existing(self) -> None:
        """ADDITIVE leaves rows whose key the table has."""
        if not self._staging.keyed:
            return
        fields = [self._entity.column(c) for c in self._entity.key]
        self._refuse(
            sql.SQL("EXISTS (SELECT FROM {} t WHERE {})").format(self._entity.relation, equal(fields)),
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
                self._entity.relation, equal(fields, nulls_distinct=key.nulls_distinct)
            ),
            ",".join(f.name for f in fields),
            "UNIQUE_TAKEN",
            f"another row of the table has this value of {key.name}",
            self._shown_all(fields, "s"),
        )

    def _forget(self, *codes: str) -> None:
        self._staging.run(sql.SQL("DELETE FROM {} WHERE code = ANY({})").format(VERDICTS, sql.Literal(list(codes))))

    def _reference(self, reference: ForeignKey, catalog: Catalog) -> int:
        """The row referred to must be in the table or, for a self-reference, among the file's good rows.

        How many were refused. With a refused row go those that refer to it, and to those, in one statement.
        """
        target = catalog.of_table(reference.target_schema, reference.target_table)
        fields = [self._entity.column(c) for c in reference.columns]
        columns = [sql.SQL("s.{}").format(sql.Identifier(f.column)) for f in fields]
        absent = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} t WHERE {})").format(
            sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(column) for column in columns),
            # ONLY, as the constraint sees it: an inheriting table's rows do not count
            target.relation if target else sql.Identifier(reference.target_schema, reference.target_table),
            equal(fields, reference.target_columns),
        )
        partly = sql.SQL("num_nulls({}) BETWEEN 1 AND {}").format(
            sql.SQL(", ").join(columns), sql.Literal(len(fields) - 1 if reference.match_full else 0)
        )
        in_file = self._staging.in_file(reference)
        missing = self._lost(fields, reference, absent) if in_file else absent
        return self._refuse(
            sql.SQL("({} OR {})").format(missing, partly),
            ",".join(f.name for f in fields),
            "REFERENCE_MISSING",
            f"{target.name if target else reference.target_table} has no such row",
            self._shown_all(fields, "s"),
        )

    def _lost(self, fields: list[Field], reference: ForeignKey, absent: sql.Composable) -> sql.Composed:
        """That a row's parent is neither in the table nor a good row of the file, or is such a row itself.

        Every value referred to has one good row at the most, since repeated ones are refused before.
        """
        return sql.SQL(
            "s.{row} IN (WITH RECURSIVE lost(row) AS ("
            "SELECT s.{row} FROM {staged} s WHERE {good} AND {absent} "
            "AND NOT EXISTS (SELECT FROM {staged} t WHERE {refers} AND {parent_good}) "
            "UNION SELECT s.{row} FROM lost l JOIN {staged} t ON t.{row} = l.row JOIN {staged} s ON {refers} "
            "WHERE {good} AND {absent}) SELECT row FROM lost)"
        ).format(
            row=ROW,
            staged=STAGED,
            good=self._good(),
            absent=absent,
            refers=equal(fields, reference.target_columns),
            parent_good=self._good("t"),
        )

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
