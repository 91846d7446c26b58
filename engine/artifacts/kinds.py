"""What an artifact is for; bound into every chunk, so that none can serve as another."""

from __future__ import annotations

from enum import StrEnum


class ArtifactKind(StrEnum):
    """At most 16 ASCII characters each: that is their room in a part's header."""

    UPLOAD = "UPLOAD"
    PLAN = "PLAN"
    EXPORT = "EXPORT"
    REPORT = "REPORT"
    REJECTS = "REJECTS"
    UNDO = "UNDO"
    CHANGES = "CHANGES"
    DIFFERENCES = "DIFFERENCES"
    SEGMENT = "SEGMENT"
    MANIFEST = "MANIFEST"
