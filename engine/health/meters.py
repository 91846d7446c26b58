"""What a process counts by itself. What the whole installation shares is asked of PostgreSQL: `engine.health.state`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

RPC_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
JOB_SECONDS = (1, 5, 15, 60, 300, 900, 3_600, 14_400)


class Meters:
    """One per process, with a registry of its own; safe on any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.job_attempts = Counter(
            "dataops_job_attempts",
            "Attempts at jobs that ended here: COMPLETED, FAILED, CANCELLED; PENDING: to be tried again, or given back"
            " at a stop; OPEN: left to whoever takes over; LOST: taken over meanwhile.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.job_seconds = Histogram(
            "dataops_job_attempt_duration_seconds",
            "How long an attempt at a job took, whatever it came to.",
            ["kind"],
            registry=self.registry,
            buckets=JOB_SECONDS,
        )
        self.leases_expired = Counter(
            "dataops_job_leases_expired",
            "Jobs that this process took over because their worker was silent.",
            registry=self.registry,
        )
        self.rings_failed = Counter(
            "dataops_doorbell_rings_failed",
            "Rings and announcements that did not reach Redis; none of them is work lost.",
            registry=self.registry,
        )
        self.rpcs = Counter(
            "dataops_rpcs", "Calls that ended, refused ones among them.", ["method", "code"], registry=self.registry
        )
        self.rpc_seconds = Histogram(
            "dataops_rpc_duration_seconds",
            "How long a call took; a stream lasts as long as it is followed.",
            ["method"],
            registry=self.registry,
            buckets=RPC_SECONDS,
        )
        self.rpcs_open = Gauge(
            "dataops_rpcs_open",
            "Calls under way: streams and watches for the most.",
            ["method"],
            registry=self.registry,
        )
        self.bytes_received = Counter(
            "dataops_upload_bytes", "Bytes of files that uploads brought here.", registry=self.registry
        )
        self.bytes_sent = Counter(
            "dataops_download_bytes", "Bytes of files that downloads took from here.", registry=self.registry
        )
