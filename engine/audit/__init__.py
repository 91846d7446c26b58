"""The audit log: who asked for what, when, and what came of it. Rows are only ever added.

No intent, no operation: the intent row commits in the transaction that starts the work, the outcome row in the one
that ends it. Details never hold a row's values, a secret, a token or a DSN.
"""

from engine.audit.log import record_access, record_change, record_denied, record_intent, record_outcome
from engine.audit.query import EventFilter, list_events

__all__ = [
    "EventFilter",
    "list_events",
    "record_access",
    "record_change",
    "record_denied",
    "record_intent",
    "record_outcome",
]
