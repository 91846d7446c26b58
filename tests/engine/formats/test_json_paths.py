"""One file, one outcome: whatever the blocks' size, and whichever of its decoders a chunk goes through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import DataInvalid
from engine.formats import json_chunks, json_columns
from tests.engine.formats.reading import read

Outcome = Any

PIECES = [
    b'{"a":1,"b":"x"}',
    b'{"b":"y","a":2}',
    b'{"a":3,"b":"\\":"}',
    b'{"a" :4,"b":null}',
    b'{"a":[{"a":1},{"a":2}],"b":"z"}',
    b'{"a":1,"b":"x","a":2}',
    b'{"a":1}',
    b'{"a":1,"b":2,"c":3}',
    b'{"a":1,"b":"\\u0022:","a":2}',
    b'{"a":"\\ud800","b":1}',
    b'{\n"a":1,\r\n"b":"x"\n}',
    b'{"a":{},"b":"},{\\"a\\":"}',
    b'{"a":"\\u0000","b":"\\u00e9"}',
    b"[]",
    b"7",
    b"{}",
]
"""Records of every kind that a chunk may stumble over. No letter beyond ASCII: where a byte is no UTF-8 the block's
size does decide which of two faults is met first."""

ODD = [bytes([mark]) for mark in b' ,{}[]"\\:0-\n\r\t\x01'] + [b"", b"nul"]


def outcome(data: bytes, *, absent_is_null: bool) -> Outcome:
    try:
        header, rows, broken = read(data, "JSON", absent_is_null=absent_is_null)
    except DataInvalid as error:
        return error.reason, error.metadata
    return header, rows, [(b.row, b.code, b.text, b.message) for b in broken]


@settings(max_examples=600, deadline=None)
@given(
    records=st.lists(st.sampled_from(PIECES), min_size=1, max_size=12),
    in_array=st.booleans(),
    part=st.sampled_from([b",", b",\n", b" , "]),
    cut=st.tuples(st.integers(0, 400), st.sampled_from(ODD), st.integers(0, 2)) | st.none(),
    block=st.integers(60, 300),
    absent_is_null=st.booleans(),
)
@example([PIECES[4]] * 5, True, b",", None, 60, False)
@example([PIECES[0]] * 3 + [PIECES[11]] * 5, True, b",", None, 60, False)
def test_the_outcome_is_the_file_s_alone(records, in_array, part, cut, block, absent_is_null):
    data = b"[" + part.join(records) + b"]" if in_array else b"\n".join(records)
    if cut is not None:
        at, odd, gone = cut
        data = data[:at] + odd + data[at + gone :]
    whole = outcome(data, absent_is_null=absent_is_null)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_chunks, "BLOCK", block)
        in_blocks = outcome(data, absent_is_null=absent_is_null)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_columns.Columns, "_all", lambda self, chunk: None)
        one_by_one = outcome(data, absent_is_null=absent_is_null)
        patch.setattr(json_chunks.Lines, "_split", lambda self: None)
        patch.setattr(json_chunks.Items, "_split", lambda self: None)
        scanned = outcome(data, absent_is_null=absent_is_null)

    assert whole == one_by_one
    assert whole == scanned
    assert in_blocks == whole or in_blocks[0] == "FILE_RECORD_TOO_LARGE"


def test_records_that_seem_to_part_inside_one_another_are_whole():
    """Cuts are guessed at what stands between the first two records; here the same stands inside most of them."""
    inner = b",".join(b'{"a":%d}' % i for i in range(300))
    data = b"[" + b",".join([b'{"a":0}', b'{"a":1}', *[b'{"a":[%b]}' % inner] * 2000]) + b"]"

    _, rows, broken = read(data, "JSON")

    assert not broken
    assert list(rows) == list(range(1, 2003))
    assert set(map(tuple, list(rows.values())[2:])) == {(f"[{inner.decode()}]",)}
