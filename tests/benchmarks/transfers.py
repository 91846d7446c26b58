"""Upload and download beside a bare echo of the same bytes over the same TLS: `python -m tests.benchmarks.transfers`,
and part of `make bench`.

Rounds alternate, so that what slows one down slows the other too. Digests are computed on both sides of ours: the
client's CRC-32 of each message and SHA-256 of the file, the server's CRC-32, SHA-256, sealing and opening. Beside the
times stand the CPU seconds of client and server: they tell a gain from a machine that others use less.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import grpc
import psycopg
from dataops_client.client import DataOps

from examples.stack.stack import Stack
from tests.benchmarks.echo import MESSAGE
from tests.benchmarks.memory import peak_megabytes
from tests.benchmarks.results import Results

T = TypeVar("T")


@contextmanager
def _echo(stack: Stack) -> Iterator[Any]:
    argv = [sys.executable, "-m", "tests.benchmarks.echo", stack.env["DATAOPS_TLS_CERT_FILE"]]
    argv.append(stack.env["DATAOPS_TLS_KEY_FILE"])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    try:
        trusted = grpc.ssl_channel_credentials(Path(stack.ca_file).read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{process.stdout.readline().strip()}", trusted) as channel:
            yield channel
    finally:
        process.stdin.close()
        process.wait(10)


def _make_download(stack: Stack, upload_id: str) -> str:
    """An export record whose file is the upload's: its bytes are sealed in the same way."""
    export_id = uuid.uuid4()
    with psycopg.connect(stack.control_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dataops.exports (id, export_type, entity_types, format, status, options, principal_id,"
            " context, artifact_id, file_name, file_size_bytes, record_count, created_at, updated_at)"
            " SELECT %s, 'ENTITY', ARRAY['users'], 'CSV', 'COMPLETED', '{}', principal_id, '{}', artifact_id, name,"
            " committed_size, 0, now(), now() FROM dataops.uploads WHERE id = %s",
            (export_id, upload_id),
        )
    return str(export_id)


class Transfers:
    """Rounds of uploads and downloads, each beside its echoes."""

    def __init__(self, stack: Stack, echo: Any, folder: Path, mebibytes: int) -> None:
        self._stack, self._echo, self._mebibytes = stack, echo, mebibytes
        self._file, self._copy = folder / "file.csv", folder / "copy.csv"
        self._file.write_bytes(MESSAGE * mebibytes)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def round(self, client: DataOps, *, hashed: bool = True) -> None:
        """Once each; `hashed` also beside an echo that computes digests."""
        self._timed("echo in", lambda: self._send("In"))
        if hashed:
            self._timed("echo in, hashed", lambda: self._send("HashedIn", hashlib.sha256()))
        upload = self._timed("upload", lambda: client.upload(self._file))
        export_id = _make_download(self._stack, upload.upload_id)
        self._timed("echo out", lambda: self._take("Out"))
        if hashed:
            self._timed("echo out, hashed", lambda: self._take("HashedOut", hashlib.sha256()))
        self._timed("download", lambda: client.download_export(export_id, self._copy))
        self._copy.unlink()

    def _timed(self, what: str, act: Callable[[], T]) -> T:
        server = self._stack.server.process
        assert server is not None
        begun, ours, theirs = time.monotonic(), _cpu_seconds(os.getpid()), _cpu_seconds(server.pid)
        done = act()
        self.times[what].append(time.monotonic() - begun)
        self.cpu[what].append((_cpu_seconds(os.getpid()) - ours, _cpu_seconds(server.pid) - theirs))
        return done

    def _send(self, method: str, digest: Any = None) -> None:
        def messages() -> Iterator[bytes]:
            for _ in range(self._mebibytes):
                if digest is not None:
                    digest.update(MESSAGE)
                yield MESSAGE

        self._echo.stream_unary(f"/echo/{method}")(messages())

    def _take(self, method: str, digest: Any = None) -> None:
        for message in self._echo.unary_stream(f"/echo/{method}")(str(self._mebibytes << 20).encode()):
            if digest is not None:
                digest.update(message)


def measure(results: Results, *, mebibytes: int, rounds: int) -> None:
    """Adds uploads and downloads, each beside its bare echo."""
    with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "stack", workers=0) as stack, _echo(stack) as echo:
        transfers = Transfers(stack, echo, Path(name), mebibytes)
        with stack.client() as client:
            for _ in range(rounds):
                transfers.round(client, hashed=False)
        assert stack.server.process is not None
        results.note_peak("server", peak_megabytes(stack.server.process.pid))
    for ours, bare in (("upload", "echo in"), ("download", "echo out")):
        results.ours[ours], results.reference[ours] = transfers.times[ours], transfers.times[bare]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "stack", workers=0) as stack, _echo(stack) as echo:
        transfers = Transfers(stack, echo, Path(name), wanted.mebibytes)
        with stack.client() as client:
            for _ in range(wanted.rounds):
                transfers.round(client)
        assert stack.server.process is not None
        print(f"server peak {peak_megabytes(stack.server.process.pid):.0f} MB")
    times = transfers.times
    for what, seconds in times.items():
        ours, theirs = (median(side) for side in zip(*transfers.cpu[what], strict=True))
        used = f"CPU s client {ours:.2f} server {theirs:.2f}"
        print(f"{what:18} {wanted.mebibytes / median(seconds):6.0f} MiB/s   {used}   {[round(s, 2) for s in seconds]}")
    for ours, bare in (("upload", "echo in"), ("download", "echo out")):
        for theirs in (bare, f"{bare}, hashed"):
            print(f"{ours} / {theirs}: {median(times[theirs]) / median(times[ours]):.2f}")


if __name__ == "__main__":
    main()
