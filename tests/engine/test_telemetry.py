"""What a log line holds, and what it never does."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from engine import telemetry
from engine.db.database import Database
from engine.errors import DataInvalid, DataOpsError
from engine.jobs.retry import describe


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


ROOT = Path(__file__).parents[2]

CHECK_THAT_TELLS = """
    CREATE FUNCTION public.tells(value text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no such card: %', value USING ERRCODE = '22023'; END $$;
    CREATE TABLE public.cards (number text CONSTRAINT told CHECK (public.tells(number)), holder text);
    CREATE TABLE public.holders (name text CONSTRAINT one_holder UNIQUE);
    INSERT INTO public.holders VALUES ('hunter2');
"""


@pytest.fixture
def cards(empty_dsn: str) -> str:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(CHECK_THAT_TELLS)
    return empty_dsn


def driver_error(dsn: str, statement: str = "INSERT INTO public.cards VALUES ('hunter2')") -> psycopg.Error:
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(statement.encode())
    assert "hunter2" in str(caught.value)
    return caught.value


def wrapped_error(dsn: str) -> DBAPIError:
    db = Database(dsn)
    with pytest.raises(DBAPIError) as caught, db.transaction() as session:
        session.execute(text("INSERT INTO public.cards VALUES (:number)"), {"number": "hunter2"})
    db.close()
    assert "hunter2" in str(caught.value)
    return caught.value


def caused_by(error: Exception) -> DataOpsError:
    with pytest.raises(DataOpsError) as caught:
        raise DataInvalid("row: was refused", reason="ROW_REFUSED") from error
    return caught.value


def in_handling(error: Exception) -> ValueError:
    with pytest.raises(ValueError, match="ours") as caught:
        try:
            raise error
        except psycopg.Error:
            raise ValueError("ours") from None
    caught.value.__suppress_context__ = False
    return caught.value


@pytest.mark.parametrize(
    "make",
    [
        driver_error,
        wrapped_error,
        lambda dsn: caused_by(driver_error(dsn)),
        lambda dsn: caused_by(wrapped_error(dsn)),
        lambda dsn: in_handling(driver_error(dsn)),
        lambda dsn: ExceptionGroup("two", [ValueError("ours"), driver_error(dsn)]),
    ],
)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_row_value_that_a_driver_tells_stands_in_no_line(
    log_format: str, make: Callable[[str], Exception], cards: str, stream: io.StringIO
) -> None:
    error = make(cards)
    telemetry.configure(log_format, stream=stream)
    structlog.get_logger("a").warning("failed", exc_info=error)
    structlog.get_logger("a").warning("failed", error=error)
    structlog.get_logger("a").warning("failed %s", error)
    logging.getLogger("library").warning("failed", exc_info=error)
    logging.getLogger("library").warning("failed %s", error)
    assert stream.getvalue().count("failed") >= 5
    assert "hunter2" not in stream.getvalue()


def test_what_can_be_told_of_a_drivers_error_is_told(cards: str, stream: io.StringIO) -> None:
    error = driver_error(cards, "INSERT INTO public.holders VALUES ('hunter2')")
    structlog.get_logger("a").warning("failed", exc_info=caused_by(error))
    told = json.loads(stream.getvalue())["exception"]
    for part in ("UniqueViolation", "sqlstate=23505", "constraint=one_holder", "table=holders", "schema=public"):
        assert part in told
    assert "test_telemetry.py" in told
    assert ":driver_error" in told
    assert "row: was refused" in told, "an error of our own keeps its text"


def test_a_job_that_meets_a_defect_leaves_no_row_value_in_the_log(cards: str, stream: io.StringIO) -> None:
    told = describe(driver_error(cards))
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["error_id"]) == ("job_defect", told.metadata["error_id"])
    assert "sqlstate=22023" in line["exception"]
    assert "hunter2" not in stream.getvalue()


def test_what_ends_a_process_or_a_thread_is_a_line_of_the_log_too(cards: str) -> None:
    program = """
import psycopg, sys, threading
from engine import telemetry
telemetry.configure()
def fail():
    psycopg.connect(sys.argv[1]).execute("INSERT INTO public.cards VALUES ('hunter2')")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, cards], capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["uncaught", "uncaught"]
    assert all("sqlstate=22023" in line["exception"] for line in lines)
    assert "hunter2" not in ended.stderr
