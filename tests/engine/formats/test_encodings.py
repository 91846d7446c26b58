"""CSV in other encodings: the same text, or the byte that is none."""

from __future__ import annotations

import codecs
import functools
import io

import pytest

from engine.errors import DataInvalid
from engine.formats.encodings import Transcoded, encoding_of
from tests.engine.formats.reading import read

LONG = "naïve,Ünïcode\n" * 200_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("windows-1252", "a,b\n€,“x”\n"),
        ("ISO-8859-1", "a,b\né,ß\n"),
        ("iso-8859-15", "a,b\n€,ž\n"),
        ("KOI8-R", "a,b\nПривет,мир\n"),
        ("Shift_JIS", "a,b\n日本,テスト\n"),
        ("GB18030", "a,b\n中文,𠀀\n"),
        ("EUC-KR", "a,b\n한국,어\n"),
        ("utf-16", "a,b\n😀,x\n"),
        ("utf-16le", "a,b\n😀,x\n"),
        ("utf-16be", "\ufeffa,b\n😀,x\n"),
        ("utf-32", "a,b\n😀,x\n"),
        ("IBM037", "a,b\nx,y\n"),
        ("UTF8", "a,b\né,y\n"),
    ],
)
def test_a_file_is_read_in_the_encoding_it_is_said_to_have(name, text):
    plain = read(text.removeprefix("\ufeff").encode())

    assert read(text.encode(name), encoding=name) == plain


def test_an_encoding_is_read_block_by_block():
    data = ("a,b\n" + LONG).encode("utf-16")

    assert len(read(data, encoding="utf-16")[1]) == 200_000


@pytest.mark.parametrize(
    ("name", "data", "offset"),
    [
        ("windows-1252", b"a,b\n1,\x81\n", 6),
        ("ascii", b"a,b\n1,\xe9\n", 6),
        ("utf-16", b"a,b\n1,2\n", 0),
        ("utf-16le", "a,b\n1,".encode("utf-16le") + b"\x00\xd8x\x00\n\x00", 12),
        ("utf-16le", "a,b\n1,2".encode("utf-16le") + b"\n", 14),
        ("Shift_JIS", "a,b\n日,".encode("shift_jis") + b"\x81", 7),
        ("iso-8859-1", codecs.BOM_UTF8 + b"a,b\n1,2\n", 0),
        ("iso-8859-1", "a,b\n1,2\n".encode("utf-16"), 0),
    ],
    ids=["hole", "not ascii", "no mark", "half a pair", "half a unit", "half a letter", "utf-8 mark", "utf-16 mark"],
)  # fmt: skip
def test_what_is_not_in_the_encoding_is_refused_by_its_byte(name, data, offset):
    with pytest.raises(DataInvalid) as caught:
        read(data, encoding=name)

    assert caught.value.reason == "FILE_NOT_ENCODED"
    assert caught.value.metadata == {"offset": str(offset), "encoding": encoding_of(name)}


def test_a_byte_far_into_the_file_is_named_too():
    data = ("a,b\n" + LONG).encode("cp1252")

    with pytest.raises(DataInvalid) as caught:
        read(data + b"\x81,1\n", encoding="cp1252")
    assert caught.value.metadata["offset"] == str(len(data))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_letters_of_several_bytes_survive_any_cut(size):
    class Drops(io.BytesIO):
        def read(self, most: int | None = -1, /) -> bytes:
            return super().read(min(size, most) if most and most > 0 else size)

    text = "aé日😀" * 50
    for name in ("utf-16", "gb18030", "utf-16be"):
        source = Transcoded(Drops(text.encode(name)), encoding_of(name))
        assert b"".join(iter(functools.partial(source.read, 7), b"")).decode() == text


@pytest.mark.parametrize(
    "name", ["klingon", "rot13", "hex", "zlib", "idna", "unicode_escape", "utf-7", "a b", "../x", "é"]
)
def test_what_is_no_encoding_is_refused(name):
    with pytest.raises(DataInvalid, match="OPTION_INVALID"):
        encoding_of(name)
