"""New rows kept as they are read: written into the plan at once, while only what rules look at goes to PostgreSQL.

Where every cell of a file is certainly a value of its type, and ADDITIVE leaves the rows that the table has, planning
needs of a row what stands in keys, references and checks; the rest would go to a temp table and come back. So rows go
into the plan as Arrow records, and their compared columns alone to the temp table. What planning finds wrong, or there
already, is left out of the stream afterwards. So are records of which something is doubtful, if the server's input
functions refuse them; the first one that they take ends it all: the file is read once more, and staged whole.

Of 1,000,000 users, to have them back from the server took 1.4 s of its time and 1.9 s of an import of 20 s.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from engine.artifacts import ArtifactKind, ArtifactWriter
from engine.catalog import Field
from engine.db.copy import CopyOut
from engine.db.platform import Connection, one_row
from engine.imports.encode import BinaryForm, form_of, pieces
from engine.imports.planfile import BatchWriter, batches_of
from engine.imports.proof import longest
from engine.imports.refusals import is_refusal
from engine.imports.staging import Staging
from engine.imports.streams import insert_types
from engine.imports.targets import Target
from engine.imports.validate import certain

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


MOST_UNDECIDED = 1_000
"""Doubtful records, beside one in a hundred, that are taken for faults: more are a column's own way to write."""


class Early:
    """The stream of new rows of a plan, and the artifact that it is in. It is the form in which rows are staged."""

    options = BinaryForm.options

    def __init__(self, run: JobRun, staging: Staging, form: BinaryForm) -> None:
        """Args:
        form: of every planned field, in the plan's order.
        """
        self._run, self._staging, self._form = run, staging, form
        self._store, self._db = run.resources.artifacts, run.resources.db
        held = {f.column for f in staging.held}
        self._compared = [0, *(n for n, m in enumerate(staging.columns.mapped, 1) if m.field.column in held)]
        self._types = [
            f"bpchar {width}" if kind == "bpchar" and (width := longest(field)) is not None else kind
            for field, kind in zip(staging.columns.planned, insert_types(staging), strict=True)
        ]
        self.hopeless = False
        """Whether so many records were doubtful that some of them will be good."""
        self._undecided = 0
        self._open = ExitStack()
        self._artifact_id, self._sink, self._stream = self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.__exit__(kind, error, tb)

    def begin(self) -> bytes:
        return self._form.begin()

    def end(self) -> bytes:
        return self._form.end()

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """Proven rows, in the file's order: kept whole, and their compared columns as COPY takes them."""
        typed = self._form.typed(batch)
        self._stream.add_batch(typed)
        return list(pieces(typed.select(self._compared)))

    def is_hopeless_with(self, undecided: int) -> bool:
        """Counts doubtful records as they come by."""
        self._undecided += undecided
        self.hopeless = self._undecided > MOST_UNDECIDED + self._stream.lines // 100
        return self.hopeless

    def give_up(self) -> None:
        """Let what was kept go."""
        self._open.close()
        self._discard(self._artifact_id)

    def finish(self) -> tuple[UUID, ArtifactWriter, dict[str, Any]]:
        """The plan's artifact, its open writer and the stream's entry in the head; the rows that verdicts were given on
        are left out. Leaving this closes the writer."""
        entry = self._stream.close()
        if self._staging.faulty:
            entry = self._without(self._staging.verdicts)
        return self._artifact_id, self._sink, entry

    def _begin(self) -> tuple[UUID, ArtifactWriter, BatchWriter]:
        with self._db.transaction() as session:
            artifact_id = self._store.create(session, ArtifactKind.PLAN, "job", self._run.job.id)
        sink = self._open.enter_context(self._store.writer(artifact_id))
        return artifact_id, sink, self._open.enter_context(BatchWriter(sink, self._name, self._types))

    @property
    def _name(self) -> str:
        return f"{self._staging.number}.INSERT"

    def _without(self, verdicts: sql.Composable) -> dict[str, Any]:
        """The stream, written anew."""
        old = self._artifact_id
        self._sink.close()
        source = self._store.reader(old)
        self._artifact_id, self._sink, self._stream = self._begin()
        query = sql.SQL("COPY (SELECT DISTINCT row FROM {} ORDER BY row) TO STDOUT").format(verdicts)
        blocks = iter(CopyOut(self._staging.connection, query))
        until, done = _numbers_until(blocks), 0
        for part in source.parts(self._name):
            for batch in batches_of(source, part):
                numbers = batch.column(0)
                left_out = pc.is_in(numbers, value_set=until(numbers[-1].as_py()))
                self._stream.add_batch(batch.filter(pc.invert(left_out)))
                done += batch.num_rows
            self._run.progress(rows=done)
        for _ in blocks:  # records that never came here; the session takes no other command before the end
            pass
        entry = self._stream.close()
        self._discard(old)
        return entry

    def _discard(self, artifact_id: UUID) -> None:
        with self._db.transaction() as session:
            self._store.discard(session, artifact_id)
        self._store.purge(artifact_id)


def early_form(connection: Connection, targets: Sequence[Target]) -> BinaryForm | None:
    """The form in which the rows of a plan can be kept early; None where they cannot.

    Rows that may be updates are compared whole. A value that a query finds, or that each row gets anew, is known to
    the server alone, as is what a text becomes in another encoding than ours.
    """
    if len(targets) != 1 or connection.info.parameter_status("server_encoding") != "UTF8":
        return None
    (staging,) = (target.staging for target in targets)
    columns = staging.columns
    if staging.matches or not insert_types(staging) or any(m.lookup is not None for m in columns.mapped):
        return None
    texts = []
    for field, value in columns.constants:
        if field.fill_sql is not None or (text := _constant(connection, field, value)) is None:
            return None
        texts.append(text[0])
    form = form_of([m.read_as for m in columns.mapped] + [field for field, _ in columns.constants], texts)
    return form if isinstance(form, BinaryForm) else None


def _constant(connection: Connection, field: Field, value: sql.Composable) -> tuple[str | None] | None:
    """The constant as text, if that is certainly a value of the field: not cut to its length by a cast."""
    query = sql.SQL("SELECT ({})::{}::text").format(value, sql.SQL(field.bare_type))
    try:
        with connection.transaction(force_rollback=True):
            (text,) = one_row(connection, query)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        return None
    return (text,) if text is None or certain(field, pa.array([text], pa.string())) is None else None


def _numbers_until(blocks: Iterator[list[bytes]]) -> Callable[[int], pa.Int64Array]:
    """Of rising numbers, a line each, those up to a number that have not been given yet."""
    waiting = array("q")

    def until(last: int) -> pa.Int64Array:
        nonlocal waiting
        while (not waiting or waiting[-1] <= last) and (lines := next(blocks, None)) is not None:
            waiting.extend(map(int, lines))
        cut = bisect_right(waiting, last)
        found, waiting = waiting[:cut], waiting[cut:]
        return pa.Int64Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(found)])

    return until
