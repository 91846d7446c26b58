"""A process killed in the middle of an upload."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from engine.artifacts import ArtifactStore
from engine.crypto.keyring import KeyRing
from engine.storage.local import LocalStorage
from engine.uploads import Uploads
from tests.engine.uploads.conftest import MIB, PART, Bench, Process, send
from tests.engine.uploads.crash_child import content

ROOT = Path(__file__).parent.parent.parent.parent


def test_after_kill_9_the_upload_goes_on_at_a_part_border_and_no_orphan_stays(bench: Bench, tmp_path: Path) -> None:
    key = os.urandom(32)
    upload = bench.start()
    command = [sys.executable, "-m", "tests.engine.uploads.crash_child", bench.settings.control_dsn, str(tmp_path)]
    command += [key.hex(), str(upload.id), str(bench.ann.principal_id)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < PART:  # the first part is acknowledged, the next one is under way
            pass
        child.kill()
    storage = LocalStorage(tmp_path)
    artifacts = ArtifactStore(bench.db, storage, KeyRing({"k1": key}, "k1"), bench.clock)
    uploads = Uploads(Process(bench.db, artifacts, bench.settings, bench.clock))
    stream = uploads.open_stream(bench.ann, upload.id)
    committed = stream.committed_size
    data = content(committed + PART + MIB)
    send(stream, data, start=committed)
    done = stream.finish()
    stream.close()

    assert committed >= PART
    assert committed % PART == 0
    assert done.artifact_id is not None
    assert b"".join(artifacts.reader(done.artifact_id).read()) == data
    bench.clock.ahead = timedelta(hours=2)
    artifacts.sweep()
    assert len(list(storage.list())) == len(artifacts.reader(done.artifact_id).parts())
    assert list((tmp_path / ".tmp").iterdir()) == []
