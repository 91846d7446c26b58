"""Which errors of PostgreSQL are about a row, and which are about the session, the system or us."""

from __future__ import annotations

import psycopg

_NOT_ABOUT_ROWS = ("08", "40", "53", "54", "55", "57", "58", "25", "28", "42", "F0", "XX")
"""Classes of SQLSTATE: connection, rollback, resources, limits, state, operator, system, transaction, access, syntax
and rights, configuration, defects. Everything else a row, its types, its constraints or a trigger has said."""


def is_refusal(error: psycopg.Error) -> bool:
    """Whether a statement over rows failed because of what the rows are."""
    state = error.sqlstate
    return state is not None and not state.startswith(_NOT_ABOUT_ROWS)
