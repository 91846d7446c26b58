"""The contract as it is committed: linted, not drifted from its stubs, not broken against what was released."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from protos import tool
from server.not_built import NOT_BUILT

ROOT = Path(__file__).resolve().parents[2]


def _ignored() -> set[str]:
    """The files below breaking.ignore of buf.yaml, by name without the ending."""
    text = (ROOT / "buf.yaml").read_text()
    return set(re.findall(r"^ +- protos/dataops/v1/(\w+)\.proto$", text, re.MULTILINE))


def _files_of_unbuilt_rpcs() -> set[str]:
    found = set()
    for path in (ROOT / "protos" / "dataops" / "v1").glob("*.proto"):
        services = re.findall(r"^service (\w+)", path.read_text(), re.MULTILINE)
        if any(name.startswith(f"/dataops.v1.{service}/") for service in services for name in NOT_BUILT):
            found.add(path.stem)
    return found


def test_a_file_may_break_only_while_one_of_its_rpcs_is_not_built():
    assert _ignored() <= _files_of_unbuilt_rpcs()


def test_the_contract_passes_lint_and_format():
    assert tool.lint() == 0


def test_committed_stubs_are_what_the_contract_gives():
    assert tool.check() == 0


def test_a_drifted_stub_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd):
    tool.write_stubs(tmp_path)
    stub = tmp_path / tool.PACKAGE / "jobs_pb2.pyi"
    stub.write_text(stub.read_text() + "# edited\n")
    monkeypatch.setattr(tool, "STUBS", tmp_path)

    assert tool.check() == 1
    assert "jobs_pb2.pyi" in capfd.readouterr().err


def test_the_contract_does_not_break_the_released_one():
    assert tool.breaking() == 0


def _release_with_one_more_field(tmp_path: Path, file_name: str, message_name: str) -> Path:
    """The released contract as if a field had been taken away since."""
    image = FileDescriptorSet.FromString(tool.RELEASED.read_bytes())
    file = next(file for file in image.file if file.name == f"dataops/v1/{file_name}.proto")
    extra = next(m for m in file.message_type if m.name == message_name).field.add()
    extra.name, extra.number, extra.json_name = "gone", 99, "gone"
    extra.label, extra.type = extra.LABEL_OPTIONAL, extra.TYPE_STRING
    older = tmp_path / "older.binpb"
    older.write_bytes(image.SerializeToString())
    return older


def test_a_field_removed_from_a_released_file_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd):
    monkeypatch.setattr(tool, "RELEASED", _release_with_one_more_field(tmp_path, "jobs", "Job"))

    assert tool.breaking() == 100
    assert '"gone"' in capfd.readouterr().out


def test_a_file_with_an_unbuilt_rpc_may_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tool, "RELEASED", _release_with_one_more_field(tmp_path, "access", "Role"))

    assert tool.breaking() == 0
