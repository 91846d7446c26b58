"""Compressed files: what is inside, within bounds, or a refusal that says what is wrong."""

from __future__ import annotations

import functools
import gzip
import io
import tracemalloc

import pytest
import zstandard

from engine.errors import DataInvalid, DataLoss
from engine.formats import compressed
from engine.formats.compressed import Unpacked
from engine.formats.csv import CsvReader
from tests.engine.formats.reading import read

ROWS = 20_000
CSV = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i * 7919 % 10_007) for i in range(ROWS))
LINES = b"".join(b'{"a":%d,"b":"x%d"}\n' % (i, i * 7919 % 10_007) for i in range(ROWS))
ARRAY = b"[" + LINES.strip().replace(b"\n", b",\n") + b"]"
PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize(("file_format", "data"), [("CSV", CSV), ("JSON", ARRAY), ("JSON_LINES", LINES)])
@pytest.mark.parametrize("pieces", [1, 3])
def test_every_format_is_read_out_of_every_compression(codec, file_format, data, pieces):
    size = -(-len(data) // pieces)
    packed = b"".join(PACK[codec](data[i : i + size]) for i in range(0, len(data), size))

    assert read(packed, file_format) == read(data, file_format)


@pytest.mark.parametrize("codec", PACK)
def test_progress_is_told_in_bytes_of_the_upload(codec):
    packed = PACK[codec](CSV)
    *_, last = CsvReader(lambda: io.BytesIO(packed)).batches()

    assert last.bytes_read == len(packed)


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda packed: packed[:-9], "its end is missing"),
        (lambda packed: packed[: len(packed) // 2], "its end is missing"),
        (lambda packed: packed + packed[:20], "its end is missing"),
        (lambda packed: packed + b"something else", "no such data"),
        (lambda packed: packed[:5], "its end is missing"),
        (lambda packed: packed[:-4] + b"\0\0\0\0", "no such data"),
    ],
    ids=["cut at the end", "cut in the middle", "second part cut", "something behind it", "header alone", "wrong sum"],
)
def test_a_damaged_file_is_refused_and_says_how(codec, damage, told):
    with pytest.raises(DataInvalid, match=told) as caught:
        read(damage(PACK[codec](CSV)))

    assert caught.value.reason == "FILE_DAMAGED"
    assert int(caught.value.metadata["offset"]) > 0


@pytest.mark.parametrize("codec", PACK)
def test_an_empty_file_is_empty_packed_too(codec):
    with pytest.raises(DataInvalid, match="FILE_EMPTY"):
        read(PACK[codec](b""))


def test_a_bomb_is_refused_while_it_goes_off():
    """1 GiB of one byte is 50 KiB of Zstandard; it is seen after 64 MiB, and never held."""
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    bomb = b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(1 << 10)) + packer.flush()
    source = Unpacked(io.BytesIO(bomb))
    tracemalloc.start()

    with pytest.raises(DataInvalid, match="FILE_TOO_LARGE_EXPANDED"):
        while source.read(1 << 20):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert compressed.RATIO_FROM < source.decoded <= compressed.RATIO_FROM + (2 << 20)
    assert peak < 16 << 20


@pytest.mark.parametrize("codec", PACK)
def test_a_caller_may_bound_what_a_file_unpacks_to(codec):
    reader = CsvReader(lambda: io.BytesIO(PACK[codec](CSV)), max_decoded=100_000)

    with pytest.raises(DataInvalid, match="FILE_TOO_LARGE_EXPANDED"):
        list(reader.batches())


def test_what_the_upload_itself_raises_is_not_the_file_s_damage():
    class Lost(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 10_000:
                raise DataLoss("a part is gone", reason="PART_MISSING")
            return super().read(min(size or 0, 1000))

    for data in (gzip.compress(CSV), CSV):
        with pytest.raises(DataLoss, match="PART_MISSING"):
            list(CsvReader(functools.partial(Lost, data)).batches())


def test_a_broken_byte_inside_is_named_by_its_place_inside():
    with pytest.raises(DataInvalid) as caught:
        read(gzip.compress(CSV + b"\xff,1\n"))

    assert (caught.value.reason, caught.value.metadata["offset"]) == ("FILE_NOT_UTF8", str(len(CSV)))
