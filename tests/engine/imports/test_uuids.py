"""UUIDs are packed where all are spelled as usual, and left to others where one is not."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.imports.uuids import packed

GOOD = "0123abCD-0000-4000-8000-00000000000F"


@given(st.lists(st.uuids(), min_size=1, max_size=20), st.integers(0, 3))
def test_the_bytes_are_those_of_the_values(values, before):
    cells = pa.array(["x" * n for n in range(before)] + [str(v) for v in values])[before:]

    assert packed(cells) == b"".join(v.bytes for v in values)


@pytest.mark.parametrize(
    "other",
    [
        None, "", GOOD[:-1], GOOD + "0", "{" + GOOD[1:-1] + "}", GOOD.replace("-", ""), "g" + GOOD[1:], " " + GOOD[1:],
        GOOD[:-1] + "\n", GOOD[:-1] + "-", "-" + GOOD[1:], GOOD[:8] + "0" + GOOD[9:], GOOD[:-2] + "\u00e9",
        GOOD[:-1] + "\u0660", GOOD[:2] + "  " + GOOD[4:], "+" + GOOD[1:], GOOD[:13] + "_" + GOOD[14:],
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_another_spelling_leaves_all_to_others(other, place):
    values = [GOOD, GOOD]
    values.insert(place, other)

    assert packed(pa.array([GOOD, GOOD, GOOD])) == uuid.UUID(GOOD).bytes * 3
    assert packed(pa.array(values, pa.string())) is None
    assert packed(pa.array([], pa.string())) is None


def test_what_one_has_too_much_another_does_not_make_up_for():
    assert packed(pa.array(["-" + GOOD[1:], GOOD[:8] + "0" + GOOD[9:]])) is None
    assert packed(pa.array([GOOD + "0", GOOD[:-1]])) is None
