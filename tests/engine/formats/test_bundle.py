"""Bundles: what is written can be read, and nothing that somebody made up is used."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DataInvalid
from engine.formats.bundle import MAX_MEMBERS, BundleEntity, BundleField, BundleWriter, Manifest, member_name
from engine.formats.bundle_reader import BundleReader
from tests.fix_stack import skip_or_fail

NOW = datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)
ROWS = b'{"id":1}\n{"id":2}\n'
LIMIT = 1 << 30
DATA = Path(os.environ.get("DATAOPS_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


class Sink:
    """Takes bytes and cannot seek."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(bytes(data))


def described(member: str, data: bytes = ROWS, **other: Any) -> dict[str, Any]:
    return {
        "entity": member,
        "file": member,
        "rows": data.count(b"\n"),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "fields": ({"name": "id", "type": "integer", "generated": False},),
        "key": ("id",),
        "schema_fingerprint": "f",
        "secret_fields": (),
    } | other


def manifest_of(*entities: Any, **other: Any) -> dict[str, Any]:
    return {
        "format": "dataops-bundle",
        "version": 1,
        "created_at": NOW.isoformat(),
        "snapshot_at": NOW.isoformat(),
        "export_type": "FULL",
        "source": {},
        "entities": entities,
    } | other


def written(members: dict[str, bytes]) -> bytes:
    """By our writer."""
    sink = Sink()
    bundle = BundleWriter(sink, NOW)
    entities = []
    for file, data in members.items():
        with bundle.member(file) as member:
            for at in range(0, len(data), 100_000):
                member.write(data[at : at + 100_000])
        assert (member.bytes, member.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        entities.append(BundleEntity(**described(file, data)))
    bundle.close(Manifest(**manifest_of(*entities)))
    return b"".join(sink.pieces)


def packed(manifest: Any, *members: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """By zipfile, with whatever names, twice if wanted."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in members:
            made.writestr(name, data)
        if manifest is not None:
            made.writestr("manifest.json", manifest if isinstance(manifest, bytes | str) else json.dumps(manifest))
    return out.getvalue()


def refusal(data: bytes, max_bytes: int = LIMIT) -> str:
    """The reason for which the bundle, or one of its members, is refused."""
    with pytest.raises(DataInvalid) as caught:
        reader = BundleReader(io.BytesIO(data), max_bytes=max_bytes)
        for entity in reader.manifest.entities:
            source = reader.open(entity.entity)
            while source.read(1000):
                pass
    assert re.fullmatch("[^\n]{10,300}", caught.value.message)
    return caught.value.reason


def test_what_was_written_is_read_again():
    members = {"1-a.jsonl": ROWS, "2-empty.jsonl": b"", "3-random.jsonl": os.urandom(3_000_000)}
    data = written(members)

    reader = BundleReader(io.BytesIO(data), max_bytes=LIMIT)

    assert [entity.file for entity in reader.manifest.entities] == list(members)
    for file, expected in members.items():
        source, pieces = reader.open(file), []
        while piece := source.read(70_000):
            pieces.append(piece)
        assert b"".join(pieces) == expected
        assert reader.open(file).read() == expected
    assert zipfile.ZipFile(io.BytesIO(data)).namelist()[-1] == "manifest.json"
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def test_other_tools_may_pack_it_again():
    """Without data descriptors, stored, in another order."""
    manifest = manifest_of(described("1-a.jsonl"))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        reader = BundleReader(io.BytesIO(packed(manifest, ("1-a.jsonl", ROWS), method=method)), max_bytes=LIMIT)
        assert reader.open("1-a.jsonl").read() == ROWS


@pytest.mark.parametrize("name", ["users", 'Ünï "q"/../x', "..", "a" * 300, "", "other.none"])
def test_a_member_name_is_plain_and_a_manifest_takes_it(name):
    file = member_name(10_000, name)

    assert re.fullmatch(r"10000-[A-Za-z0-9_.-]{1,80}\.jsonl", file)
    BundleEntity(**described(file))


def test_a_manifest_that_later_releases_add_to_is_read():
    manifest = manifest_of(described("1-a.jsonl", more=1), more={"x": 1})

    assert BundleReader(io.BytesIO(packed(manifest, ("1-a.jsonl", ROWS))), max_bytes=LIMIT).manifest.version == 1


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        b"",
        b"\xff\xfe",
        "[]",
        "[" * 100_000,
        "{}",
        "1" * 10_000,
        manifest_of(described("1-a.jsonl"), format="other"),
        manifest_of(described("1-a.jsonl"), version=2),
        manifest_of(described("1-a.jsonl"), version="1"),
        manifest_of(described("1-a.jsonl"), export_type="SOME"),
        manifest_of(described("1-a.jsonl"), snapshot_at=None),
        manifest_of(described("1-a.jsonl", rows=-1)),
        manifest_of(described("1-a.jsonl", rows="2")),
        manifest_of(described("1-a.jsonl", bytes=1.5)),
        manifest_of(described("1-a.jsonl", sha256="00")),
        manifest_of(described("1-a.jsonl", fields=[{"name": "id"}])),
        manifest_of(described("1-a.jsonl", entity="")),
        manifest_of(described("1-a.jsonl", file="../a.jsonl")),
        manifest_of(described("1-a.jsonl", file="/1-a.jsonl")),
        manifest_of(described("1-a.jsonl", file="manifest.json")),
        manifest_of(described("1-a.jsonl"), described("1-a.jsonl")),
        manifest_of(described("1-a.jsonl"), described("1-a.jsonl", entity="other")),
        manifest_of(described("1-a.jsonl"), described("2-missing.jsonl")),
        manifest_of(),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(manifest):
    assert refusal(packed(manifest, ("1-a.jsonl", ROWS))) == "BUNDLE_INVALID"


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "..\\evil", "C:\\evil", "a/b.jsonl", "folder/", "2-b.jsonl", "..", "x\0y", ".DS_Store"],
)
def test_a_member_that_the_manifest_does_not_list_is_refused(name):
    manifest = manifest_of(described("1-a.jsonl"))

    assert refusal(packed(manifest, ("1-a.jsonl", ROWS), (name, b"x"))) == "BUNDLE_INVALID"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["1-a.jsonl", "manifest.json"])
def test_a_name_that_occurs_twice_is_refused(name):
    manifest = manifest_of(described("1-a.jsonl"))

    assert refusal(packed(manifest, ("1-a.jsonl", ROWS), (name, ROWS))) == "BUNDLE_INVALID"


def test_links_encrypted_members_and_other_methods_are_refused():
    link = zipfile.ZipInfo("1-a.jsonl")
    link.external_attr = 0o120777 << 16
    manifest = manifest_of(described("1-a.jsonl"))
    assert refusal(packed(manifest, (link, ROWS))) == "BUNDLE_INVALID"
    assert refusal(packed(manifest, ("1-a.jsonl", ROWS), method=zipfile.ZIP_BZIP2)) == "BUNDLE_INVALID"
    for flag in (0x1, 0x40, 0x2000):
        data = packed(manifest, ("1-a.jsonl", ROWS))
        at = data.index(b"PK\1\2") + 8
        changed = data[:at] + struct.pack("<H", flag) + data[at + 2 :]
        assert refusal(changed) == "BUNDLE_INVALID"


def _field(data: bytes, which: bytes, at: int, form: str, value: int) -> bytes:
    """`data` with one number of the first record `which` (a directory entry: PK 1 2) changed."""
    start = data.index(which) + at
    packed_value = struct.pack(form, value)
    return data[:start] + packed_value + data[start + len(packed_value) :]


def test_sizes_that_lie_are_found():
    data = packed(manifest_of(described("1-a.jsonl")), ("1-a.jsonl", ROWS))
    smaller = _field(data, b"PK\1\2", 24, "<L", len(ROWS) - 1)
    larger = _field(data, b"PK\1\2", 24, "<L", len(ROWS) + 1)
    assert (refusal(smaller), refusal(larger)) == ("BUNDLE_DAMAGED", "BUNDLE_DAMAGED")
    # directory and manifest agree on a size that is not the member's
    for size in (len(ROWS) - 1, len(ROWS) + 1, 0):
        manifest = manifest_of(described("1-a.jsonl", bytes=size, sha256=hashlib.sha256(ROWS[:size]).hexdigest()))
        data = packed(manifest, ("1-a.jsonl", ROWS))
        expected = "BUNDLE_DAMAGED" if size else "COMPLETED"
        lying = _field(data, b"PK\1\2", 24, "<L", size)
        if size:
            assert refusal(lying) == expected
        else:  # nothing is read of a member that claims to hold nothing
            assert BundleReader(io.BytesIO(lying), max_bytes=LIMIT).open("1-a.jsonl").read() == b""


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = b"\0" * 50_000_000
    data = packed(manifest_of(described("1-a.jsonl", bomb)), ("1-a.jsonl", bomb))
    assert len(data) < 100_000
    assert refusal(data, max_bytes=10_000_000) == "BUNDLE_TOO_LARGE"
    # one that says it is small yields no more than it says
    manifest = manifest_of(described("1-a.jsonl", b"\0" * 1000))
    lying = _field(packed(manifest, ("1-a.jsonl", bomb)), b"PK\1\2", 24, "<L", 1000)
    assert refusal(lying, max_bytes=10_000_000) == "BUNDLE_DAMAGED"
    # and more than deflate can do is a lie
    beyond = _field(packed(manifest_of(described("1-a.jsonl")), ("1-a.jsonl", ROWS)), b"PK\1\2", 24, "<L", 1 << 20)
    assert refusal(beyond) == "BUNDLE_TOO_LARGE"


def test_members_that_lie_over_each_other_are_refused():
    """The bomb that unpacks one kernel a thousand times."""
    manifest = manifest_of(described("1-a.jsonl"), described("2-b.jsonl"))
    data = packed(manifest, ("1-a.jsonl", ROWS), ("2-b.jsonl", ROWS))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    overlapping = data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]
    assert refusal(overlapping) == "BUNDLE_INVALID"
    # from within the first member
    within = data[: second + 42] + struct.pack("<L", 20) + data[second + 46 :]
    assert refusal(within) == "BUNDLE_INVALID"


def test_a_member_whose_own_header_bears_another_name_is_refused():
    data = packed(manifest_of(described("1-a.jsonl")), ("1-a.jsonl", ROWS))
    at = data.index(b"1-a.jsonl")

    assert refusal(data[:at] + b"1-b.jsonl" + data[at + 9 :]) == "BUNDLE_DAMAGED"


def test_too_many_members_are_refused_unread():
    data = packed(manifest_of(described("1-a.jsonl")), ("1-a.jsonl", ROWS))
    end = data.rindex(b"PK\5\6")
    many = data[: end + 8] + struct.pack("<HH", MAX_MEMBERS + 2, MAX_MEMBERS + 2) + data[end + 12 :]

    assert refusal(many) == "BUNDLE_TOO_LARGE"


@pytest.mark.parametrize("keep", [0, 1, 21, 22, 100])
def test_a_file_that_is_cut_off_or_no_zip_is_refused(keep):
    data = written({"1-a.jsonl": ROWS})

    assert refusal(data[:keep]) == "BUNDLE_INVALID"
    assert refusal(data[:-1]) == "BUNDLE_INVALID"
    assert refusal(b"x" * keep) == "BUNDLE_INVALID"
    assert refusal(b"prefix" + data) == "BUNDLE_INVALID"
    assert refusal(data + b"suffix") == "BUNDLE_INVALID"


def test_any_flipped_byte_is_found_or_changes_nothing():
    """Names, sizes, places, content: never other rows than were written, never another error than a refusal."""
    rows = bytes(range(32, 127)) * 3
    data = written({"1-a.jsonl": rows, "2-b.jsonl": ROWS})

    for at in range(len(data)):
        for flip in (0x01, 0xFF):
            changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            try:
                reader = BundleReader(io.BytesIO(changed), max_bytes=LIMIT)
                found = {e.file: reader.open(e.entity).read() for e in reader.manifest.entities}
            except DataInvalid as error:
                assert error.reason in ("BUNDLE_INVALID", "BUNDLE_DAMAGED", "BUNDLE_TOO_LARGE")
            else:
                assert found == {"1-a.jsonl": rows, "2-b.jsonl": ROWS}, at


@pytest.mark.parametrize("name", ["zip-slip.zip", "zip-slip-win.zip"])
def test_the_archives_of_zip_slip_are_refused(name):
    file = DATA / "hostile" / "zip-slip" / name
    if not file.is_file():
        skip_or_fail("DATAOPS_TEST_DATA names no folder with it")

    assert refusal(file.read_bytes()) == "BUNDLE_INVALID"


def test_a_member_beyond_four_gigabytes_fits():
    """The headers of a member are those of ZIP64 from the start: its size is not known when it begins."""
    data = written({"1-a.jsonl": ROWS})

    flags, extra = struct.unpack("<6xH", data[:8])[0], data[39 : 39 + 4]
    assert flags & 0x8, "sizes stand behind the member"
    assert extra[:2] == b"\1\0", "the ZIP64 extra field"


def test_fields_name_what_the_database_computes():
    assert BundleField(name="twice", type="integer", generated=True).model_dump()["generated"] is True


def test_a_bundle_that_is_left_by_an_error_writes_nothing_more():
    sink = Sink()
    with pytest.raises(KeyError), BundleWriter(sink, NOW) as bundle, bundle.member("1-a.jsonl") as member:
        member.write(ROWS)
        raise KeyError("anything")

    assert b"PK\5\6" not in b"".join(sink.pieces)
    del bundle, member
    assert b"PK\5\6" not in b"".join(sink.pieces)


def test_a_member_that_was_exchanged_is_found_before_its_last_byte():
    other = ROWS.replace(b"2", b"3")
    reader = BundleReader(
        io.BytesIO(packed(manifest_of(described("1-a.jsonl")), ("1-a.jsonl", other))), max_bytes=LIMIT
    )
    source, got = reader.open("1-a.jsonl"), b""

    with pytest.raises(DataInvalid) as caught:
        while piece := source.read(5):
            got += piece
    assert (caught.value.reason, caught.value.metadata) == ("BUNDLE_DAMAGED", {"entity": "1-a.jsonl"})
    assert got == other[:15]
