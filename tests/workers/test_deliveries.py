"""The thread that sends webhooks: beside jobs and housekeeping, in a real process that may be killed."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from pathlib import Path

from sqlalchemy import update

from engine.config import Settings
from engine.db.models import WebhookDeliveryRow, WebhookRow
from engine.ids import new_id
from engine.webhooks.signing import make_key
from tests.engine.jobs.kit import Bench, wait_until
from tests.engine.webhooks.receiver import receiving
from tests.fix_workers import Start
from workers.deliveries import Deliveries


def test_a_worker_that_dies_after_it_has_sent_is_followed_by_another_that_sends_the_same_while_jobs_go_on(
    bench: Bench, job_settings: Settings, start_worker: Start, tmp_path: Path
) -> None:
    with receiving(tmp_path) as receiver:
        settings = job_settings.model_copy(
            update={
                "webhook_seconds": 0.1,
                "webhook_ca_file": receiver.ca_file,
                "webhook_private_hosts": "localhost",
            }
        )
        webhook_id = new_id()
        _, wrapped = make_key(bench.resources.keys, webhook_id)
        with bench.resources.db.transaction() as session:
            session.add(
                WebhookRow(
                    id=webhook_id, url=receiver.url, key_id=wrapped.key_id, signing_key=wrapped.data,
                    principal_id=new_id(), created_at=bench.resources.clock(),
                )
            )  # fmt: skip
        first = start_worker(settings, kill="webhooks.sent")
        bench.create("PLAIN")
        assert first.wait() == -signal.SIGKILL
        assert len(receiver.received) == 1

        receiver.answers = [receiver.never]
        with bench.resources.db.transaction() as session:
            later = WebhookDeliveryRow.next_attempt_at - timedelta(seconds=200)
            session.execute(update(WebhookDeliveryRow).values(next_attempt_at=later))
        second = start_worker(settings)
        wait_until(lambda: len(receiver.received) == 2, 50)
        assert bench.wait_for_end(bench.create("PLAIN")).state == "COMPLETED"  # while the receiver is silent

        (sent, body), (again, same) = receiver.received[:2]  # on a slow machine the attempt ends and another follows
        assert (sent["DataOps-Delivery"], body) == (again["DataOps-Delivery"], same)
        second.signal(signal.SIGTERM)
        receiver.released.set()
        assert second.wait() == 0, second.log.read_text()


class _Failing:
    """A sender that is broken the first time it is asked."""

    def __init__(self) -> None:
        self.asked, self.again = 0, threading.Event()

    def send_next(self) -> bool:
        self.asked += 1
        if self.asked == 1:
            raise ValueError("defect")
        self.again.set()
        return False


def test_a_defect_does_not_end_the_thread() -> None:
    sender = _Failing()
    deliveries = Deliveries(sender, every_seconds=0.01)  # type: ignore[arg-type]
    deliveries.start()
    assert sender.again.wait(50)
    deliveries.stop(50)
