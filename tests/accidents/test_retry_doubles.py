"""The client sees a failure, the server goes on, and the client asks again: one effect, not two."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from engine.db.models import AuditEventRow, ImportRow, JobRow
from engine.errors import AlreadyExists
from engine.imports.model import ImportOptions, ImportRequest, ImportType
from tests.world import World

PEOPLE = (
    "CREATE TABLE public.people (id serial PRIMARY KEY, code text UNIQUE NOT NULL, n int);"
    "INSERT INTO public.people (code, n) VALUES ('a', 1), ('b', 2), ('c', 3)"
)
# new rows have no key of their own here: done twice, they would be there twice or be refused
FILES = {"ADDITIVE": b"code,n\nd,4\n", "UPSERT": b"code,n\na,10\nd,4\n", "REPLACE": b"code,n\na,10\nd,4\n"}
AFTER = {
    "ADDITIVE": [("a", 1), ("b", 2), ("c", 3), ("d", 4)],
    "UPSERT": [("a", 10), ("b", 2), ("c", 3), ("d", 4)],
    "REPLACE": [("a", 10), ("d", 4)],
}
MODES = pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT", "REPLACE"])


def request_of(world: World, mode: str, **options: Any) -> ImportRequest:
    if mode != "ADDITIVE":
        options["key_fields"] = ("code",)
    if mode == "REPLACE":
        options["max_deletes"] = 10
    upload = world.upload(FILES[mode])
    return ImportRequest(upload, "people", ImportType(mode), ImportOptions.from_record(options))


def count(world: World, table: type) -> int:
    with world.resources.db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@MODES
def test_an_import_asked_for_again_is_the_same_import(made: Callable[..., World], mode: str) -> None:
    world = made(PEOPLE)
    request, asked = request_of(world, mode, auto_apply=True), world.request()
    first = world.imports.create(world.caller, request, *asked)
    world.work()  # the answer was lost, the server went on to the end

    again = world.imports.create(world.caller, request, *asked)
    world.work()

    assert (again.id, again.status) == (first.id, "COMPLETED")
    assert world.sql("SELECT code, n FROM public.people ORDER BY code") == AFTER[mode]
    assert (count(world, ImportRow), count(world, JobRow)) == (1, 2)
    with pytest.raises(AlreadyExists) as caught:
        world.imports.create(world.caller, request, asked[0], hashlib.sha256(b"another body").digest())
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert (count(world, ImportRow), count(world, JobRow)) == (1, 2)


@MODES
def test_a_plan_applied_again_has_one_effect(made, mode):
    world = made(PEOPLE)
    row = world.imports.create(world.caller, request_of(world, mode), *world.request())
    world.work()
    row, asked = world.imports.get(world.caller, row.id), world.request()
    deletes = row.plan_summary["counts"]["delete"]

    def apply(request):
        return world.imports.apply(world.caller, row.id, row.plan_digest, *request, deletes)

    apply(asked)
    world.work()
    assert apply(asked).status == "COMPLETED"  # the same request
    assert apply(world.request()).status == "COMPLETED"  # a client that has lost its request id
    assert world.work() == 0
    with pytest.raises(AlreadyExists):
        apply((asked[0], hashlib.sha256(b"another body").digest()))

    assert world.sql("SELECT code, n FROM public.people ORDER BY code") == AFTER[mode]
    with world.resources.db.transaction() as session:
        intents = select(func.count()).where(AuditEventRow.operation == "imports.apply", AuditEventRow.kind == "INTENT")
        assert session.scalar(intents) == 1


@MODES
def test_requests_that_arrive_at_once_make_one_import(made: Callable[..., World], mode: str) -> None:
    world = made(PEOPLE)
    request, asked = request_of(world, mode, auto_apply=True), world.request()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: world.imports.create(world.caller, request, *asked).id, range(8)))
    world.work()

    assert len(set(found)) == 1
    assert world.sql("SELECT code, n FROM public.people ORDER BY code") == AFTER[mode]


def test_a_request_id_of_another_caller_is_another_request(made: Callable[..., World]) -> None:
    world = made(PEOPLE)
    other, asked = world.caller_with("super_admin", "somebody"), (str(uuid.uuid4()), b"x" * 32)
    one = world.imports.create(world.caller, request_of(world, "UPSERT"), *asked)
    world.caller, first = other, world.caller
    two = world.imports.create(other, request_of(world, "UPSERT"), *asked)

    assert one.id != two.id
    assert first.principal_id == one.principal_id != two.principal_id
