"""The files of one import: the upload itself for one entity, or the members of a bundle."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.artifacts.seekable import SeekableArtifact
from engine.db.models import ImportRow, UploadRow
from engine.errors import DataInvalid
from engine.formats.base import ByteSource
from engine.formats.bundle_reader import BundleReader
from engine.imports.model import CsvOptions, ImportOptions, ImportType
from engine.resources import Resources

MAX_BUNDLE_BYTES = 1 << 40
"""Of all members, unpacked. They are streamed, so this bounds time, not memory."""

MOST_ENTITIES = 250
"""Of one import. Each has up to 9 temp tables, 23 relations with their indexes and toast tables. The server locks all
of them in one transaction, at the latest when it drops them: 5,753 were seen, and PostgreSQL has room for 6,400 locks
as it is installed (64 max_locks_per_transaction, 100 connections)."""


@dataclass(frozen=True)
class Source:
    """The rows of one entity, and how they are read."""

    entity: str
    options: ImportOptions
    open_file: Callable[[], ByteSource]
    fields: tuple[str, ...] | None = None
    """Of an empty member of a bundle, which says nothing itself."""
    records: int | None = None
    """How many there must be, where somebody has said so."""


class _Checked:
    """A file whose reading can be interrupted: some readers go over all of it before they give a first batch."""

    def __init__(self, source: ByteSource, check: Callable[[], None]) -> None:
        self._source, self._check = source, check

    def read(self, size: int = -1, /) -> bytes | None:
        self._check()  # on whatever thread: pyarrow hands on what is raised on its own
        return self._source.read(size)


def open_sources(
    resources: Resources,
    row: ImportRow,
    upload: UploadRow,
    options: ImportOptions,
    *,
    check: Callable[[], None],
) -> list[Source]:
    """The files, in the order of the plan; `check` is called as they are read, and may raise.

    Raises:
    DataInvalid: BUNDLE_INVALID, BUNDLE_DAMAGED, BUNDLE_TOO_LARGE, BUNDLE_PARTIAL.
    """
    if options.format == "BUNDLE":
        bundle = _bundle(resources, upload)
        if row.import_type == ImportType.REPLACE and bundle.manifest.export_type == "PARTIAL":
            raise DataInvalid(
                "bundle: found one of a part of the rows, expected all of them: REPLACE would delete the others",
                reason="BUNDLE_PARTIAL",
            )
        for member in bundle.manifest.entities:
            if not member.bytes:  # nobody will read it, so that its digest is asked for here
                bundle.open(member.entity).read()
        inner = replace(options, format="JSON_LINES", csv=CsvOptions())
        return [
            Source(
                member.entity,
                inner,
                lambda name=member.entity: _Checked(bundle.open(name), check),  # type: ignore[misc]
                tuple(f.name for f in member.fields) if not member.bytes else None,
                member.rows,
            )
            for member in bundle.manifest.entities
        ]

    def open_upload() -> ByteSource:
        assert upload.artifact_id is not None
        # each part is proven to be this upload's, and its digest; that of the whole was when it was finished
        return _Checked(resources.artifacts.reader(upload.artifact_id).open(check_whole=False), check)

    return [Source(row.entity_type, options, open_upload)]


def bundled_entities(resources: Resources, upload: UploadRow) -> list[str]:
    """The entities of a bundle's manifest, in its order.

    Raises:
        DataInvalid: as `open_sources`.
    """
    return [member.entity for member in _bundle(resources, upload).manifest.entities]


def _bundle(resources: Resources, upload: UploadRow) -> BundleReader:
    assert upload.artifact_id is not None
    file = io.BufferedReader(SeekableArtifact(resources.artifacts.reader(upload.artifact_id)), 1 << 20)
    bundle = BundleReader(file, max_bytes=MAX_BUNDLE_BYTES)
    if (found := len(bundle.manifest.entities)) > MOST_ENTITIES:
        raise DataInvalid(
            f"bundle: found {found:,} entities, expected at most {MOST_ENTITIES:,} in one import",
            reason="BUNDLE_TOO_LARGE",
        )
    return bundle
