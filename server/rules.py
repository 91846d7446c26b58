"""What `dataops.v1.FieldRules` say, as checks: made once for each message type, then run on every request.

A message says what is wrong by sizes and names, never by the value: the value may be a secret, or a megabyte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from dataops.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from engine.errors import Violation
from server.contract import rules_of

UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MAX_FOUND = 1_000
"""No more are collected: a list of a million bad items is refused just as well by its first thousand."""

Check = Callable[[Any], str | None]
"""What is wrong with one value; None when nothing is."""


def violations_of(message: Message) -> list[Violation]:
    """Everything in `message` that breaks a rule, in field order, with paths such as `permissions[2].operation`."""
    found: list[Violation] = []
    for violation in _walk(message, ""):
        found.append(violation)
        if len(found) >= MAX_FOUND:
            break
    return found


def _walk(message: Message, prefix: str) -> Iterator[Violation]:
    for field, rules, checks in _plan(message.DESCRIPTOR):
        path = prefix + field.name
        value = getattr(message, field.name)  # once: every access to a bytes field copies it, a megabyte of an upload
        if _is_set(message, field, value):
            yield from _field(value, field, rules, checks, path)
        elif rules is not None and (rules.required or rules.min_items):
            yield Violation(path, "expected a value, found none")


def _field(
    value: Any, field: FieldDescriptor, rules: options_pb2.FieldRules | None, checks: tuple[Check, ...], path: str
) -> Iterator[Violation]:
    if not field.is_repeated:
        yield from _value(value, field, checks, path)
        return
    if rules is not None:
        if rules.HasField("min_items") and len(value) < rules.min_items:
            yield Violation(path, f"expected at least {rules.min_items} items, found {len(value)}")
        if rules.HasField("max_items") and len(value) > rules.max_items:
            # Nothing more of it: to look at every item of a list that is too long is what the limit prevents.
            yield Violation(path, f"expected at most {rules.max_items} items, found {len(value)}")
            return
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    for number, item in enumerate(value):
        yield from _value(item, field, checks, f"{path}[{number}]")


def _value(value: Any, field: FieldDescriptor, checks: tuple[Check, ...], path: str) -> Iterator[Violation]:
    if field.message_type is not None:
        yield from _walk(value, path + ".")
        return
    for check in checks:
        if (wrong := check(value)) is not None:
            yield Violation(path, wrong)


def _is_set(message: Message, field: FieldDescriptor, value: Any) -> bool:
    if field.is_repeated:
        return len(value) > 0
    if field.has_presence:
        return bool(message.HasField(field.name))
    return bool(value != field.default_value)


@cache
def _plan(
    descriptor: Descriptor,
) -> tuple[tuple[FieldDescriptor, options_pb2.FieldRules | None, tuple[Check, ...]], ...]:
    """The fields worth looking at, each with its checks; well-known types are their own business."""
    if not descriptor.full_name.startswith("dataops."):
        return ()
    planned = []
    for field in descriptor.fields:
        rules = rules_of(field)
        checks = tuple(_checks(field, rules))
        if rules is not None or checks or field.message_type is not None:
            planned.append((field, rules, checks))
    return tuple(planned)


def _checks(field: FieldDescriptor, rules: options_pb2.FieldRules | None) -> Iterator[Check]:
    if field.enum_type is not None:
        yield _known_number(frozenset(field.enum_type.values_by_number))
    if field.type == FieldDescriptor.TYPE_STRING:
        yield _no_nul
    if rules is None:
        return
    if rules.required and not field.is_repeated:
        yield _not_empty
    if rules.uuid:
        yield lambda value: None if UUID_FORM.fullmatch(value) else "expected a UUID of 36 characters"
    if rules.HasField("min_len") or rules.HasField("max_len"):
        low = rules.min_len if rules.HasField("min_len") else 0
        yield _length(low, rules.max_len if rules.HasField("max_len") else None, field)
    if rules.HasField("min"):
        yield _at_least(rules.min)
    if rules.HasField("max"):
        yield _at_most(rules.max)
    if rules.pattern:
        yield _matches(rules.pattern)
    if rules.sha256:
        yield lambda value: None if len(value) == 32 else f"expected the 32 bytes of a SHA-256, found {len(value)}"


def _known_number(numbers: frozenset[int]) -> Check:
    return lambda value: None if value in numbers else f"expected a number of the contract, found {value}"


def _no_nul(value: Any) -> str | None:
    """PostgreSQL's text holds none: a NUL that went on would be an error of the database, and so a defect of ours."""
    return "expected text without NUL characters" if "\0" in value else None


def _not_empty(value: Any) -> str | None:
    return "expected a value, found none" if value in ("", b"", 0) else None


def _length(low: int, high: int | None, field: FieldDescriptor) -> Check:
    unit = "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "characters"

    def check(value: Any) -> str | None:
        if len(value) < low:
            return f"expected at least {low:,} {unit}, found {len(value):,}"
        if high is not None and len(value) > high:
            return f"expected at most {high:,} {unit}, found {len(value):,}"
        return None

    return check


def _at_least(low: int) -> Check:
    return lambda value: None if value >= low else f"expected at least {low:,}, found {value:,}"


def _at_most(high: int) -> Check:
    return lambda value: None if value <= high else f"expected at most {high:,}, found {value:,}"


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: None if compiled.fullmatch(value) else f"expected text that matches {pattern}"
