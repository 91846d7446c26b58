"""Uploads as resources: who sees them, how many, when they go."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select

from engine.clock import utc_now
from engine.db.models import AuditEventRow
from engine.errors import AlreadyExists, DataOpsError, FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from engine.ids import new_id
from engine.paging import Paging
from engine.uploads import UploadSweep
from tests.engine.uploads.conftest import Bench, send

BODY = hashlib.sha256(b"body").digest()


def test_the_same_request_gives_the_same_upload_and_another_body_is_refused(bench: Bench) -> None:
    request_id = str(uuid4())
    first = bench.uploads.start(bench.ann, "a.csv", None, None, request_id, BODY)
    again = bench.uploads.start(bench.ann, "a.csv", None, None, request_id, BODY)

    assert (again.id, again.state, again.name) == (first.id, "OPEN", "a.csv")
    with pytest.raises(AlreadyExists) as caught:
        bench.uploads.start(bench.ann, "a.csv", None, None, request_id, bytes(32))
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert bench.uploads.start(bench.bob, "a.csv", None, None, request_id, BODY).id != first.id


def test_one_principal_has_no_more_open_uploads_than_allowed_even_in_a_race(bench: Bench) -> None:
    def start(_number: int) -> str:
        try:
            bench.start(bench.ann)
        except ResourceExhausted as error:
            assert error.retry_after == 60
            return error.reason
        return "started"

    with ThreadPoolExecutor(6) as pool:
        outcomes = sorted(pool.map(start, range(6)))

    assert outcomes == ["TOO_MANY_UPLOADS"] * 3 + ["started"] * 3
    bench.start(bench.bob)
    bench.uploads.abort(bench.ann, bench.uploads.list(bench.ann, Paging()).items[0].id)
    assert start(0) == "started"


@pytest.mark.parametrize(
    ("name", "size", "sha256", "reason"),
    [
        ("", None, None, "FILE_NAME_INVALID"),
        ("x" * 256, None, None, "FILE_NAME_INVALID"),
        ("a\0b", None, None, "FILE_NAME_INVALID"),
        ("a", -1, None, "SIZE_INVALID"),
        ("a", (64 << 20) + 1, None, "UPLOAD_TOO_LARGE"),
        ("a", None, b"short", "DIGEST_INVALID"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(bench: Bench, name, size, sha256, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bench.uploads.start(bench.ann, name, size, sha256, str(uuid4()), BODY)

    assert caught.value.reason == reason


def test_a_name_is_kept_as_it_is_and_never_becomes_a_path(bench: Bench) -> None:
    upload = bench.uploads.start(bench.ann, "../../etc/päss wd.csv", None, None, str(uuid4()), BODY)
    stream = bench.uploads.open_stream(bench.ann, upload.id)
    send(stream, b"x")
    stream.finish()
    stream.close()

    assert bench.row(upload.id).name == "../../etc/päss wd.csv"
    assert all(found.name.startswith("parts/") for found in bench.memory.list())


def test_a_caller_sees_own_uploads_and_a_manager_all(bench: Bench) -> None:
    own, other = bench.start(bench.ann), bench.start(bench.bob)

    assert bench.uploads.get(bench.ann, own.id).id == own.id
    assert bench.uploads.get(bench.boss, own.id).id == own.id
    for unknown in (other.id, new_id()):
        with pytest.raises(NotFound) as caught:
            bench.uploads.get(bench.ann, unknown)
        assert caught.value.reason == "UPLOAD_UNKNOWN"
    assert [row.id for row in bench.uploads.list(bench.ann, Paging()).items] == [own.id]
    assert [row.id for row in bench.uploads.list(bench.boss, Paging()).items] == [other.id, own.id]
    assert bench.uploads.list(bench.boss, Paging(), ["FINISHED"]).items == []


def test_lists_page_newest_first(bench: Bench) -> None:
    ids = [bench.start().id for _ in range(3)][::-1]
    items, token = bench.uploads.list(bench.ann, Paging(size=2))
    assert [row.id for row in items] == ids[:2]
    items, token = bench.uploads.list(bench.ann, Paging(size=2, token=token))

    assert ([row.id for row in items], token) == (ids[2:], "")


def test_aborting_ends_it_once_and_is_audited_once(bench: Bench) -> None:
    upload = bench.finished()
    for caller in (bench.ann, bench.ann, bench.boss):
        assert bench.uploads.abort(caller, upload.id).state == "ABORTED"
    with pytest.raises(NotFound):
        bench.uploads.abort(bench.bob, upload.id)
    wanted = select(AuditEventRow.kind).where(AuditEventRow.operation == "uploads.abort")
    with bench.db.transaction() as session:
        kinds = sorted(session.scalars(wanted))

    assert kinds == ["INTENT", "OUTCOME"]
    bench.artifacts.sweep()
    assert list(bench.memory.list()) == []


@pytest.mark.parametrize("status", ["PENDING", "VALIDATING", "PROCESSING"])
def test_an_upload_that_an_import_reads_is_not_aborted(bench: Bench, status: str) -> None:
    upload = bench.finished()
    bench.importing(upload.id, status)
    with pytest.raises(FailedPrecondition) as caught:
        bench.uploads.abort(bench.ann, upload.id)

    assert caught.value.reason == "UPLOAD_IN_USE"
    assert bench.row(upload.id).state == "FINISHED"


def for_import(bench: Bench, upload_id, caller=None):
    with bench.db.transaction() as session:
        return bench.uploads.for_import(session, upload_id, caller or bench.ann)


def test_only_a_finished_own_upload_can_be_imported(bench: Bench) -> None:
    finished, opened, aborted = bench.finished(), bench.start(), bench.finished()
    bench.uploads.abort(bench.ann, aborted.id)

    assert for_import(bench, finished.id).id == finished.id
    cases = [
        (opened.id, bench.ann, "UPLOAD_NOT_FINISHED"),
        (aborted.id, bench.ann, "UPLOAD_GONE"),
        (finished.id, bench.bob, "UPLOAD_UNKNOWN"),
        (new_id(), bench.ann, "UPLOAD_UNKNOWN"),
    ]
    for upload_id, caller, reason in cases:
        with pytest.raises(DataOpsError) as caught:
            for_import(bench, upload_id, caller)
        assert caught.value.reason == reason


def test_a_used_upload_goes_unless_another_plan_is_made_from_it(bench: Bench) -> None:
    used, shared = bench.finished(), bench.finished()
    bench.importing(shared.id, "VALIDATING")
    with bench.db.transaction() as session:
        bench.uploads.delete(session, used.id)
        bench.uploads.delete(session, shared.id)
        bench.uploads.delete(session, new_id())

    assert (bench.row(used.id).state, bench.row(shared.id).state) == ("CONSUMED", "FINISHED")
    bench.artifacts.sweep()
    assert bench.row(used.id).artifact_id is None
    assert bench.content(shared.id) == b"a,b\n1,2\n"


def test_an_idle_upload_expires_and_one_that_goes_on_does_not(bench: Bench) -> None:
    idle, going_on = bench.start(), bench.start()
    bench.clock.ahead = timedelta(hours=23)
    stream = bench.uploads.open_stream(bench.ann, going_on.id)
    bench.clock.ahead = timedelta(hours=25)

    assert bench.uploads.sweep(bench.clock()) == UploadSweep(idle=1)
    assert (bench.row(idle.id).state, bench.row(going_on.id).state) == ("EXPIRED", "OPEN")
    stream.write(0, b"x")
    stream.finish()
    stream.close()
    with pytest.raises(FailedPrecondition, match="UPLOAD_NOT_OPEN"):
        bench.uploads.open_stream(bench.ann, idle.id)


@pytest.mark.parametrize("status", ["PENDING", "VALIDATING", "AWAITING_APPROVAL", "PROCESSING"])
def test_a_finished_upload_expires_after_a_day_unless_a_live_import_wants_it(bench: Bench, status: str) -> None:
    wanted, unwanted, ended = bench.finished(), bench.finished(), bench.finished()
    bench.importing(wanted.id, status)
    bench.importing(ended.id, "COMPLETED")

    assert bench.uploads.sweep(utc_now() + timedelta(hours=23)) == UploadSweep()
    assert bench.uploads.sweep(utc_now() + timedelta(hours=25)) == UploadSweep(unused=2)
    assert [bench.row(row.id).state for row in (wanted, unwanted, ended)] == ["FINISHED", "EXPIRED", "EXPIRED"]
    bench.artifacts.sweep()
    assert bench.content(wanted.id) == b"a,b\n1,2\n"


def test_starting_is_audited_with_the_file_name(bench: Bench) -> None:
    upload = bench.start(size=5)
    wanted = select(AuditEventRow).where(AuditEventRow.resource_id == str(upload.id)).order_by(AuditEventRow.sequence)
    with bench.db.transaction() as session:
        rows = list(session.scalars(wanted))

    assert [(row.kind, row.operation) for row in rows] == [
        ("INTENT", "uploads.create"),
        ("OUTCOME", "uploads.create"),
    ]
    assert rows[0].details == {"file_name": "users.csv", "size": 5}
