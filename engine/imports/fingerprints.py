"""Fingerprints of rows, as SQL: `hashtextextended` over the text of a row of listed columns, with a secret seed.

Never `hash_record*`: it is blind to 1.0 against 1.00 and to 0 against -0, depends on enum OIDs and lacks some 20 types.
And always `(t.*)::text` over a subquery that lists the columns: `t::text` hashes one column when it bears the alias'
name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from psycopg import sql


def new_seed() -> int:
    """A random bigint: without it, the fingerprint of a short row could be tried out."""
    return secrets.randbits(64) - (1 << 63)


def fingerprint(alias: str, columns: Iterable[str], seed: int) -> sql.Composed:
    """The fingerprint, a bigint, of these columns of the row `alias`, in the order given."""
    source = sql.SQL(alias)
    listed = sql.SQL(", ").join(sql.SQL("{}.{}").format(source, sql.Identifier(c)) for c in columns)
    return sql.SQL('(SELECT hashtextextended((f.*)::text COLLATE "C", {}) FROM (SELECT {}) f)').format(
        sql.Literal(seed), listed
    )
