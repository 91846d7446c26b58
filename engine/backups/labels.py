"""Labels of enums while rows are read. Their names are no part of a snapshot: a row in which one stands is printed in
two ways if somebody renames it between two readings of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.catalog import Entity
from engine.db.platform import Connection
from engine.errors import Aborted

_LABELS = """
WITH RECURSIVE held AS (
    SELECT a.atttypid AS type FROM pg_attribute a WHERE a.attrelid = ANY (%s::text[]::regclass[]) AND a.attnum > 0
    UNION
    SELECT t.typbasetype FROM held h JOIN pg_type t ON t.oid = h.type WHERE t.typtype = 'd'
)
SELECT e.oid::bigint, e.enumlabel::text, e.xmin::text FROM held h JOIN pg_enum e ON e.enumtypid = h.type
"""


@contextmanager
def same_labels(connection: Connection, entities: Sequence[Entity]) -> Iterator[None]:
    """Around all readings, in statements that see what is committed: no label of their columns gets another name, not
    even to get the old one back.

    Raises:
        Aborted: CATALOG_MOVED.
    """
    before = _labels(connection, entities)
    yield
    after = _labels(connection, entities) if before else {}
    if renamed := [label for oid, label in before.items() if after.get(oid) != label]:
        raise Aborted(
            f"backup: the label {renamed[0][0]!r} of an enum was renamed while rows were read", reason="CATALOG_MOVED"
        )


def _labels(connection: Connection, entities: Sequence[Entity]) -> dict[int, tuple[str, str]]:
    """Label and version of each, by OID."""
    names = [entity.qualified.as_string() for entity in entities if any(field.labels for field in entity.stored)]
    rows = connection.execute(_LABELS, (names,)).fetchall() if names else []
    return {oid: (label, version) for oid, label, version in rows}
