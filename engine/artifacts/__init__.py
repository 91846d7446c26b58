"""Artifacts: files we keep, as sealed parts and a closing record. The format is `docs/archive-format.md`."""

from engine.artifacts.kinds import ArtifactKind
from engine.artifacts.reader import ArtifactReader
from engine.artifacts.seekable import SeekableArtifact
from engine.artifacts.store import ArtifactStore
from engine.artifacts.sweep import SweepResult
from engine.artifacts.writer import ArtifactWriter, Closed

__all__ = [
    "ArtifactKind",
    "ArtifactReader",
    "ArtifactStore",
    "ArtifactWriter",
    "Closed",
    "SeekableArtifact",
    "SweepResult",
]
