"""Which format and compression a file's name speaks of."""

from __future__ import annotations

from pathlib import Path

from dataops.v1 import common_pb2

_COMPRESSIONS = {".gz": common_pb2.COMPRESSION_GZIP, ".zst": common_pb2.COMPRESSION_ZSTD}
_FORMATS = {
    "": common_pb2.FILE_FORMAT_CSV,
    ".csv": common_pb2.FILE_FORMAT_CSV,
    ".json": common_pb2.FILE_FORMAT_JSON,
    ".jsonl": common_pb2.FILE_FORMAT_JSON_LINES,
    ".ndjson": common_pb2.FILE_FORMAT_JSON_LINES,
    ".zip": common_pb2.FILE_FORMAT_BUNDLE,
}


def compression_of(path: Path) -> common_pb2.Compression.ValueType:
    """The compression by the last ending (`.gz`, `.zst`); UNSPECIFIED for any other."""
    return _COMPRESSIONS.get(path.suffix.lower(), common_pb2.COMPRESSION_UNSPECIFIED)


def format_of(path: Path) -> common_pb2.FileFormat.ValueType:
    """The format by the ending before that of a compression; CSV for a name without one.

    Raises:
        ValueError: the ending is none that we write.
    """
    named = path.with_suffix("") if compression_of(path) else path
    try:
        return _FORMATS[named.suffix.lower()]
    except KeyError:
        expected = ", ".join(ending for ending in _FORMATS if ending)
        raise ValueError(f"{path.name}: found the ending {named.suffix}, expected {expected}") from None
