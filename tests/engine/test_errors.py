"""Errors as rows keep them."""

from __future__ import annotations

from collections.abc import Callable

from tests.world import World


def test_a_nul_in_a_header_ends_the_import_as_any_other_wrong_header(made: Callable[..., World]) -> None:
    world = made("CREATE TABLE public.things (id int PRIMARY KEY, note text)")

    row = world.plan("things", b"id,no\0te\n1,a\n")

    assert (row.status, world.reason(row)) == ("FAILED", "COLUMN_UNKNOWN")
    assert (row.error or {})["violations"][0][0] == "no\ufffdte"
    assert world.job(row.plan_job_id).state == "FAILED"
