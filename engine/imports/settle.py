"""Rows that hang on one another, judged until nothing changes any more.

What stands in the file twice is told last of all, so that "the first stands" is true. A row that is refused may have
been the first of its key, have freed a value that another wants, or be what others refer to: then again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.catalog import Catalog
from engine.imports.references import References
from engine.imports.staging import Staging
from engine.imports.uniques import Uniques
from engine.imports.verdicts import Verdicts


def settle(stagings: Sequence[Staging], catalog: Catalog, *, check: Callable[[], None]) -> None:
    """Uniqueness and references over all entities of a plan; `check` is called between the steps and may raise."""
    uniques = [Uniques(staging) for staging in stagings]
    references = [References(staging, stagings, catalog) for staging in stagings]
    verdicts = [Verdicts(staging) for staging in stagings]
    for unique, reference, verdict in zip(uniques, references, verdicts, strict=True):
        reference.outer()
        verdict.analyze()
        unique.look()
        check()
    while True:
        repeats = _repeated(uniques, verdicts, check)
        found = 0
        if repeats:  # first what is wrong whichever of them stands
            _forget(verdicts)
            found = _dependent(uniques, references, check)
            if not found:
                _repeated(uniques, verdicts, check)
        if not found:
            found = _dependent(uniques, references, check)
        if not found:
            found = sum(unique.circles() for unique in uniques)
        if not found and not _let_move(references):
            break
    for verdict in verdicts:
        verdict.analyze()


def _let_move(references: Sequence[References]) -> bool:
    """The last step: rows that get another key are gone under theirs. Whether that has still to be told."""
    waiting = [r for r in references if r.may_move and not r.moves]
    for reference in waiting:
        reference.moves = True
    return bool(waiting)


def _repeated(uniques: Sequence[Uniques], verdicts: Sequence[Verdicts], check: Callable[[], None]) -> int:
    """Tells anew what stands in the file twice; how many rows stand behind others."""
    _forget(verdicts)
    found = 0
    for unique, verdict in zip(uniques, verdicts, strict=True):
        found += unique.repeated()
        verdict.analyze()
        check()
    return found


def _forget(verdicts: Sequence[Verdicts]) -> None:
    for verdict in verdicts:
        verdict.forget("DUPLICATE_IN_FILE", "UNIQUE_IN_FILE")


def _dependent(uniques: Sequence[Uniques], references: Sequence[References], check: Callable[[], None]) -> int:
    """Refuses rows for what becomes of others; how many."""
    found = 0
    for unique, reference in zip(uniques, references, strict=True):
        found += unique.taken()
        found += reference.inner()
        check()
    return found
