"""One entity's file inside one platform session: the temp tables of its plan.

`staged` holds typed rows that are or became certain, `doubtful` text rows that the input functions must see, `verdicts`
what is wrong, one row a fault; `matched` says which rows the table has; the others serve `uniques` and `replace`. All
are made before the planning transaction, which is READ ONLY: the server itself then enforces that a preview changes
nothing. A number in their names keeps the entities of a bundle apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from engine.catalog import Entity, Field, ForeignKey, UniqueKey
from engine.db.platform import Connection
from engine.imports.mapping import Columns, MappedColumn
from engine.imports.model import ImportType
from engine.imports.sequences import numbered_fields
from engine.imports.sqltext import ROW, Temp, all_of, creation, equal, joined, typed

OWN_COLUMNS = frozenset({"#row", "#print", "#shown", "#first", "#round", "#action", "#constraint", "#at"})
"""What stands beside a table's own columns in temp tables; lookups' `#l0` … and old values' `#o0` … do too."""


class Doubtful(Exception):
    """A row that cannot be staged narrowly: only the server can say what its values are."""


class Staging:
    """Makes the tables of one entity; `fill` fills them, `rules` and its neighbours judge what is in them."""

    def __init__(
        self,
        connection: Connection,
        entity: Entity,
        columns: Columns,
        *,
        mode: ImportType = ImportType.ADDITIVE,
        key: tuple[str, ...] = (),
        number: int = 0,
    ) -> None:
        """Args:
        key: the columns that tell which row of the table a row of the file is; the entity's key if empty.
        """
        self.connection = connection
        self.entity = entity
        self.columns = columns
        self.mode = mode
        self.number = number
        self.key = key or entity.key
        self.touched = tuple(f.column for f in (*(m.field for m in columns.mapped), *columns.fixed))
        """Columns that the file decides: what an update writes."""
        self.held: tuple[Field, ...] = columns.planned
        """What new rows get, as far as `staged` holds it."""
        self.filled = self._filled() if self.matches else ()
        """Columns that the file does not decide, and a rule needs beside one that it does."""
        self.shuffled = False
        """Whether rows stand in `staged` otherwise than in the file."""
        self.faulty = False
        """Whether `verdicts` may hold any: to look into an empty one for 1,000,000 rows takes 0.3 s each time."""
        self.once: frozenset[tuple[tuple[str, ...], bool]] = frozenset()
        """Unique keys, as `apart` asks for them, no good row's values of which stand anywhere else."""
        names = ("staged", "doubtful", "verdicts", "matched", "wants", "waits", "rounds", "gone", "kept")
        (
            self.staged, self.doubtful, self.verdicts, self.matched, self.wants, self.waits, self.rounds, self.gone,
            self.kept,
        ) = (Temp(f"{name}_{number}") for name in names)  # fmt: skip
        self._whole = self.staged

    @property
    def matches(self) -> bool:
        """Whether rows that the table has are more than left as they are."""
        return self.mode is not ImportType.ADDITIVE

    @property
    def other_keys(self) -> list[UniqueKey]:
        """The unique keys beside the one that rows are found by; that one too if NULL, which tells no row, may stand in
        it once only."""
        own = self.key
        return [k for k in self.entity.unique if not k.partial and (k.columns != own or not k.nulls_distinct)]

    @property
    def may_wait(self) -> bool:
        """Whether an update may want a value that another one frees."""
        return self.matches and bool(self.other_keys)

    @property
    def keyed(self) -> bool:
        """Whether the file says each row's key."""
        return bool(self.key) and self.has(self.key)

    @property
    def key_fields(self) -> list[Field]:
        return [self.entity.column(c) for c in self.key]

    def has(self, columns: Iterable[str]) -> bool:
        """Whether the plan of a new row has a value of its own for every one of these columns."""
        planned = {f.column for f in self.columns.planned}
        return all(column in planned for column in columns)

    def touches(self, columns: Iterable[str]) -> bool:
        """Whether the file decides any of these columns."""
        return any(column in self.touched for column in columns)

    def knows(self, columns: Iterable[str]) -> bool:
        """Whether staged rows hold the final value of every one of these columns, where the table has the row."""
        known = {*self.touched, *self.filled}
        return all(column in known for column in columns)

    def apart(self, columns: tuple[str, ...], *, nulls_distinct: bool = True) -> bool:
        """It is known that no good row's value of these columns stands in the table, or in another good row."""
        return (columns, nulls_distinct) in self.once

    @property
    def is_joined(self) -> bool:
        """Whether its rows will be looked for in a table, or one another."""
        keys = [(self.key, True)] if self.keyed else []
        keys += [(key.columns, key.nulls_distinct) for key in self.other_keys]
        return bool(self.entity.references) or not all(key in self.once for key in keys)

    def in_file(self, reference: ForeignKey) -> bool:
        """Whether a row of the file may be what another one of it refers to."""
        return self.is_target(reference) and self.has(reference.target_columns) and self.has(reference.columns)

    def is_target(self, reference: ForeignKey) -> bool:
        return (reference.target_schema, reference.target_table) == (self.entity.schema, self.entity.table)

    @property
    def written(self) -> tuple[str, ...]:
        """Columns that an update may change: what tells the row stays as it is."""
        return tuple(c for c in self.touched if c not in self.key)

    # --- making

    def narrow(self) -> None:
        """Stage only what rules look at, before `create`; the rest of new rows is kept elsewhere."""
        fields = self.columns.planned
        wanted = self._joined().union(*(check.columns for check in self.entity.checks))
        wanted |= {f.column for f in fields if f.is_domain} | {f.column for f in numbered_fields(fields)}
        self.held = tuple(f for f in self.columns.planned if f.column in wanted)
        self.staged, self._whole = Temp(f"narrow_{self.number}"), self.staged

    @property
    def narrowed(self) -> bool:
        return self.staged is not self._whole

    def widen(self) -> None:
        """Stage rows whole after all, as if none had been looked at."""
        self.held, self.staged = self.columns.planned, self._whole
        for table in (self.doubtful, self.verdicts):
            self.run(sql.SQL("DELETE FROM {}").format(table))
        self.faulty = False

    def create(self) -> None:
        """Makes the temp tables; outside of the read-only transaction."""
        constants = {field.name: value for field, value in self.columns.constants}
        row = sql.SQL("{} bigint").format(ROW)
        if self.narrowed:
            self._make(self.staged, [row, *(typed(f, default=constants.get(f.name)) for f in self.held)])
        staged = [row, *(typed(f, default=constants.get(f.name)) for f in self.columns.planned)]
        planned = {f.column for f in self.columns.planned}
        staged += [typed(self.entity.column(c)) for c in self.filled if c not in planned]
        staged += [typed(m.read_as, staged_name(m)) for m in self.columns.mapped if m.lookup is not None]
        texts = [sql.SQL("{} text").format(staged_name(m)) for m in self.columns.mapped]
        key = [typed(f) for f in self.key_fields]
        self._make(self._whole, staged)
        self._make(self.doubtful, [row, *texts])
        self._make(self.verdicts, list(map(sql.SQL, _VERDICT)))
        self._make(self.matched, [row, sql.SQL("same boolean")])
        if self.other_keys:
            self._make(self.wants, list(map(sql.SQL, ("row bigint", "rule integer", "mover bigint", "free boolean"))))
        if self.may_wait:
            self._make(self.waits, list(map(sql.SQL, ("row bigint", "mover bigint"))))
            self._make(self.rounds, list(map(sql.SQL, ("row bigint", "round integer"))))
        if self.mode is ImportType.REPLACE:
            self._make(self.gone, [sql.SQL('"#print" bigint'), *(typed(f) for f in self.entity.stored)])
            self._make(self.kept, key)
        self._index()

    def _make(self, table: sql.Identifier, columns: Sequence[sql.Composable]) -> None:
        self.run(creation(table, columns))

    def _index(self) -> None:
        for reference in self.entity.references:
            if self.in_file(reference):  # a refused parent's children are looked for, parent by parent
                for table in [self.staged, self._whole] if self.narrowed else [self._whole]:
                    self._index_on(table, reference.columns)
                    self._index_on(table, reference.target_columns)
        if self.may_wait:  # chains of unique values that move are followed step by step
            self._index_on(self.wants, ("row",))
            self._index_on(self.wants, ("mover",))
            self._index_on(self.waits, ("row",))
            self._index_on(self.waits, ("mover",))
            self._index_on(self.rounds, ("row",))
            self._index_on(self.rounds, ("round",))

    def _index_on(self, table: sql.Identifier, columns: Iterable[str]) -> None:
        self.run(sql.SQL("CREATE INDEX ON {} ({})").format(table, joined(map(sql.Identifier, columns))))

    def _filled(self) -> tuple[str, ...]:
        sets = [
            *(key.columns for key in self.entity.unique),
            *(reference.columns for reference in self.entity.references),
            *(check.columns for check in self.entity.checks),
        ]
        stored = {f.column for f in self.entity.stored}
        wanted = {c for columns in sets if self.touches(columns) for c in columns} - set(self.touched)
        return tuple(f.column for f in self.entity.stored if f.column in wanted & stored)

    # --- reading cells

    def typed(self, mapped: MappedColumn) -> sql.Composed:
        """A doubtful cell as a value of its type, read by the type's input function.

        Where a cast from text is a function of its own, it may read something else (`'-'::text::regclass` is an error);
        a record made from jsonb uses the input function.
        """
        name = staged_name(mapped)
        if not mapped.read_as.text_cast:
            return sql.SQL("d.{}::{}").format(name, sql.SQL(mapped.read_as.storage_type))
        return sql.SQL("(jsonb_populate_record(NULL::{}, jsonb_build_object({}, d.{}))).{}").format(
            self.staged, sql.Literal(_staged_name(mapped)), name, name
        )

    def match(self) -> None:
        """Which staged rows the table has, and whether they are as the file says; then the values that an update
        leaves, where a rule needs them. The key is equal and stays as the table spells it: 1.0 for 1.00, or another
        case where a collation has none, would set foreign keys off that hold images, not values, to be changed."""
        self.run(
            sql.SQL("INSERT INTO {} SELECT s.{}, {} FROM {} s JOIN {} t ON {}").format(
                self.matched, ROW, self.same(self.written), self.staged, self.entity.relation, equal(self.key_fields)
            )
        )
        self.run(sql.SQL("ANALYZE {}").format(self.matched))
        if self.filled:
            sets = joined(sql.SQL("{0} = t.{0}").format(sql.Identifier(c)) for c in self.filled)
            self.shuffled = True
            self.run(
                sql.SQL("UPDATE {} s SET {} FROM {} t WHERE {}").format(
                    self.staged, sets, self.entity.relation, equal(self.key_fields)
                )
            )
            self.run(sql.SQL("ANALYZE {}").format(self.staged))

    def analyze(self) -> None:
        """Looks at the columns of `staged` that joins go by; to look at all of 1,000,000 users' took 0.2 s more."""
        there = {f.column for f in self.held} | set(self.filled)
        columns = joined(map(sql.Identifier, ["#row", *sorted(there & self._joined())]))
        self.run(sql.SQL("ANALYZE {} ({})").format(self.staged, columns))

    def _joined(self) -> set[str]:
        """Columns that tell a row, or another one that it refers to."""
        references = self.entity.references
        sets = [self.key, *(key.columns for key in self.entity.unique), *(r.columns for r in references)]
        sets += [r.target_columns for r in references if self.is_target(r)]
        return {column for columns in sets for column in columns}

    # --- saying things about rows

    def good(self, alias: str = "s") -> sql.Composable:
        """Nothing is known to be wrong with the staged row `alias`."""
        if not self.faulty:
            return sql.SQL("true")
        return sql.SQL("NOT EXISTS (SELECT FROM {} v WHERE v.row = {}.{})").format(self.verdicts, sql.SQL(alias), ROW)

    @property
    def in_order(self) -> bool:
        """Whether a scan for new rows comes to them as they stand in the file: nothing has moved them, and no list has
        to be looked into, which may be joined in any order."""
        return not (self.shuffled or self.faulty or self.matches)

    def new(self) -> sql.Composable:
        """The staged row `s` is good, and a new row of the table."""
        return all_of(self.good(), sql.SQL("NOT ") + self.is_matched() if self.matches else None)

    def is_matched(self, alias: str = "s") -> sql.Composable:
        """The table has the staged row `alias`."""
        return sql.SQL("EXISTS (SELECT FROM {} m WHERE m.{} = {}.{})").format(self.matched, ROW, sql.SQL(alias), ROW)

    def same(self, columns: Sequence[str]) -> sql.Composed:
        """The table's row `t` has the very values of the staged row `s` in these columns."""
        return sql.SQL("record_image_eq(ROW({}), ROW({}))").format(
            joined(sql.SQL("s.") + sql.Identifier(c) for c in columns),
            joined(sql.SQL("t.{}::{}").format(sql.Identifier(c), sql.SQL(self.entity.column(c).storage_type))
                   for c in columns),
        )  # fmt: skip

    def leaves(self, alias: str = "t") -> sql.Composable:
        """The plan deletes the table's row `alias`."""
        return sql.SQL("EXISTS (SELECT FROM {} g WHERE {})").format(
            self.gone, equal(self.key_fields, s="g", t=alias)
        )  # fmt: skip

    def blame(self, query: sql.Composed) -> int:
        """Runs an INSERT into `verdicts`; how many there are of them."""
        found = self.run(query)
        self.faulty = self.faulty or found > 0
        return found

    def run(self, query: sql.Composed) -> int:
        return self.connection.execute(query).rowcount


_VERDICT = ("row bigint", "severity text", "field text", "code text", "message text", "value text")


def staged_name(mapped: MappedColumn) -> sql.Identifier:
    """The column of `staged` and `doubtful` that a mapped cell goes into: the field's own, or a lookup's text."""
    return sql.Identifier(_staged_name(mapped))


def _staged_name(mapped: MappedColumn) -> str:
    return mapped.field.column if mapped.lookup is None else f"#l{mapped.index}"
