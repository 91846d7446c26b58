"""The format page against the bytes: an independent reader, and the page's own numbers."""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidTag

from engine.artifacts import ArtifactKind, ArtifactStore
from engine.crypto import sealing
from engine.crypto.keyring import KeyRing
from engine.storage.local import LocalStorage
from tests.engine.artifacts.conftest import Bench

DOCS = Path(__file__).parent.parent.parent.parent / "docs"
KEK = os.urandom(32)


def independent_reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_part", DOCS / "read_part.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def store(bench: Bench, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(bench.db, LocalStorage(tmp_path), KeyRing({"main-2026": KEK}, "main-2026"))


def test_the_independent_reader_reads_what_we_wrote(bench: Bench, store: ArtifactStore, tmp_path: Path) -> None:
    data = os.urandom((8 << 20) + 2_000_000)
    artifact_id = bench.create(kind=ArtifactKind.UNDO)
    with store.writer(artifact_id) as writer:
        writer.write(data)
        writer.close()
    reader, plaintext = independent_reader(), b""
    for number, row in enumerate(store.reader(artifact_id).parts()):
        fields, opened = reader.read_part((tmp_path / row.name).read_bytes(), KEK, row.wrapped_key)
        plaintext += opened
        assert fields == {
            "artifact": str(artifact_id),
            "kind": "UNDO",
            "part": number,
            "first_key_id": "main-2026",
        }

    assert plaintext == data
    with pytest.raises(InvalidTag):
        reader.read_part((tmp_path / row.name).read_bytes(), os.urandom(32), row.wrapped_key)


def test_the_independent_reader_runs_as_a_script(bench: Bench, store: ArtifactStore, tmp_path: Path) -> None:
    artifact_id = bench.create()
    with store.writer(artifact_id) as writer:
        writer.write(b"from the command line")
        writer.close()
    row = store.reader(artifact_id).parts()[0]
    command = [sys.executable, "-I", str(DOCS / "read_part.py"), str(tmp_path / row.name)]
    command += [
        "--kek",
        base64.b64encode(KEK).decode(),
        "--wrapped",
        row.wrapped_key.hex(),
        "--sha256",
        row.sha256.hex(),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)

    assert done.stdout == b"from the command line"


def test_the_independent_reader_knows_nothing_of_ours() -> None:
    source = (DOCS / "read_part.py").read_text()

    assert "engine" not in source
    assert "dataops_client" not in source


def test_the_page_says_the_numbers_of_the_code() -> None:
    page = (DOCS / "archive-format.md").read_text()

    assert f"full part has 8 chunks and is {8 << 20:,} + 112 + 8 × 16 = {sealing.sealed_length(8 << 20):,}" in page
    assert "89 44 4F 50 54 0D 0A 1A" in page
    assert bytes.fromhex("89 44 4F 50 54 0D 0A 1A") == sealing.MAGIC
    for kind in ArtifactKind:
        assert f"`{kind}`" in page
    for label in (sealing.COMMIT_INFO, b"dataops wrap 1"):
        assert f'"{label.decode()}"' in page


@pytest.mark.parametrize("kind", list(ArtifactKind))
def test_every_kind_fits_its_place_in_the_header(kind: ArtifactKind) -> None:
    assert 0 < len(kind.value.encode("ascii")) <= 16
