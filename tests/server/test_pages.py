"""Pages of what comes with its place in a stored list: cut where an answer would be too large, gone on with there."""

from __future__ import annotations

from dataops.v1 import common_pb2

from engine.paging import MAX_BYTES, Paging
from server.convert.common import placed_page


def _notice(size: int) -> common_pb2.Notice:
    return common_pb2.Notice(message="x" * size)


def test_a_page_that_would_be_too_large_ends_before_and_its_token_leads_on() -> None:
    paging = Paging(binding="b")
    items = [(3, MAX_BYTES // 2), (7, MAX_BYTES // 3), (9, MAX_BYTES // 2), (12, 1)]

    shown, token = placed_page(items, paging, "the next page's", _notice)

    assert [len(found.message) for found in shown] == [MAX_BYTES // 2, MAX_BYTES // 3]
    assert Paging(token=token, binding="b").position() == (9,)


def test_one_item_is_shown_however_large_it_is() -> None:
    shown, token = placed_page([(0, MAX_BYTES + 1), (1, 1)], Paging(binding="b"), "", _notice)

    assert len(shown) == 1
    assert Paging(token=token, binding="b").position() == (1,)


def test_a_page_that_fits_has_the_token_it_came_with() -> None:
    shown, token = placed_page([(0, 1), (1, 1)], Paging(binding="b"), "next", _notice)

    assert (len(shown), token) == (2, "next")
