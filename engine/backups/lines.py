"""Streams of COPY text as lines: cut at line ends, with some of them taken out or picked, by their positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from engine.errors import DataLoss

AT_ONCE = 10_000
"""Positions that are written together."""


def whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, each block ending with a line's end; as COPY ends every row with one, nothing is left over."""
    begun: list[bytes] = []  # a row of 1 GB comes in 128 blocks
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, block[:end]])
            begun, block = [], block[end:]
        if block:
            begun.append(block)
    if begun:
        yield b"".join(begun)


def numbered_lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Lines, some MB at once, with the position of the first."""
    at = 0
    for block in whole_lines(blocks):
        lines = block.splitlines(keepends=True)  # COPY escapes every other line end
        yield at, lines
        at += len(lines)


def without(blocks: Iterable[bytes], gone: Iterator[int]) -> Iterator[bytes]:
    """The lines whose positions are not among `gone`, which ascend. A block without such a line passes as it is.

    Raises:
        DataLoss: BACKUP_DAMAGED when there are positions behind the last line.
    """
    at, position = 0, next(gone, None)
    for block in whole_lines(blocks):
        end = at + block.count(b"\n")
        if position is None or position >= end:
            yield block
        else:
            lines = block.splitlines(keepends=True)
            while position is not None and position < end:
                lines[position - at] = b""
                position = next(gone, None)
            yield b"".join(lines)
        at = end
    if position is not None:
        raise DataLoss(
            f"backup: the row {position} of {at} is said to be gone from the parent", reason="BACKUP_DAMAGED"
        )


def encoded_positions(positions: Sequence[int]) -> Iterator[bytes]:
    """The stream of positions: the distance of each from the one before it, a line each; many at once."""
    for at in range(0, len(positions), AT_ONCE):
        before = positions[at - 1] if at else -1
        some = positions[at : at + AT_ONCE]
        yield b"".join(b"%d\n" % (position - last) for position, last in zip(some, [before, *some], strict=False))


def positions_of(blocks: Iterable[bytes]) -> Iterator[int]:
    """Positions, ascending.

    Raises:
        DataLoss: BACKUP_DAMAGED for what is no list of them.
    """
    position = -1
    for _, lines in numbered_lines(blocks):
        for line in lines:
            if not line[:-1].isdigit() or len(line) > 20 or (distance := int(line)) < 1:
                raise DataLoss("backup: its list of gone rows is none", reason="BACKUP_DAMAGED")
            position += distance
            yield position
