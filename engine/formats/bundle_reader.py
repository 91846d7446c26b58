"""Reading a bundle that somebody sent: everything is looked at before anything of it is used.

A ZIP says things twice, and says them without being asked for proof: its directory and its members' own headers may
disagree, members may lie over each other, sizes may be anything. So the directory is bounded before it is read, each
member's place is worked out from its own header, and nothing a member holds is handed out past its digest.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

from pydantic import ValidationError

from engine.errors import DataInvalid
from engine.formats.bundle import FORMAT, MANIFEST, MAX_MANIFEST, MAX_MEMBERS, VERSION, BundleEntity, Manifest

MAX_DIRECTORY = 8 << 20
"""Bytes of the ZIP's directory, which is read at once. 10,000 members of ours take 2 MB."""

MAX_RATIO = 1_032
"""Uncompressed bytes for one compressed byte: the most that deflate can do, so that more is a lie. What lies below is
bounded by the caller's `max_bytes`: a table of a million equal rows is no bomb."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SYMLINK, _KIND = 0o120000, 0o170000
_BROKEN = (
    zipfile.BadZipFile, NotImplementedError, struct.error, zlib.error, ValueError, OverflowError, EOFError, IndexError
)  # fmt: skip
"""What zipfile raises over hostile bytes; UnicodeDecodeError is a ValueError."""


class BundleReader:
    """A bundle whose directory and manifest hold. Members are opened one by one, each in one thread."""

    def __init__(self, source: BinaryIO, *, max_bytes: int) -> None:
        """Args:
            source: seekable; it stays open and belongs to the caller.
            max_bytes: most uncompressed bytes of all members together.

        Raises:
            DataInvalid: BUNDLE_INVALID, BUNDLE_DAMAGED, BUNDLE_TOO_LARGE.
        """
        directory = _Directory(source)
        with _refusing("file: found a ZIP that cannot be read", "BUNDLE_INVALID"):
            self._zip = zipfile.ZipFile(source)
        infos = self._zip.infolist()
        if len(infos) != directory.count:
            raise _invalid(f"directory: expected {directory.count} members, found {len(infos)}")
        self._infos = _by_name(infos)
        _check_places(source, infos, directory.start)
        _check_sizes(infos, max_bytes)
        self.manifest = self._read_manifest()
        self._entities = {entity.entity: entity for entity in self.manifest.entities}
        self._check_manifest()

    def open(self, entity: str) -> MemberSource:
        """The member of one entity of the manifest, from its start."""
        described = self._entities[entity]
        with _refusing(f"{described.file}: found a member that cannot be opened", "BUNDLE_DAMAGED"):
            return MemberSource(self._zip.open(self._infos[described.file]), described)

    def _read_manifest(self) -> Manifest:
        info = self._infos.get(MANIFEST)
        if info is None:
            raise _invalid(f"file: found no {MANIFEST}, expected a bundle")
        if info.file_size > MAX_MANIFEST:
            raise _too_large(f"{MANIFEST}: found {info.file_size:,} bytes, expected at most {MAX_MANIFEST:,}")
        with _refusing(f"{MANIFEST}: found bytes that cannot be unpacked", "BUNDLE_DAMAGED"):
            data = self._zip.read(info)
        return parse_manifest(data)

    def _check_manifest(self) -> None:
        entities, described = self._entities, {entity.file for entity in self.manifest.entities}
        if min(len(entities), len(described)) != len(self.manifest.entities):
            raise _invalid(f"{MANIFEST}: found an entity or a file that is listed twice")
        held = set(self._infos) - {MANIFEST}
        if missing := sorted(described - held):
            raise _invalid(f"file: found no member {missing[0][:100]!r}, which the manifest lists")
        if extra := sorted(held - described):
            raise _invalid(f"file: found a member {extra[0][:100]!r}, which the manifest does not list")
        for entity in self.manifest.entities:
            found = self._infos[entity.file].file_size
            if found != entity.bytes:
                raise _damaged(f"{entity.file}: expected {entity.bytes:,} bytes, found {found:,}", entity)


class MemberSource:
    """A member's bytes. The last of them come only when size and SHA-256 are those of the manifest."""

    def __init__(self, file: IO[bytes], described: BundleEntity) -> None:
        self._file, self._described = file, described
        self._digest, self._left = hashlib.sha256(), described.bytes

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, b"" at the end.

        Raises:
            DataInvalid: BUNDLE_DAMAGED.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        name = self._described.file
        with _refusing(f"{name}: found bytes that cannot be unpacked, or others than those packed", "BUNDLE_DAMAGED"):
            data = self._file.read(wanted) if wanted else b""
        self._digest.update(data)
        self._left -= len(data)
        if not self._left or (wanted and not data):
            self._check_end()
        return data

    def close(self) -> None:
        self._file.close()

    def _check_end(self) -> None:
        if self._left:
            found = self._described.bytes - self._left
            raise _damaged(f"{self._described.file}: found an end after {found:,} bytes", self._described)
        if self._digest.hexdigest() != self._described.sha256:
            raise _damaged(f"{self._described.file}: its SHA-256 is not the manifest's", self._described)


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in `data`.

    Raises:
        DataInvalid: BUNDLE_INVALID, naming the place.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise _invalid(f"{MANIFEST}: found no JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _invalid(f"{MANIFEST}: found no format {FORMAT!r}")
    if found.get("version") != VERSION:
        raise _invalid(f"{MANIFEST}: expected version {VERSION}, found {str(found.get('version'))[:20]!r}")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, wrong["loc"]))
        raise _invalid(f"{MANIFEST}: {where}: {wrong['msg'].lower()}") from None


class _Directory:
    """Where the ZIP's directory stands: bounded before zipfile reads it whole."""

    def __init__(self, source: BinaryIO) -> None:
        size = source.seek(0, 2)
        if size < _END.size:
            raise _invalid(f"file: found {size} bytes, expected a ZIP")
        end = size - _END.size
        magic, disk, first, here, count, length, start, comment = _END.unpack(_at(source, end, _END.size))
        if magic != b"PK\5\6" or comment or disk or first or here != count:
            raise _invalid("file: found no ZIP, one that is cut off, or one with a comment or on several disks")
        if end >= _LOCATOR.size + _END64.size:
            locator = end - _LOCATOR.size
            magic, *_ = _LOCATOR.unpack(_at(source, locator, _LOCATOR.size))
            if magic == b"PK\6\7":  # zipfile takes it then, whatever the shorter record says
                end = locator - _END64.size
                magic, _, _, _, disk, first, here, count, length, start = _END64.unpack(_at(source, end, _END64.size))
                if magic != b"PK\6\6" or disk or first or here != count:
                    raise _invalid("file: found a ZIP64 record that does not hold")
        if start + length != end:
            raise _invalid(f"directory: expected it to end at {end:,}, found {start + length:,}")
        if count > MAX_MEMBERS + 1 or length > MAX_DIRECTORY:
            raise _too_large(
                f"directory: found {count:,} members in {length:,} bytes, expected at most {MAX_MEMBERS:,}"
            )
        self.start, self.count = start, count


def _by_name(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        shown = repr(name[:100])
        if name in found:
            raise _invalid(f"directory: found {shown} twice")
        if info.flag_bits & _ENCRYPTED:
            raise _invalid(f"directory: found {shown} encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _invalid(f"directory: found {shown} packed by method {info.compress_type}, expected deflate or none")
        if (info.external_attr >> 16) & _KIND == _SYMLINK:
            raise _invalid(f"directory: found {shown} to be a link")
        if name != info.filename or "/" in name or "\\" in name or name in ("", ".", ".."):
            raise _invalid(f"directory: found {shown}, expected a plain name")
        found[name] = info
    return found


def _check_places(source: BinaryIO, infos: list[zipfile.ZipInfo], end: int) -> None:
    """Each member lies between the one before and the one after, by its own header."""
    reached = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < reached:
            raise _invalid(f"{info.filename[:100]!r}: found it to lie over another member")
        magic, *_, name, extra = _LOCAL.unpack(_at(source, info.header_offset, _LOCAL.size))
        if magic != b"PK\3\4":
            raise _invalid(f"{info.filename[:100]!r}: found no member where the directory says")
        reached = info.header_offset + _LOCAL.size + name + extra + info.compress_size
        if reached > end:
            raise _invalid(f"{info.filename[:100]!r}: found it to reach into the directory")


def _check_sizes(infos: list[zipfile.ZipInfo], max_bytes: int) -> None:
    for info in infos:
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise _invalid(f"{info.filename[:100]!r}: found two sizes, expected one of what is not compressed")
        if info.file_size > MAX_RATIO * info.compress_size:
            raise _too_large(
                f"{info.filename[:100]!r}: found {info.file_size:,} bytes packed in {info.compress_size:,}"
            )
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise _too_large(f"file: found {total:,} bytes unpacked, expected at most {max_bytes:,}")


def _at(source: BinaryIO, offset: int, size: int) -> bytes:
    source.seek(offset)
    data = source.read(size)
    if len(data) != size:
        raise _invalid(f"file: found an end at {offset + len(data):,}, expected {size} bytes from {offset:,} on")
    return data


@contextmanager
def _refusing(message: str, reason: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN:
        raise DataInvalid(message, reason=reason) from None


def _invalid(message: str) -> DataInvalid:
    return DataInvalid(message, reason="BUNDLE_INVALID")


def _too_large(message: str) -> DataInvalid:
    return DataInvalid(message, reason="BUNDLE_TOO_LARGE")


def _damaged(message: str, entity: BundleEntity) -> DataInvalid:
    metadata: dict[str, Any] = {"entity": entity.entity}
    return DataInvalid(message, reason="BUNDLE_DAMAGED", metadata=metadata)
