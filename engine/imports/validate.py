"""Validate, first half: what a batch's own cells tell, in Arrow, a column at a time.

Every record of the file goes one of three ways: proven (its cells are certainly valid), doubtful (PostgreSQL's input
functions will say), or refused (with one verdict per fault). Uniqueness, references and checks need the other rows and
the table: `staging` looks at them in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.catalog import Field
from engine.formats.base import BrokenRow, RawBatch
from engine.imports import proof, uuids
from engine.imports.mapping import Columns
from engine.imports.model import Severity
from engine.imports.shown import MASK as MASK
from engine.imports.shown import SHOWN as SHOWN
from engine.imports.transform import Refused, transform

VERDICT = pa.schema(
    [
        ("row", pa.int64()),
        ("severity", pa.string()),
        ("field", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("value", pa.string()),
    ]
)


@dataclass(frozen=True)
class Judged:
    """One batch, judged. `proven` and `doubtful` hold the row number and the mapped cells in catalog order."""

    proven: pa.RecordBatch
    doubtful: pa.RecordBatch
    verdicts: pa.RecordBatch
    unsure: frozenset[str]
    """Names of the fields with a cell that nothing was certain of."""

    @property
    def undecided(self) -> int:
        """How many doubtful records have not been refused for another cell."""
        if not self.doubtful.num_rows:
            return 0
        refused = pc.is_in(self.doubtful.column(0), value_set=self.verdicts.column(0))
        return int(len(refused) - refused.true_count)


class Judge:
    """Judges the batches of one file; `json` where the file has arrays in JSON's spelling."""

    def __init__(self, columns: Columns, *, json: bool = False) -> None:
        self._columns = columns
        self._json = json
        self._names = ["row", *(m.field.name for m in columns.mapped)]

    def judge(self, batch: RawBatch) -> Judged:
        arrays = []
        verdicts = [_broken(batch.broken)]
        good: pa.BooleanArray | None = None
        nul: pa.BooleanArray | None = None
        unsure: set[str] = set()
        for mapped in self._columns.mapped:
            cells, refused = transform(batch.cells.column(mapped.index), batch.rows, mapped, json=self._json)
            verdicts += (_refused(mapped.field, one) for one in refused)
            taken = _not_among(batch.rows, refused)
            sure = _and(certain(mapped.read_as, cells), taken)
            if batch.has_nul and (free := self._without_nul(mapped.field, cells, batch.rows, verdicts)) is not None:
                nul, sure = _and(nul, free), _and(sure, free)
            if not mapped.field.nullable and cells.null_count:
                missing = _and(pc.is_null(cells), taken)
                verdicts.append(
                    _verdict(batch.rows.filter(missing), mapped.field, "REQUIRED", "expected a value, found none")
                )
                sure = _and(sure, pc.invert(missing))
            if sure is not None:
                unsure.add(mapped.field.name)
            arrays.append(cells)
            good = _and(good, sure)
        whole = pa.RecordBatch.from_arrays([batch.rows, *arrays], self._names)
        proven = whole if good is None else whole.filter(good)
        doubtful = whole.slice(0, 0) if good is None else whole.filter(_and(pc.invert(good), nul))
        return Judged(proven, doubtful, _together(verdicts), frozenset(unsure))

    def _without_nul(
        self,
        field: Field,
        cells: pa.StringArray,
        rows: pa.Int64Array,
        verdicts: list[pa.RecordBatch],
    ) -> pa.BooleanArray | None:
        """True where there is none; None when there is none at all. A row with one goes nowhere: PostgreSQL's text
        cannot hold it, so not even its input functions may see it."""
        held = pc.fill_null(pc.match_substring(cells, "\0"), False)
        if not held.true_count:
            return None
        verdicts.append(
            _verdict(rows.filter(held), field, "NUL_BYTE", "found a NUL byte, which PostgreSQL's text cannot hold")
        )
        return pc.invert(held)


def certain(field: Field, cells: pa.StringArray) -> pa.BooleanArray | None:
    """True where a cell is certainly valid or NULL; None when all are."""
    if proof.always_valid(field) or (field.base == "uuid" and uuids.packed(cells) is not None):
        return None
    if (most := proof.longest(field)) is not None:
        sure = pc.less_equal(pc.utf8_length(cells), pa.scalar(most, pa.int32()))
    elif field.labels:
        sure = pc.is_in(cells, value_set=pa.array(field.labels, pa.string()))
    elif (pattern := proof.pattern(field)) is not None:
        sure = pc.match_substring_regex(cells, pattern)
    else:
        sure = pa.array([False] * len(cells))
    if cells.null_count:
        sure = pc.or_(pc.fill_null(sure, False), pc.is_null(cells))
    return None if sure.true_count == len(sure) else sure


def _broken(broken: Iterable[BrokenRow]) -> pa.RecordBatch:
    rows = list(broken)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([b.row for b in rows], pa.int64()),
            pa.array([Severity.FAILED.value] * len(rows), pa.string()),
            pa.array([""] * len(rows), pa.string()),
            pa.array([b.code for b in rows], pa.string()),
            pa.array([b.message for b in rows], pa.string()),
            pa.array([""] * len(rows), pa.string()),
        ],
        schema=VERDICT,
    )


def _refused(field: Field, refused: Refused) -> pa.RecordBatch:
    words = [Severity.FAILED.value, field.name, refused.code, refused.message]
    repeated = [pa.repeat(word, len(refused.rows)) for word in words]
    return pa.RecordBatch.from_arrays([refused.rows, *repeated, refused.values], schema=VERDICT)


def _not_among(rows: pa.Int64Array, refused: list[Refused]) -> pa.BooleanArray | None:
    """True for rows in which no step refused the cell; None when none did. The others are judged on in their other
    fields, and this one stands in them as NULL."""
    if not refused:
        return None
    return pc.invert(pc.is_in(rows, value_set=pa.concat_arrays([one.rows for one in refused])))


def _verdict(rows: pa.Int64Array, field: Field, code: str, message: str) -> pa.RecordBatch:
    """One verdict on each of `rows`. No value: what is wrong is its absence, or cannot be shown."""
    words = [Severity.FAILED.value, field.name, code, message, ""]
    return pa.RecordBatch.from_arrays([rows, *(pa.repeat(word, len(rows)) for word in words)], schema=VERDICT)


def _together(verdicts: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(verdicts, VERDICT).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else verdicts[0]


def _and(one: pa.BooleanArray | None, other: pa.BooleanArray | None) -> pa.BooleanArray | None:
    if one is None or other is None:
        return other if one is None else one
    return pc.and_(one, other)
