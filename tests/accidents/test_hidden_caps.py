"""A list that ends early, a file that is cut: a hundred thousand rows and one, each seen once, whichever way
one looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.imports.model import ChangeKind, ReportPart, Severity
from engine.paging import Paging
from tests.world import World

pytestmark = pytest.mark.long

ROWS = 100_001
UPDATED, UNCHANGED, BAD = 40_000, 10_000, 20_000
INSERTED = ROWS - UPDATED - UNCHANGED - BAD


def kind_of(n: int) -> str:
    return "UPDATE" if n < UPDATED else "UNCHANGED" if n < 50_000 else "BAD" if n < 70_000 else "INSERT"


@pytest.fixture(scope="module")
def planned(shared_world: World) -> tuple[World, Any]:
    shared_world.sql(
        "CREATE TABLE public.things (id int PRIMARY KEY, note text, n int);"
        "INSERT INTO public.things SELECT i, 'note' || i, 1 FROM generate_series(0, 49999) i"
    )
    lines = []
    for i in range(ROWS):
        n = "x" if kind_of(i) == "BAD" and i % 2 else "99999999999" if kind_of(i) == "BAD" else "1"
        lines.append(b"%d,note%d%s,%s\n" % (i, i, b"!" if kind_of(i) == "UPDATE" else b"", n.encode()))
    row = shared_world.plan("things", b"id,note,n\n" + b"".join(lines), import_type="UPSERT")
    assert row.status == "AWAITING_APPROVAL", row.error
    return shared_world, row


def pages(call: Callable[[Paging], tuple[Any, ...]], limit: int = 1_000) -> Iterator[Any]:
    token = ""
    while True:
        found, token, *_ = call(Paging(limit, token, "t"))
        yield from found
        if not token:
            return


def test_every_change_is_seen_once_and_none_is_left_out(planned: tuple[World, Any]) -> None:
    world, row = planned
    seen = list(pages(lambda p: world.imports.changes(world.caller, row.id, p)))

    assert [at for at, _ in seen] == list(range(len(seen)))
    assert Counter(c.kind for _, c in seen) == {"UPDATE": UPDATED, "UNCHANGED": UNCHANGED, "INSERT": INSERTED}
    assert len({c.key["id"] for _, c in seen}) == len(seen) == ROWS - BAD
    assert max(c.row for _, c in seen) == ROWS + 1


@pytest.mark.parametrize(("kind", "count"), [("UPDATE", UPDATED), ("UNCHANGED", UNCHANGED), ("INSERT", INSERTED)])
def test_every_change_of_a_kind_is_seen_once(planned: tuple[World, Any], kind: str, count: int) -> None:
    world, row = planned
    seen = list(pages(lambda p: world.imports.changes(world.caller, row.id, p, [ChangeKind(kind)]), 777))

    assert {int(c.key["id"]) for _, c in seen} == {i for i in range(ROWS) if kind_of(i) == kind}
    assert (len(seen), {c.kind for _, c in seen}) == (count, {kind})


def test_every_change_of_a_field_is_seen_once(planned: tuple[World, Any]) -> None:
    world, row = planned
    notes = list(pages(lambda p: world.imports.changes(world.caller, row.id, p, field="note")))
    numbers = list(pages(lambda p: world.imports.changes(world.caller, row.id, p, field="n")))

    assert sorted(int(c.key["id"]) for _, c in notes) == list(range(UPDATED))
    assert numbers == []


def test_every_error_is_seen_once_by_any_filter(planned: tuple[World, Any]) -> None:
    world, row = planned
    bad = {i + 2 for i in range(ROWS) if kind_of(i) == "BAD"}
    odd = {i + 2 for i in range(ROWS) if kind_of(i) == "BAD" and i % 2}

    def errors(**wanted: Any) -> list[int]:
        return [e.row for e in pages(lambda p: world.imports.errors(world.caller, row.id, p, **wanted), 999)]

    assert errors() == sorted(bad)
    assert errors(severities=[Severity.FAILED]) == sorted(bad)
    assert errors(severities=[Severity.SKIPPED]) == []
    assert errors(code="INVALID_VALUE") == sorted(odd)
    assert errors(code="OUT_OF_RANGE") == sorted(bad - odd)
    assert world.imports.errors(world.caller, row.id, Paging(1, "", "t"))[2] == BAD


def test_the_files_and_the_table_hold_every_row(planned: tuple[World, Any]) -> None:
    world, row = planned
    with pytest.raises(Unavailable):
        world.imports.report_part(world.caller, row.id, ReportPart.CHANGES)
    world.work()
    changes = world.read(world.imports.report_part(world.caller, row.id, ReportPart.CHANGES).artifact_id)
    rejects = world.read(world.imports.report_part(world.caller, row.id, ReportPart.REJECTS).artifact_id)
    assert changes.count(b"\n") == 1 + UPDATED + UNCHANGED + 3 * INSERTED
    assert rejects.count(b"\n") == 1 + BAD

    row = world.apply(row)

    assert (row.status, row.total_records, row.successful_records, row.failed_records) == (
        "COMPLETED", ROWS, ROWS - BAD, BAD,
    )  # fmt: skip
    assert world.sql("SELECT count(*), max(id) FROM public.things") == [(50_000 + INSERTED, ROWS - 1)]
    assert world.sql("SELECT count(*) FROM public.things WHERE note LIKE '%!'") == [(UPDATED,)]
