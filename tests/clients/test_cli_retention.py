"""`dataops retention`: what it asks for and shows."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import schedules_pb2
from dataops_client.cli import main

from tests.clients.fake_world import World

pytestmark = pytest.mark.usefixtures("configured")

SHOWN = """\
resource\tgoes\tcode\tfrees\twhy
backups/1\t\tHELD\t\tit is held until somebody releases it
backups/2\tgoes\tEXPIRED\t4.2 kB\tits time ended 2026-11-26 03:00 UTC
exports/3\tgoes\tEXPIRED\t100 B\tits time ended 2026-11-26 03:00 UTC

2 would be removed, which frees 4.3 kB; nothing was removed now
"""


@pytest.fixture(autouse=True)
def decided(world: World) -> None:
    ended = "its time ended 2026-11-26 03:00 UTC"
    for resource, code, message, size in (
        ("backups/1", "HELD", "it is held until somebody releases it", 0),
        ("backups/2", "EXPIRED", ended, 4_200),
        ("exports/3", "EXPIRED", ended, 100),
    ):
        world.retained.append(
            schedules_pb2.RetentionDecision(
                resource=resource, remove=code == "EXPIRED", code=code, message=message, freeable_size_bytes=size
            )
        )


def test_what_would_go_and_what_stays_is_shown_over_all_pages(world: World, capsys):
    assert main(["retention", "preview"]) == 0

    assert capsys.readouterr().out == SHOWN
    assert len(world.asked) == 2


def test_only_what_goes_as_json(world: World, capsys):
    assert main(["retention", "preview", "--removals-only", "-o", "json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [d["resource"] for d in found["decisions"]] == ["backups/2", "exports/3"]
    assert (found["decisions"][0]["remove"], found["freeable_size_bytes"]) == (True, 4_300)
    (request,) = world.asked
    assert isinstance(request, schedules_pb2.PreviewRetentionRequest)
    assert request.removals_only
