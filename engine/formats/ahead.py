"""Reading one step ahead, on a thread of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")

_END = object()


def ahead(source: Iterator[T]) -> Generator[T, None, None]:
    """The items of `source`; while one is used the next is made. Errors of `source` come where its item would."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as helper:
        coming = helper.submit(next, source, _END)
        while (item := coming.result()) is not _END:
            coming = helper.submit(next, source, _END)
            yield cast(T, item)
