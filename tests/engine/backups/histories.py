"""Random histories of tables and their backups, as data: made from a seed, printed as a script, made smaller."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.engine.backups.history_tables import (
    ALONE,
    KINDS,
    Kind,
    exchanged,
    maintained,
    migrated,
    prepared,
    repartitioned,
    tables_of,
    written,
)


@dataclass(frozen=True)
class Sql:
    """Statements of the platform: by a session that commits each step, or by one whose transaction stays open."""

    text: str
    session: str = ""

    def __str__(self) -> str:
        return f"{self.session + ': ' if self.session else ''}{self.text};"


@dataclass(frozen=True)
class Backup:
    incremental: bool
    method: str = "candidates"
    entities: tuple[str, ...] = ()
    """Empty: all."""

    def __str__(self) -> str:
        kind = f"increment ({self.method})" if self.incremental else "full backup"
        return f"{kind} of {', '.join(self.entities) or 'all'}"


@dataclass(frozen=True)
class Load:
    """An import."""

    table: str
    mode: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"import into {self.table}, {self.mode}:" + "".join(f"\n    | {line}" for line in self.lines)


@dataclass(frozen=True)
class Restore:
    pick: int
    """Of the backups that are good then."""
    late: str = ""
    """What another session writes while the restore waits for its locks."""

    def __str__(self) -> str:
        return f"restore (pick {self.pick})" + (f"; while it waits: {self.late}" if self.late else "")


@dataclass(frozen=True)
class Delete:
    pick: int

    def __str__(self) -> str:
        return f"delete (pick {self.pick})"


@dataclass(frozen=True)
class Hold:
    pick: int
    held: bool

    def __str__(self) -> str:
        return f"{'hold' if self.held else 'release'} (pick {self.pick})"


@dataclass(frozen=True)
class Later:
    """Time passes, and the sweeper comes by."""

    days: int

    def __str__(self) -> str:
        return f"{self.days} days later: sweep"


Step = Sql | Backup | Load | Restore | Delete | Hold | Later


@dataclass(frozen=True)
class History:
    kinds: tuple[str, ...]
    rows: int
    """Of each table, at the beginning."""
    pieces: bool
    """Whether streams are read, and compared, in small pieces."""
    steps: tuple[Step, ...]
    restores: int = 0
    """At the end."""

    def smaller(self) -> Iterator[History]:
        """This one with something left out: half of the steps, …, one; a table; rows."""
        size = len(self.steps) // 2
        while size:
            for at in range(0, len(self.steps), size):
                yield replace(self, steps=self.steps[:at] + self.steps[at + size :])
            size //= 2
        for kind in self.kinds:
            yield replace(self, kinds=tuple(k for k in self.kinds if k != kind))
        if self.pieces:
            yield replace(self, pieces=False)
        if self.restores:
            yield replace(self, restores=self.restores - 1)
        if self.rows > 5:
            yield replace(self, rows=self.rows // 2)


def shrink(history: History, fails: Callable[[History], bool], until: float) -> History:
    """The smallest that still fails and is found before the monotonic clock shows `until`."""
    again = True
    while again:
        again = False
        for less in history.smaller():
            if not less.kinds or time.monotonic() > until:
                continue
            if fails(less):
                history, again = less, True
                break
    return history


def history(seed: int, work: int) -> History:
    """The history of a seed: always the same.

    Args:
        work: for the engine: a backup is 1 of it, an import 2, a restore 3.
    """
    return _Author(random.Random(seed)).history(work)


class _Author:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._kinds = tuple(rng.sample(ALONE, rng.choice((2, 3, 3))))
        self._tables = tables_of(self._kinds)
        self._some = tuple(rng.sample([t.name for t in self._tables], rng.randint(1, len(self._tables) - 1)))
        self._open: dict[str, bool] = {}
        """Sessions with an open transaction; whether it has a savepoint."""
        self._calm = rng.random() < 0.4
        """Whether definitions stay as they are, so that chains grow and restores succeed."""
        self._left = 0

    def history(self, work: int) -> History:
        rng = self._rng
        self._left = work
        steps: list[Step] = [self._backup(first=True)]
        while self._left > 0:
            steps += self._next()
        return History(self._kinds, rng.choice((5, 20, 60)), rng.random() < 0.5, tuple(steps), int(rng.random() < 0.2))

    def _next(self) -> list[Step]:
        rng = self._rng
        choices: dict[str, float] = {
            "backup": 8, "write": 12, "session": 6, "across": 2.5, "maintain": 2,
            "migrate": 0 if self._calm else 3, "load": 1, "restore": 0.6, "delete": 1, "hold": 0.5, "later": 0.6,
        }  # fmt: skip
        match rng.choices(list(choices), list(choices.values()))[0]:
            case "backup":
                return [self._backup()]
            case "session":
                return [self._session()]
            case "across":
                return self._across()
            case "maintain":
                return [Sql(maintained(rng, self._table()))]
            case "migrate":
                return self._migration()
            case "load":
                return self._load()
            case "restore":
                self._left -= 3
                return [Restore(rng.randrange(20), rng.choice(("", self._quiet())))]
            case "delete":
                return [Delete(rng.randrange(20)) for _ in range(rng.randint(1, 2))]
            case "hold":
                return [Hold(rng.randrange(20), rng.random() < 0.6)]
            case "later":
                return [Later(rng.choice((1, 8, 31, 91)))]
        return [Sql(written(rng, self._table())) for _ in range(rng.randint(1, 2))]

    def _table(self) -> Kind:
        return self._rng.choice(self._tables)

    def _backup(self, *, first: bool = False) -> Backup:
        rng = self._rng
        self._left -= 1
        method = "candidates" if rng.random() < 0.85 else "content"
        return Backup(not first and rng.random() < 0.92, method, () if first or rng.random() < 0.85 else self._some)

    def _session(self) -> Step:
        """A transaction begins, goes on, or ends."""
        rng = self._rng
        name = rng.choice("ab")
        if name not in self._open:
            self._open[name] = False
            level = rng.choice(("", "", " ISOLATION LEVEL REPEATABLE READ"))
            first = "; SAVEPOINT s" if rng.random() < 0.5 else ""
            self._open[name] = bool(first)
            return Sql(f"BEGIN{level}{first}; {self._quiet()}", name)
        points = self._open[name]
        match rng.choices(("write", "savepoint", "back", "release", "commit", "rollback"), (3, 2, 1, 1, 4, 1))[0]:
            case "savepoint":
                self._open[name] = True
                return Sql(f"SAVEPOINT s; {self._quiet()}", name)
            case "back" if points:
                return Sql("ROLLBACK TO s", name)
            case "release" if points:
                return Sql("RELEASE s", name)
            case "commit" | "release":
                del self._open[name]
                return Sql("COMMIT", name)
            case "rollback" | "back":
                del self._open[name]
                return Sql("ROLLBACK", name)
        return Sql(self._quiet(), name)

    def _quiet(self) -> str:
        """Mostly a change of few rows, so that others get on beside it."""
        rng, kind = self._rng, self._table()
        if rng.random() < 0.2:
            return written(rng, kind)
        change = (kind.changes[0] if rng.random() < 0.7 else rng.choice(kind.changes)).format(v=rng.randint(1, 9))
        return f"UPDATE public.{kind.name} t SET {change} WHERE abs(hashtext(t::text)) % 4 = {rng.randrange(4)}"

    def _across(self) -> list[Step]:
        """A transaction that is open while a backup is taken, and has ended at the next."""
        rng, name = self._rng, "c"
        begun = Sql(f"BEGIN; {'SAVEPOINT s; ' if rng.random() < 0.5 else ''}{self._quiet()}", name)
        between = [Sql(self._quiet(), rng.choice(("", name))) for _ in range(rng.randrange(2))]
        end = Sql("ROLLBACK" if rng.random() < 0.1 else "COMMIT", name)
        return [begun, *between, self._backup(), *between, end, self._backup()]

    def _migration(self) -> list[Step]:
        rng, kind = self._rng, self._table()
        if "parts" in self._kinds and rng.random() < 0.4:
            kind = KINDS["parts"]
            if rng.random() < 0.6:
                return [Sql(repartitioned(rng))]
        if rng.random() < 0.4 and (kind.swappable or kind.name == "parts"):
            return [Sql(prepared(kind)), self._backup(), Sql(exchanged(kind)), self._backup()]
        return [Sql(migrated(rng, kind)) for _ in range(rng.randint(1, 2))]

    def _load(self) -> list[Step]:
        rng = self._rng
        fit = [kind for kind in self._tables if kind.files]
        if not fit:
            return []
        kind = rng.choice(fit)
        assert kind.files is not None
        self._left -= 2
        mode = rng.choice(("ADDITIVE", "UPSERT", "REPLACE")) if kind.key else "ADDITIVE"
        numbers = sorted(rng.sample(range(1, 90), rng.randint(1, 6)))
        return [Load(kind.name, mode, (kind.header, *map(kind.files, numbers)))]
