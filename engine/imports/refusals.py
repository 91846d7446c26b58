"""Which errors of PostgreSQL the table's own rules have made, and which are the session's, the system's or ours."""

from __future__ import annotations

import psycopg

_OTHERS = ("08", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE: connection, conflict, resources, state and locks, operator, system, defects."""

_RIGHT_MISSING = "42501"


def is_refusal(error: psycopg.Error) -> bool:
    """Whether a check, function, trigger or limit of the table said it, and would say it again.

    Its function may raise any SQLSTATE of its own making, and stumble over anything that it names.
    """
    state = error.sqlstate
    return state is not None and not state.startswith(_OTHERS) and state != _RIGHT_MISSING
