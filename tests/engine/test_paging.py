"""Pages: complete, in order, and by their own token only."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from engine.clock import utc_now
from engine.db.database import Database
from engine.db.models import PrincipalRow
from engine.errors import InvalidRequest
from engine.ids import new_id
from engine.paging import MAX_SIZE, Paging, binding_of, by_name, newest_first

NOW = utc_now()


@pytest.fixture
def db(control_dsn: str) -> Iterator[Database]:
    opened = Database(control_dsn)
    yield opened
    opened.close()


def _add(db: Database, count: int, ago: timedelta = timedelta()) -> None:
    with db.transaction() as session:
        for _ in range(count):
            row_id = new_id()
            session.add(PrincipalRow(id=row_id, issuer="i", subject=str(row_id), created_at=NOW - ago))


def test_pages_hold_each_row_once_although_rows_are_added_and_share_their_moment(db: Database) -> None:
    _add(db, 25)  # all of one moment: the id decides
    _add(db, 5, timedelta(hours=1))
    seen: list[uuid.UUID] = []
    token = ""
    while True:
        with db.transaction() as session:
            page = newest_first(
                session, select(PrincipalRow), Paging(7, token), PrincipalRow.created_at, PrincipalRow.id
            )
        seen += [row.id for row in page.items]
        token = page.next_token
        if not token:
            break
        _add(db, 1, -timedelta(hours=1))  # newer ones come in front and are not seen by later pages
    assert len(seen) == len(set(seen)) == 30


@given(st.integers(1, 9), st.lists(st.text(), unique=True))
def test_pages_by_name_are_the_whole_list_in_order(size: int, names: list[str]) -> None:
    seen: list[str] = []
    token = ""
    while True:
        items, token = by_name(names, Paging(size, token), str)
        seen += items
        if not token:
            break
    assert seen == sorted(names)


@given(st.text(max_size=60))
def test_no_made_up_token_is_taken(token: str) -> None:
    if token:
        with pytest.raises(InvalidRequest, match="PAGE_TOKEN_INVALID"):
            Paging(0, token).position()


def test_a_token_of_another_caller_or_filter_is_refused() -> None:
    me, other = new_id(), new_id()
    token = Paging(binding=binding_of(me, "list", "filter")).token_at(("a", 1))
    assert Paging(0, token, binding_of(me, "list", "filter")).position() == ("a", 1)
    for binding in (binding_of(other, "list", "filter"), binding_of(me, "list", "other"), binding_of(me, "list")):
        with pytest.raises(InvalidRequest, match="PAGE_TOKEN_INVALID"):
            Paging(0, token, binding).position()


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_a_size_outside_the_limits_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match="PAGE_SIZE_INVALID"):
        _ = Paging(size).limit


def test_an_answer_is_cut_where_it_would_grow_too_large_and_goes_on_from_there() -> None:
    names = [f"{number:03}" for number in range(10)]
    got: list[str] = []
    token = ""
    for _ in range(10):
        page = by_name(names, Paging(5, token), str)
        messages, token = page.fitted(lambda name: name * 10, len, budget=75)  # two of 30 characters each
        assert len(messages) <= 2
        got += [message[:3] for message in messages]
        if not token:
            break
    assert got == names
    assert by_name(names, Paging(5), str).fitted(str, lambda _: 10**9)[0] == ["000"]  # never an empty page
