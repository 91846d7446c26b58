"""The steps that a mapping takes from a cell to a field's text, in Arrow, a column of a batch at a time.

The order is the contract's: trim, empty_is_null, letter_case, values, date, default. NULL passes all of them but the
default. A lookup comes after them, in SQL. A cell that a step refuses becomes NULL, and stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.catalog import Field
from engine.formats.arrays import array_literal
from engine.imports.dates import parse_pattern, read_dates
from engine.imports.mapping import MappedColumn
from engine.imports.model import FieldMapping, LetterCase
from engine.imports.shown import MASK, SHOWN

WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What `trim` takes off: what Python's `str.strip` does, the no-break space included."""

_LISTED = 5
"""Values that a message names."""


@dataclass(frozen=True)
class Refused:
    """Cells that one step refused, for one reason: `rows` and `values`, as shown, go together."""

    rows: pa.Int64Array
    code: str
    message: str
    values: pa.StringArray


def transform(
    cells: pa.StringArray, rows: pa.Int64Array, column: MappedColumn, *, json: bool
) -> tuple[pa.StringArray, list[Refused]]:
    """The cells of `column` as texts of `column.read_as`, and what was refused of them.

    `rows` are the numbers of the cells' records. With `json`, an array that the file holds as JSON becomes
    PostgreSQL's spelling first.
    """
    if json and column.read_as.category == "A":
        cells = _arrays(cells)
    if column.steps is None:
        return cells, []
    return _Steps(column.steps, column.field, column.read_as, rows).take(cells)


class _Steps:
    """The steps of one column over one batch."""

    def __init__(self, steps: FieldMapping, field: Field, read_as: Field, rows: pa.Int64Array) -> None:
        self._steps, self._field, self._read_as, self._rows = steps, field, read_as, rows
        self._refused: list[Refused] = []

    def take(self, cells: pa.StringArray) -> tuple[pa.StringArray, list[Refused]]:
        steps = self._steps
        if steps.trim:
            cells = pc.utf8_trim(cells, characters=WHITE_SPACE)
        if steps.empty_is_null:
            cells = pc.if_else(pc.equal(cells, ""), None, cells)
        if steps.letter_case:
            cells = _cased(cells, steps.letter_case)
        empty = pc.is_null(cells)
        if steps.values:
            cells = self._valued(cells)
        if steps.date_pattern:
            cells = self._dated(cells)
        if steps.default is not None:
            cells = pc.if_else(empty, steps.default, cells)
        return cells, self._refused

    def _valued(self, cells: pa.StringArray) -> pa.StringArray:
        olds, news = (pa.array(texts, pa.string()) for texts in zip(*self._steps.values, strict=True))
        at = pc.index_in(cells, value_set=olds)
        if not self._steps.only_listed_values:
            return pc.if_else(pc.is_valid(at), news.take(at), cells)
        message = "found a text that the mapping does not list"
        if not self._field.secret:
            more = f" and {len(olds) - _LISTED} more" if len(olds) > _LISTED else ""
            message += f", expected one of {', '.join(repr(o.as_py()[:40]) for o in olds[:_LISTED])}{more}"
        self._refuse(pc.and_(pc.is_valid(cells), pc.is_null(at)), cells, "VALUE_NOT_MAPPED", message)
        return news.take(at)

    def _dated(self, cells: pa.StringArray) -> pa.StringArray:
        pattern = parse_pattern(self._steps.date_pattern)
        distinct = cells.dictionary_encode()
        dates = read_dates(distinct.dictionary, pattern, self._read_as.base, self._steps.time_zone)
        for mask, message in dates.faults:
            self._refuse(mask.take(distinct.indices), cells, "INVALID_DATE", message)
        return dates.texts.take(distinct.indices)

    def _refuse(self, mask: pa.BooleanArray, cells: pa.StringArray, code: str, message: str) -> None:
        mask = pc.fill_null(mask, False)
        if not mask.true_count:
            return
        rows = self._rows.filter(mask)
        self._refused.append(Refused(rows, code, message, shown(cells.filter(mask), self._field)))


def shown(values: pa.StringArray, field: Field) -> pa.StringArray:
    """Refused values as a verdict may show them: masked if secret, cut, without what PostgreSQL's text cannot hold."""
    if field.secret:
        return pa.repeat(MASK, len(values))
    return pc.utf8_slice_codeunits(pc.replace_substring(values, "\0", "\\0"), 0, SHOWN)


def _cased(cells: pa.StringArray, case: LetterCase) -> pa.StringArray:
    """Python's own letter cases, which know that the capital of `ß` is `SS`, and nothing of Turkish."""
    upper = case is LetterCase.UPPER
    if pc.all(pc.string_is_ascii(cells), min_count=0).as_py() is not False:
        return pc.ascii_upper(cells) if upper else pc.ascii_lower(cells)
    return _each(cells, str.upper if upper else str.lower)


def _arrays(cells: pa.StringArray) -> pa.StringArray:
    begun = pc.fill_null(pc.starts_with(cells, "["), False)
    return pc.replace_with_mask(cells, begun, _each(cells.filter(begun), array_literal)) if begun.true_count else cells


def _each(cells: pa.StringArray, change: Callable[[str], str]) -> pa.StringArray:
    """`change` of every distinct text."""
    distinct = cells.dictionary_encode()
    changed = [change(text) for text in distinct.dictionary.to_pylist()]
    return pa.array(changed, pa.string()).take(distinct.indices)
