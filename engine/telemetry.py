"""Logs: one line an event, JSON or text, with the request, job and principal they belong to.

`structlog.contextvars.bind_contextvars(request=…, job=…, principal=…)` puts those on every line of the call or job, on
its threads too. What looks like a secret is taken out of every line, a library's own and tracebacks included.

A database driver's text may hold row values (a key that stands twice, whatever a CHECK's function says), so of its
errors, wherever in a chain, a line holds what `told` tells. No caller has to think of it: it is done to every line.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, TextIO

import psycopg
import structlog
from sqlalchemy.exc import StatementError
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
        _tell_exception,
        _hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _tell_positional,
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
    handler.addFilter(_tell_arguments)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if stream is None:  # the process's own log: what ends it or a thread is a line too, not a bare traceback beside it
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread


def told(error: BaseException) -> str:
    """`error` in a line: a driver's by its type and what the server said of it but for values, any other's as it is."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if not _tells_values(error):
        return "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, StatementError) and isinstance(error.orig, BaseException):
        return f"{kind} of {told(error.orig)}"
    if not isinstance(error, psycopg.Error):
        return kind
    known = {
        "sqlstate": error.sqlstate,
        "constraint": error.diag.constraint_name,
        "table": error.diag.table_name,
        "schema": error.diag.schema_name,
    }
    return " ".join([kind, *(f"{name}={value}" for name, value in known.items() if value)])


def told_chain(error: BaseException) -> str:
    """`error` with its causes and contexts, oldest first, each as `told` with its frames as file:line:function."""
    return "\n".join(_chain(error, set()))


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _chain(before, seen)
        yield "which led to" if error.__cause__ else "while it was handled"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno}:{frame.name}"
    yield told(error)
    if isinstance(error, BaseExceptionGroup):
        for number, part in enumerate(error.exceptions, start=1):
            yield f"of which {number}"
            yield from _chain(part, seen)


def _tells_values(error: object) -> bool:
    """Whether its text is a driver's: SQLAlchemy adds the parameters, and Arrow quotes the cell it cannot read."""
    return isinstance(error, psycopg.Error | StatementError) or type(error).__module__.startswith("pyarrow")


def _tell_exception(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    if found and not isinstance(found, BaseException):
        found = (found if isinstance(found, tuple) else sys.exc_info())[1]
    if isinstance(found, BaseException):
        event["exception"] = told_chain(found)
    return event


def _tell_positional(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if arguments := event.get("positional_args"):
        event["positional_args"] = tuple(map(_told_argument, arguments))
    return event


def _tell_arguments(record: logging.LogRecord) -> bool:
    """For libraries' own lines: psycopg's `error ignored in rollback on …: <error>` is one."""
    if isinstance(record.args, tuple):
        record.args = tuple(map(_told_argument, record.args))
    return True


def _told_argument(argument: object) -> object:
    return told(argument) if isinstance(argument, BaseException) and _tells_values(argument) else argument


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, Exception):
        structlog.get_logger(__name__).critical("uncaught", exc_info=error)
    else:
        sys.__excepthook__(kind, error, trace)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if isinstance(args.exc_value, Exception):
        structlog.get_logger(__name__).critical(
            "uncaught", thread=args.thread and args.thread.name, exc_info=args.exc_value
        )
    else:
        threading.__excepthook__(args)


def _hide_secrets(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name.startswith("_"):
            continue
        if _SECRET_NAME.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = scrub(value)
        elif isinstance(value, BaseException):
            event[name] = scrub(told(value))
    return event
