"""A bundle: a ZIP of one JSON Lines file per entity, and a manifest that says what they are.

The format is `docs/bundle-format.md`. The writer streams to a sink that cannot seek; the reader, in
`engine.formats.bundle_reader`, trusts nothing before it has looked at all of it.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import DataInvalid

FORMAT: Final = "dataops-bundle"
VERSION: Final = 1
MANIFEST = "manifest.json"

MAX_MEMBERS = 10_000
"""Entities in one bundle."""

MAX_MANIFEST = 32 << 20
"""Bytes of the manifest, which a reader parses at once."""

LEVEL = 1
"""Of deflate. Of 200,000 users level 6 is a fifth smaller in 2.5 times the time: thrice what PostgreSQL takes."""

_OWN_FILE = 0o100600 << 16
"""An ordinary file, for its owner, in the words of the ZIP's external attributes."""


class _Strict(BaseModel):
    # Strict: a count written as text is no count. What is not known is left alone: a later release may add to it.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class BundleField(_Strict):
    """One field of a member's objects. `type` is PostgreSQL's own spelling."""

    name: str
    type: str
    generated: bool = False
    """Whether the database computes it: there to be looked at, not to be set."""


class BundleEntity(_Strict):
    """One member: what it holds, and how to tell that it is whole."""

    entity: Annotated[str, Field(min_length=1)]
    file: Annotated[str, Field(pattern=r"^[0-9]{1,5}-[A-Za-z0-9_.-]{1,80}\.jsonl$")]
    rows: Count
    bytes: Count
    sha256: Sha256
    """Of the member's uncompressed bytes, which are `bytes` long."""
    fields: tuple[BundleField, ...]
    key: tuple[str, ...]
    """Fields of the key, in index order; empty for an entity without one."""
    schema_fingerprint: str
    secret_fields: tuple[str, ...]
    """Names of the fields that were left out because they are secret."""


class Manifest(_Strict):
    """`manifest.json`. Entities stand in the order in which an import can take them: parents first."""

    format: Literal["dataops-bundle"] = FORMAT
    version: Literal[1] = VERSION
    created_at: str
    snapshot_at: str
    """The moment that all members show; both times are ISO 8601 with a zone."""
    export_type: Literal["FULL", "PARTIAL", "ENTITY"]
    """PARTIAL: rows were left out, so that what is missing here was not deleted there."""
    source: dict[str, str]
    """Where it comes from, for people."""
    entities: tuple[BundleEntity, ...]


class Sink(Protocol):
    """Takes bytes in order. It copies what it keeps."""

    def write(self, data: bytes, /) -> object: ...


class Member:
    """A member while it is written."""

    def __init__(self, file: str, out: Any) -> None:
        self.file = file
        self.bytes = 0
        self._out, self._digest = out, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._out.write(data)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class BundleWriter:
    """Writes members, then the manifest. Without `close` the ZIP has no directory, so nobody takes it for whole.

    Use it as a context manager: what is left by an error writes nothing more.
    """

    def __init__(self, sink: Sink, created_at: datetime) -> None:
        self._out = _Unseekable(sink)
        self._zip = zipfile.ZipFile(self._out, "w", allowZip64=True)
        self._moment = created_at.timetuple()[:6]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            self._out.dropped = True
        # left to itself it would be closed, and a directory written, whenever it is collected
        self._zip.close()

    @contextmanager
    def member(self, file: str) -> Iterator[Member]:
        """One member of any size; one at a time."""
        with self._zip.open(self._info(file), "w", force_zip64=True) as out:
            yield Member(file, out)

    def close(self, manifest: Manifest) -> None:
        """Raises:
        DataInvalid: BUNDLE_TOO_LARGE for a manifest that our own reader would refuse.
        """
        data = (manifest.model_dump_json(indent=1) + "\n").encode()
        if len(data) > MAX_MANIFEST:
            raise DataInvalid(
                f"{MANIFEST}: found {len(data):,} bytes, expected at most {MAX_MANIFEST:,}", reason="BUNDLE_TOO_LARGE"
            )
        with self._zip.open(self._info(MANIFEST), "w") as out:
            out.write(data)
        self._zip.close()

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, self._moment)
        info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, _OWN_FILE
        # the ZipFile's own level is ignored by open(ZipInfo, "w"); the attribute has a public name from 3.13 on
        info._compresslevel = LEVEL  # type: ignore[attr-defined]
        return info


def member_name(number: int, entity: str) -> str:
    """`<number>-<entity>.jsonl`; characters beyond `A-Z a-z 0-9 _ . -` become `_`: the number keeps names apart."""
    return f"{number}-{re.sub('[^A-Za-z0-9_.-]', '_', entity)[:80] or '_'}.jsonl"


class _Unseekable(io.RawIOBase):
    """A sink as zipfile wants a file: it finds that it cannot seek, and writes sizes behind each member."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.dropped = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if not self.dropped:
            self._sink.write(data)
        return len(data)
