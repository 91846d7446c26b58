"""Archives made to harm: paths out of the folder, bombs, links, lies of size. A stable reason, and nothing
left behind."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from engine.db.models import ImportRow, JobRow
from engine.errors import DataInvalid, DataOpsError
from engine.imports.model import ImportOptions, ImportRequest, ImportType
from tests.world import World

ROWS = b'{"id":1,"v":"a"}\n'


def manifest(*members: tuple[str, str, bytes], **changes: Any) -> bytes:
    entities = [
        {"entity": entity, "file": file, "rows": data.count(b"\n"), "bytes": len(data),
         "sha256": hashlib.sha256(data).hexdigest(), "fields": [], "key": ["id"], "schema_fingerprint": "x",
         "secret_fields": []}
        for entity, file, data in members
    ]  # fmt: skip
    document = {
        "format": "dataops-bundle", "version": 1, "created_at": "2026-01-01T00:00:00Z",
        "snapshot_at": "2026-01-01T00:00:00Z", "export_type": "FULL", "source": {}, "entities": entities,
    }  # fmt: skip
    return json.dumps(document | changes).encode()


GOOD = manifest(("t", "1-t.jsonl", ROWS))


def packed(*members: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same name twice
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("1-t.jsonl")
    info.external_attr = 0o120777 << 16
    return info


def bomb() -> bytes:
    """Says it unpacks to 4 TiB."""
    data = bytearray(packed(("manifest.json", GOOD), ("1-t.jsonl", b"\0" * 1_000_000)))
    at = data.rindex(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<L", 0xFFFF_FFF0)
    return bytes(data)


def overlapping() -> bytes:
    """Two names in the directory, one place in the file."""
    data = bytearray(packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS), ("2-t.jsonl", ROWS)))
    last = data.rindex(b"PK\1\2")
    middle = data.rindex(b"PK\1\2", 0, last)
    data[last + 42 : last + 46] = data[middle + 42 : middle + 46]
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS)))
    at = data.rindex(b"PK\1\2")
    data[at + 8] |= 1
    return bytes(data)


ATTACKS = {
    "no archive at all": (b"id,v\n1,a\n", "BUNDLE_INVALID"),
    "an empty file": (b"", "BUNDLE_INVALID"),
    "an archive cut short": (packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS))[:-30], "BUNDLE_INVALID"),
    "no manifest": (packed(("1-t.jsonl", ROWS)), "BUNDLE_INVALID"),
    "a manifest that is no JSON": (packed(("manifest.json", b"{"), ("1-t.jsonl", ROWS)), "BUNDLE_INVALID"),
    "a manifest nested too deep": (packed(("manifest.json", b"[" * 100_000)), "BUNDLE_INVALID"),
    "a path out of the folder": (packed(("manifest.json", manifest(("t", "../1-t.jsonl", ROWS))),
                                        ("../1-t.jsonl", ROWS)), "BUNDLE_INVALID"),
    "an absolute path": (packed(("manifest.json", manifest(("t", "/etc/1-t.jsonl", ROWS))),
                                ("/etc/1-t.jsonl", ROWS)), "BUNDLE_INVALID"),
    "a path out of the folder beside a good one": (packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS),
                                                          ("../../evil", b"x")), "BUNDLE_INVALID"),
    "a symbolic link": (packed(("manifest.json", GOOD), (link(), b"/etc/passwd")), "BUNDLE_INVALID"),
    "a member twice": (packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS), ("1-t.jsonl", b"{}\n")), "BUNDLE_INVALID"),
    "a member that is not listed": (packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS), ("2-x.jsonl", b"")),
                                    "BUNDLE_INVALID"),
    "a listed member that is not there": (packed(("manifest.json", GOOD)), "BUNDLE_INVALID"),
    "two members in one place": (overlapping(), "BUNDLE_INVALID"),
    "an encrypted member": (encrypted(), "BUNDLE_INVALID"),
    "a bomb": (bomb(), "BUNDLE_TOO_LARGE"),
    "another size than the manifest's": (packed(("manifest.json", GOOD), ("1-t.jsonl", ROWS + b"x")), "BUNDLE_DAMAGED"),
    "an entity that does not exist": (packed(("manifest.json", manifest(("no", "1-t.jsonl", ROWS))),
                                             ("1-t.jsonl", ROWS)), "ENTITY_UNKNOWN"),
    "twenty thousand members": (packed(*((f"{i}-t.jsonl", b"") for i in range(20_000)), kind=zipfile.ZIP_STORED),
                                ("BUNDLE_INVALID", "BUNDLE_TOO_LARGE")),
}  # fmt: skip


@pytest.fixture
def world(fresh: Callable[[str], World]) -> World:
    return fresh("CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t VALUES (7, 'there')")


def files(world: World) -> set[Path]:
    return {p for p in Path(world.resources.settings.artifacts).parent.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["ADDITIVE", "REPLACE"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_is_refused_at_the_call_and_leaves_nothing(world: World, attack: str, mode: str) -> None:
    data, reason = ATTACKS[attack]
    upload = world.upload(data, "bundle.zip")
    counted = [counts(world), files(world)]
    request = ImportRequest(upload, "", ImportType(mode), ImportOptions(format="BUNDLE", auto_apply=True))

    with pytest.raises(DataOpsError) as caught:
        world.imports.create(world.caller, request, *world.request())

    assert caught.value.reason in ((reason,) if isinstance(reason, str) else reason)
    assert world.work() == 0
    assert [counts(world), files(world)] == counted
    assert world.sql("SELECT * FROM public.t") == [(7, "there")]
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT", "REPLACE"])
def test_bytes_that_are_others_than_those_packed_end_the_plan(world: World, mode: str) -> None:
    """The digest is the manifest's only for the bytes that it was made of; the member is read at planning."""
    lied = manifest(("t", "1-t.jsonl", ROWS)).replace(hashlib.sha256(ROWS).hexdigest().encode(), b"0" * 64)
    upload = world.upload(packed(("manifest.json", lied), ("1-t.jsonl", ROWS)), "bundle.zip")
    request = ImportRequest(upload, "", ImportType(mode), ImportOptions(format="BUNDLE", auto_apply=True))
    try:
        row = world.imports.create(world.caller, request, *world.request())
        world.work()
        row = world.imports.get(world.caller, row.id)
        assert (row.status, world.reason(row)) == ("FAILED", "BUNDLE_DAMAGED")
    except DataInvalid as error:
        assert error.reason == "BUNDLE_DAMAGED"
    assert world.sql("SELECT * FROM public.t") == [(7, "there")]
    assert world.resources.artifacts.sweep() is not None


def counts(world: World) -> tuple[int, ...]:
    with world.resources.db.transaction() as session:
        return tuple(session.scalar(select(func.count()).select_from(t)) or 0 for t in (ImportRow, JobRow))
