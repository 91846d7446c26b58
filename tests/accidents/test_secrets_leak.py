"""Secrets in what leaves the service: previews, their file, reject files, errors, reports, events, audit and logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from engine.errors import Unavailable
from engine.imports.model import ReportPart
from engine.paging import Paging
from tests.world import World

CATALOG = """
[entities.users]
table = "public.users"
[entities.users.secrets]
password_hash = { fill = "!" }
otp = { fill = "!" }

[entities.tokens]
table = "public.tokens"
[entities.tokens.secrets]
token_hash = { fill = "!" }
"""
SCHEMA = """
CREATE TABLE public.users (id int PRIMARY KEY, email text UNIQUE NOT NULL, password_hash text NOT NULL UNIQUE,
    otp varchar(12), CONSTRAINT strong CHECK (length(password_hash) > 3 OR password_hash = '!'));
CREATE TABLE public.tokens (id int PRIMARY KEY, owner int REFERENCES public.users ON DELETE CASCADE,
    token_hash text NOT NULL);
INSERT INTO public.users VALUES (1, 'a@x', 'SECRET-old-1', 'SECRETotp1'), (2, 'b@x', 'SECRET-old-2', 'SECRETotp2'),
    (3, 'c@x', 'SECRET-old-3', NULL);
INSERT INTO public.tokens VALUES (1, 3, 'SECRET-token');
"""
FILE = (
    b"id,email,password_hash,otp\n"
    b"1,a@x,SECRET-new-1,SECRETotp9\n"  # update
    b"2,b@x,SECRET-old-2,SECRETotp2\n"  # unchanged
    b"4,d@x,SECRET-new-4,\n"  # insert
    b"5,e@x,SECRET-new-4,\n"  # a secret twice in the file
    b"6,f@x,SECRET-new-6,SECRETwhich-is-far-too-long\n"  # too long
    b"x,g@x,SECRET-new-7,SECRETx\n"  # another field is bad
    b"8,h@x,SECRET-\0nul,\n"
    b"9,i@x,SECRET-wide,SECRETx,SECRETy\n"
)


@pytest.fixture
def users(empty_dsn: str, make_world: Callable[..., World], tmp_path: Path) -> World:
    (tmp_path / "catalog.toml").write_text(CATALOG)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
    return make_world(empty_dsn, catalog_file=tmp_path / "catalog.toml")


def told(world: World, row: Any) -> str:
    """Everything that a caller, an operator or a log can see of an import, as one text."""
    parts: list[object] = [row.plan_summary, row.report, row.error, world.errors(row)]
    parts.append(world.imports.changes(world.caller, row.id, Paging(1000, "", "t"))[0])
    for part in ReportPart:
        try:
            world.imports.report_part(world.caller, row.id, part)
        except Unavailable:
            world.work()
        except Exception as error:
            parts.append(repr(error))
            continue
        parts.append(world.read(world.imports.report_part(world.caller, row.id, part).artifact_id).decode())
    with world.resources.db.transaction() as session:
        tables = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'dataops'")).all()
        for table in tables:
            found = session.execute(text(f'SELECT t::text FROM dataops."{table}" t')).scalars().all()
            parts += found
    parts.append(world.sql("SELECT facts::text FROM dataops_work.applied") if row.report else "")
    return "\n".join(map(str, parts))


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_no_secret_stands_in_anything_that_an_import_tells(
    users: World, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"import_type": mode}
    data = FILE
    if mode == "REPLACE":
        data = b"\n".join(FILE.split(b"\n")[:6])  # records whose key can be read
        options |= {"max_deletes": 10, "allow_cascade": ["tokens"], "error_budget": 5}
    row = users.plan("users", data, **options)
    assert row.status == "AWAITING_APPROVAL", row.error
    seen = told(users, row)
    row = users.apply(row)
    assert row.status == "COMPLETED", row.error
    seen += told(users, row)
    out, err = capfd.readouterr()

    assert "SECRET" not in seen + out + err
    assert "password_hash" in seen  # that it changes is told, what it is not
    stored = users.sql("SELECT id, password_hash, otp FROM public.users ORDER BY id")
    assert stored[:2] == [(1, "SECRET-new-1", "SECRETotp9"), (2, "SECRET-old-2", "SECRETotp2")]
    assert ((3, "SECRET-old-3", None) in stored) is (mode == "UPSERT")


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_secret_that_the_file_does_not_set_stays_or_is_filled(users: World, mode: str) -> None:
    options = {"max_deletes": 10, "allow_cascade": ["tokens"]} if mode == "REPLACE" else {}
    row = users.load("users", b"id,email\n1,new@x\n7,z@x\n", import_type=mode, **options)

    assert row.status == "COMPLETED", row.error
    assert users.sql("SELECT id, password_hash, otp FROM public.users WHERE id IN (1, 7) ORDER BY id") == [
        (1, "SECRET-old-1", "SECRETotp1"), (7, "!", "!"),
    ]  # fmt: skip


@pytest.mark.parametrize("key", [["password_hash"], ["otp"]])
def test_rows_cannot_be_found_by_a_secret(users: World, key: list[str]) -> None:
    row = users.plan("users", b"password_hash,otp,email\nSECRET-old-1,x,y\n", import_type="UPSERT", key_fields=key)

    assert users.reason(row) == "KEY_NOT_USABLE"
    assert "SECRET" not in told(users, row)


def test_a_lookup_by_a_secret_is_refused(users: World) -> None:
    from engine.imports.model import FieldMapping

    users.sql("ALTER TABLE public.tokens ADD via text REFERENCES public.users (password_hash)")
    row = users.plan(
        "tokens", b"id,via\n1,SECRET-old-1\n", import_type="UPSERT",
        mapping=(FieldMapping("owner", "via", lookup="password_hash"),),
    )  # fmt: skip

    assert row.status == "FAILED"
    assert "SECRET" not in told(users, row)


@pytest.mark.parametrize(
    "body", ["RAISE 'found %', new", "RETURN (new.password_hash::int, 1)", "new.otp = new.password_hash"]
)
@pytest.mark.parametrize("refused", ["ABORT", "SKIP"])
def test_what_a_trigger_says_of_a_row_is_not_repeated(
    users: World, body: str, refused: str, capfd: pytest.CaptureFixture[str]
) -> None:
    users.sql(
        f"CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN new; END $$;"
        "CREATE TRIGGER f BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.f()"
    )
    row = users.load(
        "users", b"id,email,password_hash\n1,a@x,SECRET-new-1\n4,d@x,SECRET-new-4\n", import_type="UPSERT",
        on_refused=refused,
    )  # fmt: skip
    out, err = capfd.readouterr()

    assert row.status in ("ROLLED_BACK", "COMPLETED")
    assert users.reason(row) != "INTERNAL"
    assert "SECRET" not in told(users, row) + out + err
