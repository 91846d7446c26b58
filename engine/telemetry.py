"""Logs: one line an event, JSON or text, with the request, job and principal they belong to.

`structlog.contextvars.bind_contextvars(request=…, job=…, principal=…)` puts those on every line of the call or job, on
its threads too. What looks like a secret is taken out of every line, a library's own and tracebacks included.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(r"passw|secret|token|authorization|api_?key|private|credential|dsn", re.IGNORECASE)
_SECRET_TEXT = (
    # user information of any address: postgresql://user:password@host
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), HIDDEN + "@"),
    # libpq's own form: password=… or password='…'
    (re.compile(r"(?i)\b(password|passwd|sslpassword)\s*=\s*('[^']*'|\S+)"), r"\1=" + HIDDEN),
    (re.compile(r"(?i)\bbearer\s+[\w.~+/=-]+"), "Bearer " + HIDDEN),
    # a JSON Web Token wherever it stands
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), HIDDEN),
)


def scrub(text: str) -> str:
    """`text` without passwords of addresses and connection strings, and without bearer tokens."""
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def configure(log_format: str = "json", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records, scrubbed, to `stream` (standard error)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    render: Processor = (
        structlog.dev.ConsoleRenderer(colors=False) if log_format == "text" else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _hide_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name.startswith("_"):
            continue
        if _SECRET_NAME.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = scrub(value)
        elif isinstance(value, BaseException):
            event[name] = scrub(repr(value))
    return event
