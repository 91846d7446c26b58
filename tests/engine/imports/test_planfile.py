"""A plan is what was shown, or it is nothing: every change of its parts is seen before it is used."""

from __future__ import annotations

import struct
import threading
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataLoss
from engine.imports import planfile
from engine.imports.planfile import Plan, StreamWriter, split_line, write_head


class Parts:
    """An artifact's parts in memory."""

    def __init__(self):
        self.kept = []

    def write_part(self, data, *, stream, index):
        self.kept.append([stream, index, data])
        return len(self.kept) - 1

    def parts(self, stream=None):
        found = [SimpleNamespace(number=n, stream=p[0], index=p[1]) for n, p in enumerate(self.kept)]
        return [p for p in found if stream in (None, p.stream)]

    def read_part(self, number):
        return self.kept[number][2]


@pytest.fixture
def written(monkeypatch):
    monkeypatch.setattr(planfile, "PART_BYTES", 200)
    parts = Parts()
    with StreamWriter(parts, "INSERT") as writer:
        for i in range(100):
            writer.add([f"{i + 2}\t\\N\tkey{i:03}\tv\n".encode()])
        digest = write_head(parts, {"format": planfile.FORMAT, "streams": {"INSERT": writer.close()}})
    return parts, digest


def test_a_plan_reads_back_whole_and_by_pages(written):
    parts, digest = written
    plan = Plan.open(parts, digest)

    lines = b"".join(data for data, _ in plan.lines("INSERT")).splitlines()

    assert len(lines) == plan.rows("INSERT") == 100
    assert len(parts.parts("INSERT")) > 5
    for start in (0, 1, 37, 99, 100):
        found = list(plan.numbered("INSERT", start))
        assert found == [(n, split_line(line)) for n, line in enumerate(lines)][start:]


def repack(part, change):
    data = zstandard.ZstdDecompressor().decompress(part[2])
    changed = change(data)
    part[1] = {**part[1], "bytes": len(changed)}
    part[2] = zstandard.ZstdCompressor().compress(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: repack(kept[0], lambda d: d.replace(b"key000", b"key999")),
        lambda kept: kept.pop(0),
        lambda kept: kept.insert(0, kept[0]),
        lambda kept: kept.__setitem__(slice(0, 2), [kept[1], kept[0]]),
        lambda kept: kept[0].__setitem__(2, b"no frame"),
    ],
    ids=["changed", "dropped", "repeated", "swapped", "no frame"],
)
def test_a_changed_stream_is_refused(written, damage):
    parts, digest = written
    plan = Plan.open(parts, digest)
    damage(parts.kept)

    with pytest.raises(DataLoss) as caught:
        list(plan.lines("INSERT"))
    assert caught.value.reason == "PLAN_DAMAGED"


@pytest.mark.parametrize(
    "damage", [lambda k: k.pop(), lambda k: k.append(k[-1]), lambda k: repack(k[-1], lambda d: d + b" ")]
)
def test_a_changed_head_is_refused(written, damage):
    parts, digest = written
    damage(parts.kept)

    with pytest.raises(DataLoss):
        Plan.open(parts, digest)


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_copy_text_is_split_as_postgresql_writes_it(cells):
    escapes = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    line = "\t".join("\\N" if c is None else "".join(escapes.get(ch, ch) for ch in c) for c in cells)

    assert split_line(line.encode() + b"\n") == cells


@pytest.fixture
def in_rows(monkeypatch):
    """A stream in COPY's binary format: a row number, a text."""
    monkeypatch.setattr(planfile, "PART_BYTES", 200)
    parts = Parts()
    with StreamWriter(parts, "INSERT", ["text"]) as writer:
        for i in range(100):
            text = f"key{i:03}".encode() * (i % 3)
            writer.add([struct.pack(f"!hiqi{len(text)}s", 2, 8, i + 2, len(text), text)])
        digest = write_head(parts, {"format": planfile.FORMAT, "streams": {"INSERT": writer.close()}})
    return parts, digest


def test_rows_are_read_whole_and_by_pages_and_without_their_numbers(in_rows):
    parts, digest = in_rows
    plan = Plan.open(parts, digest)
    cells = [[str(i + 2), f"key{i:03}" * (i % 3)] for i in range(100)]

    assert len(parts.parts("INSERT")) > 5
    for start in (0, 1, 37, 99, 100):
        assert list(plan.numbered("INSERT", start)) == list(enumerate(cells))[start:]
    assert b"".join(data for data, _ in plan.rows_without_numbers("INSERT")) == b"".join(
        struct.pack(f"!hi{len(c[1])}s", 1, len(c[1]), c[1].encode()) for c in cells
    )


@pytest.mark.parametrize("rows", [1, 10**9])
def test_an_index_that_says_another_number_of_rows_is_refused(in_rows, rows):
    parts, digest = in_rows
    parts.kept[0][1]["rows"] = rows
    plan = Plan.open(parts, digest)

    for read in (plan.rows_without_numbers, plan.lines, lambda stream: plan.numbered(stream, 0)):
        with pytest.raises(DataLoss) as caught:
            list(read("INSERT"))
        assert caught.value.reason == "PLAN_DAMAGED"


def test_what_writing_a_part_meets_is_raised_and_the_thread_ends(monkeypatch):
    monkeypatch.setattr(planfile, "PART_BYTES", 10)
    before = {*threading.enumerate()}

    def full(data, *, stream, index):
        raise DataLoss("no room", reason="STORAGE_FULL")

    with pytest.raises(DataLoss, match="no room"), StreamWriter(SimpleNamespace(write_part=full), "INSERT") as writer:
        for _ in range(3):
            writer.add([b"0123456789\n"])
    assert {*threading.enumerate()} <= before  # those of other tests may end meanwhile
