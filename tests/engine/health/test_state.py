"""The numbers of the installation: what they count, that they cost one query, and that they fail nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event, text

from engine.db.models import ArtifactRow, JobRow, WebhookDeliveryRow, WebhookRow
from engine.health import state
from engine.health.state import StateCollector
from engine.ids import new_id
from examples.stack.servers import PostgresServer
from tests.engine.health.kit import Labels, away, parsed
from tests.engine.overview.kit import NOBODY, Rows, proof
from tests.world import World


@pytest.fixture(autouse=True)
def ask_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "KEEP_SECONDS", -1.0)
    monkeypatch.setattr(state, "CATALOG_WAIT_SECONDS", 60.0)


@pytest.fixture
def rows(world: World) -> Rows:
    return Rows(world.resources)


def told(world: World) -> dict[str, dict[Labels, float]]:
    registry = CollectorRegistry()
    registry.register(StateCollector(world.resources))
    return parsed(generate_latest(registry).decode())


def one(found: dict[str, dict[Labels, float]], name: str, **labels: str) -> float:
    return found[name][tuple(sorted(labels.items()))]


def hours(found: dict[str, dict[Labels, float]], name: str, **labels: str) -> int:
    return round(one(found, name, **labels) / 3600)


def test_ages_of_backups_are_absent_while_there_never_was_one(world: World) -> None:
    found = told(world)

    for name in ("last_good", "last_proven", "last_proof"):
        assert found[f"dataops_backup_{name}_age_seconds"] == {}
    assert one(found, "dataops_backups_available") == 0
    assert one(found, "dataops_entities_unprotected") == len(world.resources.catalogs.load().entities())
    assert one(found, "dataops_job_queue_age_seconds") == 0
    assert one(found, "dataops_control_database_up") == 1


def test_ages_of_backups_are_of_any_and_of_all_entities(world: World, rows: Rows) -> None:
    everything = [entity.name for entity in world.resources.catalogs.load().entities()]
    rows.backup(90, everything, verifications={"RESTORED": proof(rows.before(80))})
    rows.backup(30, everything, file_size_bytes=1000)
    rows.backup(2, trigger_type="PRE_IMPORT", file_size_bytes=10)
    rows.backup(1, verifications={"DECODED": proof(rows.before(1), good=False)})
    found = told(world)

    assert hours(found, "dataops_backup_last_good_age_seconds", scope="any") == 2
    assert hours(found, "dataops_backup_last_good_age_seconds", scope="all") == 30
    assert hours(found, "dataops_backup_last_proven_age_seconds", scope="any") == 90
    assert hours(found, "dataops_backup_last_proven_age_seconds", scope="all") == 90
    assert hours(found, "dataops_backup_last_proof_age_seconds") == 80
    assert (one(found, "dataops_backups_available"), one(found, "dataops_backups_damaged")) == (3, 1)
    assert one(found, "dataops_backup_bytes") == 1010
    assert one(found, "dataops_entities_unprotected") == 0


def test_schedules_are_counted_by_how_they_are(world: World, rows: Rows) -> None:
    nightly = rows.schedule("nightly", missed_runs=2, skipped_runs=1)
    rows.schedule("late", next_run_at=rows.before(1))
    rows.schedule("paused", paused=True, next_run_at=None)
    rows.schedule("deleted", deleted_at=rows.now, next_run_at=None, missed_runs=5)
    rows.scheduled(nightly, 5, status="FAILED")
    rows.unstarted(nightly, 4)
    found = told(world)

    assert {labels[0][1]: count for labels, count in found["dataops_schedules"].items()} == {
        "ACTIVE": 2,
        "PAUSED": 1,
        "OVERDUE": 1,
    }
    assert one(found, "dataops_scheduled_backups_failed") == 2
    assert one(found, "dataops_schedule_runs_missed_total") == 7  # a deleted one's too: a counter does not go back
    assert one(found, "dataops_schedule_runs_skipped_total") == 1


def test_jobs_are_counted_and_what_waits_behind_another_is_not_waiting_for_a_worker(world: World) -> None:
    blocked, runnable, held = (world.begin_export(entity) for entity in ("users", "tokens", "tokens"))
    with world.resources.db.transaction() as session:
        jobs = [session.get_one(JobRow, export.job_id) for export in (blocked, runnable, held)]
        for job, hours_ago in zip(jobs, (9, 3, 20), strict=True):
            job.run_at -= timedelta(hours=hours_ago)
        jobs[2].state, jobs[2].lease_owner, jobs[2].lease_expires_at = "RUNNING", "gone", jobs[2].run_at
        session.execute(text("UPDATE dataops.job_claims SET mode = 'EXCLUSIVE' WHERE job_id = :id"), {"id": jobs[0].id})
        before = "INSERT INTO dataops.job_claims (job_id, entity, mode, position) OVERRIDING SYSTEM VALUE"
        session.execute(text(f"{before} VALUES (:id, 'users', 'READ', 0)"), {"id": jobs[2].id})
    found = told(world)

    assert one(found, "dataops_jobs", kind="EXPORT", state="PENDING") == 2
    assert one(found, "dataops_jobs", kind="EXPORT", state="RUNNING") == 1
    assert hours(found, "dataops_job_queue_age_seconds") == 3
    assert one(found, "dataops_jobs_unheld") == 1


def test_messages_and_bytes_are_counted(world: World, rows: Rows) -> None:
    """What was owed to a webhook that somebody deleted is given up, and nobody needs to be called for it. A message is
    given up 31 hours after it was made."""
    hook = WebhookRow(
        id=new_id(), url="https://x", key_id="k", signing_key=b"s", principal_id=NOBODY, created_at=rows.before(99)
    )
    made = [("PENDING", 5, ""), ("PENDING", 1, "TIMEOUT"), ("DELIVERED", 1, "")]
    made += [("FAILED", 33, "STATUS"), ("FAILED", 83, "STATUS"), ("FAILED", 2, "WEBHOOK_DELETED")]
    with world.resources.db.transaction() as session:
        session.add(hook)
        session.flush()
        for word, ago, error in made:
            row = WebhookDeliveryRow(id=new_id(), webhook_id=hook.id, job_id=NOBODY, body=b"{}", state=word)
            row.created_at, row.last_error = rows.before(ago), error
            row.ended_at = None if word == "PENDING" else rows.before(max(ago - 31, 0))
            session.add(row)
        for kind, size in (("EXPORT", 70), ("EXPORT", 30), ("REPORT", 5)):
            artifact = ArtifactRow(
                id=new_id(), kind=kind, owner_type="job", owner_id=NOBODY, size=size, created_at=rows.now
            )
            session.add(artifact)
    found = told(world)

    assert one(found, "dataops_webhook_deliveries", state="PENDING") == 2
    assert one(found, "dataops_webhook_deliveries", state="FAILED") == 1
    assert hours(found, "dataops_webhook_queue_age_seconds") == 5
    assert one(found, "dataops_artifact_bytes", kind="EXPORT") == 100


def test_many_scrapes_cost_one_query_between_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "KEEP_SECONDS", 3600.0)
    asked: list[str] = []
    engine = world.resources.db.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_rest: asked.append(statement))
    collector = StateCollector(world.resources)
    for _ in range(3):
        list(collector.collect())

    assert [statement.split()[0] for statement in asked] == ["SET", "SELECT"]


def test_without_its_databases_a_scrape_tells_so_and_nothing_that_it_does_not_know(
    world: World, rows: Rows, postgres: PostgresServer
) -> None:
    rows.backup(2)
    registry = CollectorRegistry()
    registry.register(StateCollector(world.resources))
    with away(postgres, world.resources.settings.platform_dsn):
        found = parsed(generate_latest(registry).decode())
    assert hours(found, "dataops_backup_last_good_age_seconds", scope="any") == 2
    assert list(found["dataops_backup_last_good_age_seconds"]) == [(("scope", "any"),)]
    assert found["dataops_entities_unprotected"] == {}

    with away(postgres, world.resources.settings.control_dsn):
        found = parsed(generate_latest(registry).decode())
    samples = {name: values for name, values in found.items() if values}
    assert samples == {"dataops_control_database_up": {(): 0.0}}
