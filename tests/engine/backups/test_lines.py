"""Streams as lines: however a stream is cut, the same lines; positions out and in again; what is none is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backups.known import Known
from engine.backups.lines import AT_ONCE, encoded_positions, numbered_lines, positions_of, without
from engine.errors import DataLoss

LINES = st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"") + b"\n"), max_size=40)


@given(LINES, st.data())
def test_lines_without_some_are_the_others_however_the_stream_is_cut(lines: list[bytes], data: st.DataObject):
    stream = b"".join(lines)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8))), len(stream)]
    blocks = [stream[a:b] for a, b in pairwise(cuts)]
    gone = sorted(data.draw(st.sets(st.integers(0, len(lines) - 1), max_size=20))) if lines else []

    assert [line for _, some in numbered_lines(blocks) for line in some] == lines
    assert list(positions_of(encoded_positions(gone))) == gone
    kept = [line for place, line in enumerate(lines) if place not in gone]
    assert b"".join(without(blocks, iter(gone))) == b"".join(kept)
    with pytest.raises(DataLoss, match="is said to be gone"):
        list(without(blocks, iter([*gone, len(lines)])))


def test_positions_come_back_across_what_is_written_at_once() -> None:
    for count in (AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 1):
        gone = [7 * n + n % 3 for n in range(count)]
        assert b"".join(encoded_positions(gone)).count(b"\n") == count
        assert list(positions_of(encoded_positions(gone))) == gone


@pytest.mark.parametrize("stream", [b"0\n", b"1\n0\n", b"-1\n", b"x\n", b"\n", b"1", b"1" * 30 + b"\n"])
def test_what_is_no_list_of_positions_is_refused(stream: bytes):
    with pytest.raises(DataLoss) as caught:
        list(positions_of([stream]))
    assert caught.value.reason == "BACKUP_DAMAGED"


FEW = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"]), max_size=30)


@given(FEW, FEW, st.integers(1, 4))
def test_the_difference_of_two_multisets_is_found_in_any_number_of_passes(
    before: list[bytes], now: list[bytes], passes: int
):
    added: list[bytes] = []
    gone: list[int] = []
    for number in range(passes):
        known = Known([before[:7], before[7:]], number, passes)
        added += known.take(now[:3]) + known.take(now[3:])
        left = known.left
        found = [*known.leftover(before[:9]), *(9 + place for place in known.leftover(before[9:]))]
        assert (len(found), known.left) == (left, 0)
        gone += found
    kept = [line for place, line in enumerate(before) if place not in gone]
    assert len(set(gone)) == len(gone)
    assert sorted(kept + added) == sorted(now)
    assert len(added) == len(now) - len(kept), "nothing is both gone and added"
    assert not {before[place] for place in gone} & set(added)
