"""Pages of a list: a keyset, so that rows added meanwhile neither repeat nor hide others.

A page token is opaque: where the page before ended, bound to the caller and the filter it was made for. It gives no
authority (the query applies the caller's own filter again); the binding only makes a mixed-up token an error instead of
a wrong page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from engine.errors import InvalidRequest

DEFAULT_SIZE = 50
MAX_SIZE = 1_000
MAX_BYTES = 1 << 20
"""Of one answer: a quarter of what a client takes in one message by default."""

T = TypeVar("T")
M = TypeVar("M")
Position = tuple[str | int, ...]


@dataclass(frozen=True)
class Paging:
    """What a list rpc was asked for. `binding` is made by `binding_of`: who asks, what for, by which filter."""

    size: int = 0
    token: str = ""
    binding: str = ""

    @property
    def limit(self) -> int:
        """Items wanted: 50 when not said.

        Raises:
            InvalidRequest: PAGE_SIZE_INVALID outside 0 to 1,000.
        """
        if not 0 <= self.size <= MAX_SIZE:
            raise InvalidRequest(
                f"page_size: expected 0 to {MAX_SIZE:,}, found {self.size}", reason="PAGE_SIZE_INVALID"
            )
        return self.size or DEFAULT_SIZE

    def position(self) -> Position | None:
        """Where the page before ended; None on the first page.

        Raises:
            InvalidRequest: PAGE_TOKEN_INVALID when the token is not ours or was made for another list.
        """
        if not self.token:
            return None
        try:
            raw = base64.b64decode(self.token.encode("ascii"), altchars=b"-_", validate=True)
            seal, body = raw[:16], raw[16:]
            if seal != self._seal(body):
                raise _invalid()
            return tuple(json.loads(body))
        except (ValueError, binascii.Error):
            raise _invalid() from None

    def token_at(self, position: Position) -> str:
        """The token of the page that begins after `position`."""
        body = json.dumps(list(position), separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._seal(body) + body).decode("ascii")

    def _seal(self, body: bytes) -> bytes:
        return hashlib.sha256(self.binding.encode() + b"\0" + body).digest()[:16]


class Page(Generic[T]):
    """Items of one page and the token of the next (empty on the last); unpacks as `items, next_token`."""

    def __init__(self, items: Sequence[T], paging: Paging, *, more: bool, position: Callable[[T], Position]) -> None:
        self.items: list[T] = list(items)
        self._paging = paging
        self._position = position
        self.next_token = self.token_after(self.items[-1]) if more and self.items else ""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.items, self.next_token))

    def token_after(self, item: T) -> str:
        """The token of a page that begins after `item`."""
        return self._paging.token_at(self._position(item))

    def fitted(
        self, convert: Callable[[T], M], size_of: Callable[[M], int], budget: int = MAX_BYTES
    ) -> tuple[list[M], str]:
        """The items converted, as many as fit `budget` bytes (at least one), and the token of what follows them."""
        made = fitting(self.items, convert, size_of, budget)
        return made, self.next_token if len(made) == len(self.items) else self.token_after(self.items[len(made) - 1])


def fitting(
    items: Iterable[T], convert: Callable[[T], M], size_of: Callable[[M], int], budget: int = MAX_BYTES
) -> list[M]:
    """The items converted, as many as fit `budget` bytes (at least one)."""
    made: list[M] = []
    used = 0
    for item in items:
        message = convert(item)
        used += size_of(message)
        if made and used > budget:
            break
        made.append(message)
    return made


def binding_of(principal_id: uuid.UUID, *parts: object) -> str:
    """What a token is bound to: the caller, the list and its filter."""
    text = "\0".join([str(principal_id), *(repr(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()


def newest_first(
    session: Session,
    statement: Select[T],
    paging: Paging,
    at: InstrumentedAttribute[datetime],
    row_id: InstrumentedAttribute[uuid.UUID],
) -> Page[T]:
    """One page of rows by (moment, id), newest first."""
    if (after := paging.position()) is not None:
        try:
            moment, last = datetime.fromisoformat(str(after[0])), uuid.UUID(str(after[1]))
        except (ValueError, IndexError):
            raise _invalid() from None
        statement = statement.where(tuple_(at, row_id) < tuple_(moment, last))
    statement = statement.order_by(at.desc(), row_id.desc())
    return _page(
        session, statement, paging, lambda row: (getattr(row, at.key).isoformat(), str(getattr(row, row_id.key)))
    )


def created_within(
    statement: Select[T], at: InstrumentedAttribute[datetime], span: tuple[datetime | None, datetime | None]
) -> Select[T]:
    """The statement's rows from the first moment on and before the second; a None does not restrict."""
    first, last = span
    if first is not None:
        statement = statement.where(at >= first)
    return statement if last is None else statement.where(at < last)


def by_number(
    session: Session,
    statement: Select[T],
    paging: Paging,
    number: InstrumentedAttribute[int],
    *,
    ascending: bool = False,
) -> Page[T]:
    """One page of rows by a unique number: highest first, or lowest first."""
    if (after := paging.position()) is not None:
        if len(after) != 1 or not isinstance(after[0], int):
            raise _invalid()
        statement = statement.where(number > after[0] if ascending else number < after[0])
    statement = statement.order_by(number.asc() if ascending else number.desc())
    return _page(session, statement, paging, lambda row: (int(getattr(row, number.key)),))


def by_name(items: Sequence[T], paging: Paging, name: Callable[[T], str]) -> Page[T]:
    """One page of a list that is in memory, by unique name."""
    ordered = sorted(items, key=name)
    if (after := paging.position()) is not None:
        if len(after) != 1:
            raise _invalid()
        ordered = [item for item in ordered if name(item) > str(after[0])]
    limit = paging.limit
    return Page(ordered[:limit], paging, more=len(ordered) > limit, position=lambda item: (name(item),))


def _page(session: Session, statement: Select[T], paging: Paging, position: Callable[[T], Position]) -> Page[T]:
    limit = paging.limit
    rows = list(session.scalars(statement.limit(limit + 1)).all())
    return Page(rows[:limit], paging, more=len(rows) > limit, position=position)


def _invalid() -> InvalidRequest:
    return InvalidRequest(
        "page_token: expected the token of this list's page before, by the same caller and filter",
        reason="PAGE_TOKEN_INVALID",
    )
