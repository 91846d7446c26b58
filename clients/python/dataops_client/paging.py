"""The pages of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from dataops_client.errors import typed_errors


class _Request(Protocol):
    page_token: str


class _Page(Protocol):
    next_page_token: str


_R = TypeVar("_R", bound=_Request)
_P = TypeVar("_P", bound=_Page)


def pages(call: Callable[[_R], _P], request: _R) -> Iterator[_P]:
    """The list's pages, each asked for when it is read. `request` is that of the first, and changed."""
    while True:
        with typed_errors():
            page = call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
