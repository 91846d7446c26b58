"""What a log line holds, and what it never does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from engine import telemetry


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    lines = io.StringIO()
    telemetry.configure("json", stream=lines)
    yield lines
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_names_the_request_job_and_principal_it_belongs_to(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request="r1", job="j1", principal="p1")
    structlog.get_logger("a.b").info("it_happened", rows=3)
    logging.getLogger("library").warning("of %s", "theirs")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["rows"], ours["logger"], ours["level"]) == ("it_happened", 3, "a.b", "info")
    for line in (ours, theirs):
        assert (line["request"], line["job"], line["principal"]) == ("r1", "j1", "p1")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://dataops:hunter2@db:5432/x",
        "postgresql+psycopg://dataops:hunter2@db/x",
        "redis://:hunter2@valkey:6379/0",
        "host=db password=hunter2 user=x",
        "host=db password='hunter2' user=x",
        "authorization: Bearer hunter2.abc-def",
    ],
)
def test_a_password_or_token_stands_in_no_line(stream: io.StringIO, text: str) -> None:
    log = structlog.get_logger("a")
    log.info(f"event {text}", detail=text, error=ValueError(text))
    try:
        int(text)  # a ValueError that holds the text
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed %s", text)
    assert len(stream.getvalue().splitlines()) == 3
    assert "hunter2" not in stream.getvalue()


def test_what_is_called_a_secret_is_hidden_whatever_it_is(stream: io.StringIO) -> None:
    structlog.get_logger("a").info("x", password="hunter2", api_token=["hunter2"], control_dsn="hunter2", rows=1)
    line = json.loads(stream.getvalue())
    assert (line["password"], line["api_token"], line["control_dsn"]) == ("[hidden]",) * 3
    assert line["rows"] == 1
