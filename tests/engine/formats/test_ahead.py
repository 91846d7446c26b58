"""Reading ahead gives the same items and the same errors, and its thread ends with it."""

from __future__ import annotations

import threading

import pytest

from engine.formats.ahead import ahead


def numbers(until, error=None):
    yield from range(until)
    if error is not None:
        raise error


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("ahead")]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_item_comes_once_and_in_order(count):
    assert list(ahead(numbers(count))) == list(range(count))
    assert threads() == []


def test_an_error_comes_where_its_item_would():
    found: list[int] = []
    with pytest.raises(ValueError, match="third"):
        found.extend(ahead(numbers(2, ValueError("third"))))
    assert threads() == []


def test_one_that_is_left_ends_its_thread():
    items = ahead(numbers(5))
    assert next(items) == 0
    items.close()
    assert threads() == []
