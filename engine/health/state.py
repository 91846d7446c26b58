"""What the whole installation's numbers are, asked of PostgreSQL in one query: every process tells the same.

Ages are counted when they are told, so that they go on while the control database is away for less than the cache; a
series whose moment never was is absent, which is what an alert on its absence is for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import text

from engine.backups.covered import not_backed_up
from engine.backups.protection import FAILED_RUNS, PROTECTION, Protection
from engine.jobs.claims import NOT_BLOCKED
from engine.overview.schedules import OVERDUE_SECONDS
from engine.resources import Resources

KEEP_SECONDS = 5.0
"""However many scrape, the control database is asked once in so long."""

CATALOG_SECONDS = 60.0
"""How often the platform is asked which entities there are: the age of the last backup of all of them hangs on it."""

CATALOG_WAIT_SECONDS = 1.0
"""The most a scrape waits for that; a platform that drops packets takes 10 s to be known as away."""

QUERY = text(f"""SELECT
    (SELECT coalesce(jsonb_agg(jsonb_build_array(kind, state, jobs)), '[]') FROM (
        SELECT kind, state, count(*) AS jobs FROM dataops.jobs
        WHERE state IN ('PENDING', 'RUNNING', 'CANCEL_REQUESTED') GROUP BY kind, state) found) AS jobs,
    (SELECT min(j.run_at) FROM dataops.jobs j WHERE j.state = 'PENDING' AND j.run_at <= :now AND {NOT_BLOCKED})
        AS runnable_since,
    (SELECT count(*) FROM dataops.jobs WHERE state IN ('RUNNING', 'CANCEL_REQUESTED')
        AND (lease_expires_at IS NULL OR lease_expires_at < clock_timestamp())) AS unheld,
    (SELECT jsonb_build_object(
        'ACTIVE', count(*) FILTER (WHERE deleted_at IS NULL AND NOT paused),
        'PAUSED', count(*) FILTER (WHERE deleted_at IS NULL AND paused),
        'OVERDUE', count(*) FILTER (WHERE deleted_at IS NULL AND NOT paused
            AND next_run_at < :now - make_interval(secs => {OVERDUE_SECONDS})),
        'missed', coalesce(sum(missed_runs), 0),
        'skipped', coalesce(sum(skipped_runs), 0)) FROM dataops.schedules) AS schedules,
    {PROTECTION} AS protection,
    {FAILED_RUNS} AS failed_runs,
    (SELECT count(*) FROM dataops.webhook_deliveries WHERE state = 'PENDING') AS deliveries_pending,
    (SELECT count(*) FROM dataops.webhook_deliveries WHERE state = 'FAILED'
        AND last_error <> 'WEBHOOK_DELETED' AND ended_at > :now - interval '1 day') AS deliveries_failed,
    (SELECT min(created_at) FROM dataops.webhook_deliveries WHERE state = 'PENDING') AS delivery_waits_since,
    (SELECT coalesce(jsonb_object_agg(kind, bytes), '{{}}') FROM (
        SELECT kind, sum(size) AS bytes FROM dataops.artifacts WHERE state <> 'DELETING' GROUP BY kind) kept)
        AS artifacts""")

Samples = list[tuple[Sequence[str], float]]
"""Values of labels, and the value."""

log = structlog.get_logger(__name__)


class StateCollector(Collector):
    """Asks when it is scraped; safe on any thread."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._found: Any = None
        self._names = _Names(resources)

    def collect(self) -> Iterator[Metric]:
        """Every family of this module; without samples where there is nothing to tell."""
        with self._lock:
            if time.monotonic() - self._asked_at > KEEP_SECONDS:
                self._found, self._asked_at = self._ask(), time.monotonic()
            found = self._found
        yield gauge(
            "dataops_control_database_up", "Whether the control database could be asked.", [([], int(bool(found)))]
        )
        now = self._resources.clock()
        yield from _jobs(found, now)
        yield from _backups(found, now, self._names.known() if found else None)
        yield from _schedules(found)
        yield from _webhooks(found, now)
        kept = found.artifacts.items() if found else ()
        yield gauge(
            "dataops_artifact_bytes", "Bytes kept, before sealing; backups apart.", [([k], v) for k, v in kept], "kind"
        )

    def _ask(self) -> Any:
        """A row of QUERY; None while the control database cannot be asked."""
        try:
            with self._resources.db.transaction() as session:
                session.execute(text("SET LOCAL statement_timeout = '5s'"))
                return session.execute(QUERY, {"now": self._resources.clock(), "entities": None}).one()
        except Exception as error:
            log.warning("state_not_told", error=error)
            return None


class _Names:
    """The entities that can be backed up, as the platform last said; None until it has."""

    def __init__(self, resources: Resources) -> None:
        self._catalogs = resources.catalogs
        self._looked_at = float("-inf")
        self._names: Sequence[str] | None = None

    def known(self) -> Sequence[str] | None:
        if time.monotonic() - self._looked_at > CATALOG_SECONDS:
            self._looked_at = time.monotonic()
            looking = threading.Thread(target=self._look, name="entities", daemon=True)
            looking.start()
            looking.join(CATALOG_WAIT_SECONDS)
        return self._names

    def _look(self) -> None:
        try:
            self._names = [entity.name for entity in self._catalogs.load().entities() if not not_backed_up(entity)]
        except Exception as error:
            log.warning("entities_not_told", error=error)


def _jobs(found: Any, now: datetime) -> Iterator[Metric]:
    counted = [([kind, state], jobs) for kind, state, jobs in found.jobs] if found else []
    yield gauge("dataops_jobs", "Jobs that have not ended.", counted, "kind", "state")
    waits = _age(found.runnable_since, now) or 0 if found else None
    yield gauge(
        "dataops_job_queue_age_seconds", "How long the oldest runnable job has waited for a worker.", _one(waits)
    )
    yield gauge(
        "dataops_jobs_unheld",
        "Jobs whose worker is silent, and that nobody has taken over.",
        _one(found and found.unheld),
    )


def _backups(found: Any, now: datetime, entities: Sequence[str] | None) -> Iterator[Metric]:
    told = [Protection.of(found.protection, entities)] if found else []
    yield gauge(
        "dataops_backup_last_good_age_seconds",
        "Since the newest good backup was taken; scope all: since the moment that every entity has one of or after.",
        [sample for one in told for sample in _scoped(one.good_at, one.all_good_at, now)],
        "scope",
    )
    yield gauge(
        "dataops_backup_last_proven_age_seconds",
        "The same of backups that a verification of level RESTORED has proven restorable.",
        [sample for one in told for sample in _scoped(one.proven_at, one.all_proven_at, now)],
        "scope",
    )
    proofs = [sample for one in told for sample in _one(_age(one.proof_at, now))]
    yield gauge("dataops_backup_last_proof_age_seconds", "Since a good backup was last proven restorable.", proofs)
    yield gauge("dataops_backups_available", "Good backups.", [([], one.available) for one in told])
    damaged: Samples = [([], one.damaged) for one in told]
    yield gauge("dataops_backups_damaged", "Complete backups that are found damaged, or build on one.", damaged)
    kept: Samples = [([], one.stored_bytes) for one in told]
    yield gauge("dataops_backup_bytes", "Bytes of complete backups, as they are stored.", kept)
    lost: Samples = [([], len(one.unprotected)) for one in told if one.unprotected is not None]
    yield gauge("dataops_entities_unprotected", "Entities that could be backed up and are in no good backup.", lost)


def _schedules(found: Any) -> Iterator[Metric]:
    states = [([state], found.schedules[state]) for state in ("ACTIVE", "PAUSED", "OVERDUE")] if found else []
    yield gauge("dataops_schedules", "Schedules; OVERDUE ones are ACTIVE too.", states, "state")
    yield gauge(
        "dataops_scheduled_backups_failed",
        "Times of schedules, since the last good backup of each, that made none.",
        _one(sum(found.failed_runs.values()) if found else None),
    )
    for word, about in (
        ("missed", "Times of schedules that passed while no worker ran, beyond what is caught up."),
        ("skipped", "Times of schedules left out because the run before went on."),
    ):
        counter = CounterMetricFamily(f"dataops_schedule_runs_{word}", about)
        if found:
            counter.add_metric([], found.schedules[word])
        yield counter


def _webhooks(found: Any, now: datetime) -> Iterator[Metric]:
    states = [(["PENDING"], found.deliveries_pending), (["FAILED"], found.deliveries_failed)] if found else []
    yield gauge("dataops_webhook_deliveries", "Messages owed; FAILED: given up, of the last 24 hours.", states, "state")
    waits = _age(found.delivery_waits_since, now) or 0 if found else None
    yield gauge("dataops_webhook_queue_age_seconds", "How old the oldest message is that is still owed.", _one(waits))


def gauge(name: str, about: str, samples: Iterable[tuple[Sequence[str], float]], *labels: str) -> GaugeMetricFamily:
    """A family; it has no sample where there is nothing to tell."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _one(value: float | None) -> Samples:
    return [] if value is None else [([], value)]


def _scoped(newest: datetime | None, of_all: datetime | None, now: datetime) -> Samples:
    ages = (("any", _age(newest, now)), ("all", _age(of_all, now)))
    return [([scope], age) for scope, age in ages if age is not None]


def _age(moment: datetime | None, now: datetime) -> float | None:
    """Clocks of two hosts may differ by a little: nothing is younger than new."""
    return None if moment is None else max(0.0, (now - moment).total_seconds())
