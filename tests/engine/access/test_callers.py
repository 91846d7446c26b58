"""Principals, grants and request ids on a real control database, with more than one caller at once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from engine.access import CallContext, Caller, bootstrap, caller_of, once, resolve_caller
from engine.access.grants import grant_role, list_grants, revoke_role
from engine.access.idempotency import KEPT_FOR, sweep_request_ids
from engine.clock import utc_now
from engine.db.database import Database
from engine.db.models import AuditEventRow, GrantRow, PrincipalRow, RequestIdRow
from engine.errors import AlreadyExists, FailedPrecondition, InvalidRequest, PermissionDenied
from engine.ids import new_id
from engine.paging import Paging

NOW = utc_now()
RPC = "/dataops.v1.X/Make"


@pytest.fixture
def db(control_dsn: str) -> Iterator[Database]:
    opened = Database(control_dsn)
    yield opened
    opened.close()


def _resolve(db: Database, subject: str = "sam") -> Caller:
    with db.transaction() as session:
        return resolve_caller(session, "iss", subject, "USER", "", CallContext(), utc_now())


def test_eight_first_calls_at_once_make_one_principal(db: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        callers = list(pool.map(lambda _: _resolve(db), range(8)))
    assert len({caller.principal_id for caller in callers}) == 1
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(PrincipalRow)) == 1


def test_bootstrap_may_run_at_every_start_and_grants_once(db: Database) -> None:
    for want in (["sam", "eve"], []):
        with db.transaction() as session:
            assert bootstrap(session, "iss", ["sam", " eve ", ""], NOW) == want
    assert _resolve(db, "eve").permissions == ("*",)
    with db.transaction() as session:
        kinds = [row.kind for row in session.scalars(select(AuditEventRow).order_by(AuditEventRow.sequence))]
    assert kinds == ["INTENT", "OUTCOME"] * 2


def test_two_bootstraps_at_once_do_not_meet(db: Database) -> None:
    def run(_: int) -> list[str]:
        with db.transaction() as session:
            return bootstrap(session, "iss", ["sam"], NOW)

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(run, range(2)))
    assert sorted(map(len, made)) == [0, 1]


def test_the_check_at_the_moment_of_effect_sees_a_revocation(db: Database) -> None:
    with db.transaction() as session:
        bootstrap(session, "iss", ["sam", "eve"], NOW)
    sam, eve = _resolve(db), _resolve(db, "eve")
    with db.transaction() as session:
        grant = list_grants(session, Paging(), principal_id=eve.principal_id).items[0]
        revoke_role(session, sam, grant.id, NOW)
    with db.transaction() as session, pytest.raises(PermissionDenied, match="PERMISSION_MISSING"):
        caller_of(session, eve.principal_id, CallContext()).require("imports.apply", "users")
    with db.transaction() as session, pytest.raises(PermissionDenied, match="PRINCIPAL_UNKNOWN"):
        caller_of(session, new_id(), CallContext())


def test_two_super_admins_who_revoke_each_other_at_once_leave_one(db: Database) -> None:
    with db.transaction() as session:
        bootstrap(session, "iss", ["sam", "eve"], NOW)
    sam, eve = _resolve(db), _resolve(db, "eve")
    with db.transaction() as session:
        grants = {row.principal_id: row.id for row in session.scalars(select(GrantRow))}

    def second() -> str:
        with db.transaction() as session:
            revoke_role(session, eve, grants[sam.principal_id], NOW)
        return "revoked"

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as session:
            revoke_role(session, sam, grants[eve.principal_id], NOW)
            other = pool.submit(second)
            _wait_until_blocked(db, other)  # not committed yet: the second must wait for what becomes of the first
        with pytest.raises(FailedPrecondition, match="LAST_SUPER_ADMIN"):
            other.result()


def _wait_until_blocked(db: Database, other: Future[str]) -> None:
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(600):
        with db.transaction() as session:
            if session.scalar(blocked) or other.done():
                return
        threading.Event().wait(0.05)
    raise AssertionError("the other transaction neither waits nor ends")


def test_a_grant_for_the_past_is_refused(db: Database) -> None:
    with db.transaction() as session:
        bootstrap(session, "iss", ["sam"], NOW)
    sam = _resolve(db)
    with db.transaction() as session, pytest.raises(InvalidRequest, match="GRANT_ENDED"):
        grant_role(
            session,
            sam,
            issuer="iss",
            subject="eve",
            kind="USER",
            role="admin",
            expires_at=NOW - timedelta(seconds=1),
            request_id=str(uuid.uuid4()),
            body_sha256=b"1",
            now=NOW,
        )


def test_eight_equal_calls_at_once_start_the_work_once(db: Database) -> None:
    caller, request_id, made = _resolve(db), str(uuid.uuid4()), []
    barrier = threading.Barrier(8)

    def make() -> uuid.UUID:
        made.append(new_id())
        return made[-1]

    def call(_: int) -> tuple[uuid.UUID, bool]:
        barrier.wait()
        with db.transaction() as session:
            return once(session, caller, RPC, request_id, b"body", make, NOW)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(8)))
    assert len(made) == 1
    assert {answer[0] for answer in answers} == set(made)
    assert [answer[1] for answer in answers].count(True) == 1


def test_a_start_that_is_rolled_back_leaves_the_id_free(db: Database) -> None:
    caller, request_id = _resolve(db), str(uuid.uuid4())

    def fail() -> uuid.UUID:
        raise LookupError

    with pytest.raises(LookupError), db.transaction() as session:
        once(session, caller, RPC, request_id, b"body", fail, NOW)
    with db.transaction() as session:
        assert once(session, caller, RPC, request_id, b"body", new_id, NOW)[1] is True


def test_a_request_id_belongs_to_its_caller_rpc_and_body(db: Database) -> None:
    sam, eve, request_id = _resolve(db), _resolve(db, "eve"), str(uuid.uuid4())
    with db.transaction() as session:
        first, _ = once(session, sam, RPC, request_id, b"body", new_id, NOW)
        assert once(session, sam, RPC, request_id.upper(), b"body", new_id, NOW) == (first, False)
        assert once(session, eve, RPC, request_id, b"body", new_id, NOW)[1]
        assert once(session, sam, RPC + "2", request_id, b"body", new_id, NOW)[1]
        with pytest.raises(AlreadyExists, match="REQUEST_ID_REUSED"):
            once(session, sam, RPC, request_id, b"other", new_id, NOW)
        with pytest.raises(InvalidRequest, match="INVALID_ID"):
            once(session, sam, RPC, "nonsense", b"body", new_id, NOW)


def test_request_ids_are_kept_a_day_and_longer_and_then_forgotten(db: Database) -> None:
    caller = _resolve(db)
    assert timedelta(hours=24) < KEPT_FOR
    with db.transaction() as session:
        for age in (timedelta(hours=25), KEPT_FOR + timedelta(hours=1)):
            once(session, caller, RPC, str(uuid.uuid4()), b"", new_id, NOW - age)
        assert sweep_request_ids(session, NOW) == 1
        assert session.scalar(select(func.count()).select_from(RequestIdRow)) == 1
