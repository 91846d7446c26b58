"""What unique keys tell: values that stand twice in the file, that another row of the table has, and that move.

A value of another row is free if the plan deletes that row, or updates it to another value first. Updates then go in
rounds: who wants a value waits for who has it. A circle of such waits cannot be written row by row and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from engine.catalog import Field, UniqueKey
from engine.imports.model import ImportType, Severity
from engine.imports.once import Value, that_repeat
from engine.imports.sqltext import ROW, all_of, equal, joined, listed
from engine.imports.staging import Staging
from engine.imports.verdicts import EVERY_ROW, Verdicts, names, shown_all, who

MOST_ROUNDS = 20
"""Rounds of telling which row stands first, where rows repeat some values of one row and some of another. A file made
to need more has rows refused behind some that are refused themselves."""


@dataclass(frozen=True)
class _Rule:
    """A value that may stand once in the file, and what is said of rows that repeat it."""

    value: Value
    code: str
    message: str
    severity: Severity

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.value.fields

    def repeats(self, staging: Staging) -> sql.Composed:
        """FROM and WHERE of the good rows `s` behind the first of their value, which is `t."#first"`.

        Grouped by hash and joined back, which costs half of a window function's sort where hardly any value repeats.
        """
        return sql.SQL(
            'FROM (SELECT {columns}, min(s.{row}) AS "#first" FROM {staged} s WHERE {counted} GROUP BY {columns} '
            'HAVING count(*) > 1) t JOIN {staged} s ON {same} WHERE s.{row} <> t."#first" AND {counted}'
        ).format(
            columns=listed("s", [f.column for f in self.fields]),
            row=ROW,
            staged=staging.staged,
            counted=all_of(self.value.counted(), staging.good()),
            same=equal(self.fields, nulls_distinct=self.value.nulls_distinct),
        )


class Uniques:
    """The unique keys of one entity, beside the one that rows are found by."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._entity = staging.entity
        self._verdicts = Verdicts(staging)
        found = {k.name: who(staging, k.columns) for k in staging.other_keys}
        self._applies = {name: applies for name, applies in found.items() if applies is not None}
        self._keys = [k for k in staging.other_keys if k.name in self._applies]

    def look(self) -> None:
        """Which rows want a value that another row of the table has, and which row of the file would free it."""
        for number, key in enumerate(self._keys):
            if not self._staging.apart(key.columns, nulls_distinct=key.nulls_distinct):
                self._staging.run(self._wants(number, key))
        if self._keys:
            self._staging.run(sql.SQL("ANALYZE {}").format(self._staging.wants))

    def repeated(self) -> int:
        """Of the good rows of one value the first stands, if it stands for its other values too; how many do not."""
        rules = self._that_repeat(self._rules())
        found = 0
        for number in range(MOST_ROUNDS + 1):
            before = rules if number < MOST_ROUNDS else []  # at last behind any row, certain to stand or not
            more = sum(self._repeat(rule, before) for rule in rules)
            found += more
            if not more:
                break
        return found

    def _rules(self) -> list[_Rule]:
        staging, found = self._staging, []
        if staging.keyed:
            message = "the key stands in the file already, in row "
            found.append(_Rule(Value(tuple(staging.key_fields)), "DUPLICATE_IN_FILE", message, Severity.SKIPPED))
        for key in self._keys:
            message = f"the unique value of {key.name} stands in the file already, in row "
            applies = self._applies[key.name]
            value = Value(tuple(self._fields(key)), key.nulls_distinct, None if applies == EVERY_ROW else applies)
            found.append(_Rule(value, "UNIQUE_IN_FILE", message, Severity.FAILED))
        return found

    def _that_repeat(self, rules: list[_Rule]) -> list[_Rule]:
        """Those of which some value may stand twice. Of 1,000,000 users this looks at both unique values in 0.5 s,
        where finding the repeated ones takes 0.9 s for each."""
        rules = [r for r in rules if not self._staging.apart(r.value.columns, nulls_distinct=r.value.nulls_distinct)]
        if not rules:
            return []
        found = that_repeat(self._staging, [rule.value for rule in rules])
        return [rule for rule, some in zip(rules, found, strict=True) if some]

    def taken(self) -> int:
        """Refuses good rows whose value another row of the table keeps, and those that wait for them; how many."""
        if not self._keys:
            return 0
        staging = self._staging
        fields = [self._fields(key) for key in self._keys]
        messages = [f"another row of the table has this value of {key.name}" for key in self._keys]
        values = joined(
            (sql.SQL("WHEN {} THEN {}").format(sql.Literal(n), shown_all(f)) for n, f in enumerate(fields)), " "
        )
        return staging.blame(
            sql.SQL(
                "INSERT INTO {verdicts} SELECT s.{row}, {severity}, ({fields}::text[])[l.rule + 1], 'UNIQUE_TAKEN', "
                "({messages}::text[])[l.rule + 1], CASE l.rule {values} END FROM {staged} s "
                "JOIN (SELECT row, min(rule) FROM ({lost}) f GROUP BY row) l (row, rule) ON l.row = s.{row}"
            ).format(
                verdicts=staging.verdicts, row=ROW, severity=sql.Literal(Severity.FAILED.value),
                fields=sql.Literal([names(f) for f in fields]), messages=sql.Literal(messages), values=values,
                staged=staging.staged, lost=self._lost(),
            )
        )  # fmt: skip

    def circles(self) -> int:
        """Orders the updates that wait for one another, and refuses those that do so in a circle; how many."""
        staging = self._staging
        if not staging.may_wait:
            return 0
        moving = [n for n, key in enumerate(self._keys) if not key.deferrable]
        for table in (staging.waits, staging.rounds):
            staging.run(sql.SQL("DELETE FROM {}").format(table))
        waiting = staging.run(
            sql.SQL(
                "INSERT INTO {waits} SELECT DISTINCT w.row, w.mover FROM {wants} w JOIN {matched} m ON m.{row} = w.row "
                "WHERE NOT w.free AND w.rule = ANY({moving}) AND {mover} "
                "AND NOT EXISTS (SELECT FROM {verdicts} v WHERE v.row = w.row)"
            ).format(
                waits=staging.waits, wants=staging.wants, matched=staging.matched, row=ROW,
                moving=sql.Literal(moving), mover=self._mover_good("w"), verdicts=staging.verdicts,
            )
        )  # fmt: skip
        if not waiting:
            return 0
        self._order(waiting)
        return self._verdicts.refuse(
            sql.SQL(
                "s.{0} IN (SELECT w.row FROM {1} w WHERE NOT EXISTS (SELECT FROM {2} r WHERE r.row = w.row))"
            ).format(ROW, staging.waits, staging.rounds),
            [],
            "UNIQUE_CYCLE",
            "its unique value is another row's, which waits for this one's in a circle; import them in two steps",
        )

    # --- how

    def _fields(self, key: UniqueKey) -> list[Field]:
        return [self._entity.column(c) for c in key.columns]

    def _wants(self, number: int, key: UniqueKey) -> sql.Composed:
        """One line for each (row, holder of its value, row that would move the holder away)."""
        staging, fields = self._staging, self._fields(key)
        keyed = staging.keyed
        own = sql.SQL("({}) IS NOT TRUE").format(equal(staging.key_fields)) if keyed and staging.matches else None
        moves: sql.Composable = sql.SQL("NULL::bigint")
        join: sql.Composable = sql.SQL("")
        if staging.matches and staging.touches(key.columns):
            differs = equal(fields, s="q", t="t", nulls_distinct=key.nulls_distinct)
            join = sql.SQL("LEFT JOIN ({} q JOIN {} m ON m.{} = q.{}) ON {} AND ({}) IS NOT TRUE").format(
                staging.staged, staging.matched, ROW, ROW, equal(staging.key_fields, s="q"), differs
            )
            moves = sql.SQL("q.") + ROW
        free = staging.leaves("t") if staging.mode is ImportType.REPLACE else sql.SQL("false")
        return sql.SQL(
            "INSERT INTO {wants} SELECT s.{row}, {number}, {moves}, {free} FROM {staged} s JOIN {table} t ON {same} "
            "{join} WHERE {where}"
        ).format(
            wants=staging.wants,
            row=ROW,
            number=sql.Literal(number),
            moves=moves,
            free=free,
            staged=staging.staged,
            table=self._entity.relation,
            same=equal(fields, nulls_distinct=key.nulls_distinct),
            join=join,
            where=all_of(own, self._applies[key.name], staging.good()),
        )

    def _lost(self) -> sql.Composed:
        """Good rows that nobody frees a value for, with the value's rule: with a refused row fall those that wait for
        it, and for those. Had each pass refused one more, raising 2,000 numbers by one took 55 s.

        A holder may have several movers as long as it is not told which of them stands. The subquery with OFFSET is
        looked up in an index, row by row, where a join would read the whole table at each step.
        """
        wants, good = self._staging.wants, self._good("w.row")
        first = sql.SQL(
            "SELECT w.row, w.rule FROM {} w WHERE {} GROUP BY w.row, w.rule HAVING NOT bool_or(w.free OR {})"
        ).format(wants, good, self._mover_good("w"))
        if not self._staging.matches:  # nothing moves
            return first
        return sql.SQL(
            "WITH RECURSIVE lost(row, rule) AS ({first} UNION SELECT n.row, n.rule FROM lost l CROSS JOIN LATERAL "
            "(SELECT w.row, w.rule FROM {wants} w WHERE w.mover = l.row AND NOT w.free AND {good} "
            "AND NOT EXISTS (SELECT FROM {wants} o WHERE o.row = w.row AND o.rule = w.rule "
            "AND (o.free OR o.mover <> l.row AND {other})) OFFSET 0) n) SELECT row, rule FROM lost"
        ).format(first=first, wants=wants, good=good, other=self._mover_good("o"))

    def _good(self, row: str) -> sql.Composable:
        """Nothing is known to be wrong with this row. NOT IN is hashed once, however often it is asked."""
        return sql.SQL("({} NOT IN (SELECT x.row FROM {} x))").format(sql.SQL(row), self._staging.verdicts)

    def _mover_good(self, alias: str) -> sql.Composable:
        """The row that frees the value is good, and so will be written."""
        mover = f"{alias}.mover"
        return sql.SQL("({} IS NOT NULL AND {})").format(sql.SQL(mover), self._good(mover))

    def _repeat(self, rule: _Rule, rules: list[_Rule]) -> int:
        """Refuses rows behind one that is the first of this rule and of all `rules`; how many."""
        staging = self._staging
        first = [
            sql.SQL('NOT EXISTS (SELECT FROM (SELECT s.{} {}) o (row) WHERE o.row = t."#first")').format(
                ROW, other.repeats(staging)
            )
            for other in rules if other is not rule
        ]  # fmt: skip
        return staging.blame(
            sql.SQL(
                'INSERT INTO {verdicts} SELECT s.{row}, {severity}, {field}, {code}, {message} || t."#first", {value} '
                "{repeats} AND {first}"
            ).format(
                verdicts=staging.verdicts,
                row=ROW,
                severity=sql.Literal(rule.severity.value),
                field=sql.Literal(names(rule.fields)),
                code=sql.Literal(rule.code),
                message=sql.Literal(rule.message),
                value=shown_all(rule.fields),
                repeats=rule.repeats(staging),
                first=all_of(*first),
            )
        )

    def _order(self, waiting: int) -> None:
        """Round 0 waits for nobody; round n for one of n - 1, and for none later."""
        staging = self._staging
        staging.run(sql.SQL("ANALYZE {}").format(staging.waits))
        first = sql.SQL(
            "SELECT DISTINCT w.mover, 0 FROM {0} w WHERE NOT EXISTS (SELECT FROM {0} o WHERE o.row = w.mover)"
        ).format(staging.waits)
        row = staging.connection.execute(
            sql.SQL("SELECT count(DISTINCT row) FROM {}").format(staging.waits)
        ).fetchone()  # fmt: skip
        if row and row[0] == waiting:  # each waits for one
            staging.run(
                sql.SQL(
                    "INSERT INTO {rounds} WITH RECURSIVE turn(row, round) AS ({first} UNION ALL "
                    "SELECT n.row, t.round + 1 FROM turn t CROSS JOIN LATERAL "
                    "(SELECT w.row FROM {waits} w WHERE w.mover = t.row OFFSET 0) n) SELECT row, round FROM turn"
                ).format(rounds=staging.rounds, first=first, waits=staging.waits)
            )
        else:
            self._order_by_round(first)

    def _order_by_round(self, first: sql.Composable) -> None:
        """Where rows wait for several, by several unique keys: the last of them decides."""
        names = {"rounds": self._staging.rounds, "waits": self._staging.waits}
        self._staging.run(sql.SQL("INSERT INTO {} {}").format(self._staging.rounds, first))
        number = 1
        while self._staging.run(
            sql.SQL(
                "INSERT INTO {rounds} SELECT DISTINCT w.row, {number}::int FROM {rounds} f "
                "JOIN {waits} w ON w.mover = f.row WHERE f.round = {number} - 1 AND NOT EXISTS "
                "(SELECT FROM {waits} o WHERE o.row = w.row "
                "AND NOT EXISTS (SELECT FROM {rounds} r WHERE r.row = o.mover))"
            ).format(number=sql.Literal(number), **names)
        ):
            number += 1
