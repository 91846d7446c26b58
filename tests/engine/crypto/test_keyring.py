"""Key rings: their form, and what a wrapped key is bound to."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from engine.config import Settings
from engine.crypto.keyring import KeyRing, Wrapped
from engine.errors import DataLoss, FailedPrecondition, InvalidRequest

OLD, NEW = bytes(range(32)), bytes(range(32, 64))  # fixed: xdist needs the same test ids in each process


def line(key_id: str, key: bytes) -> str:
    return f"{key_id} {base64.b64encode(key).decode()}"


def test_a_data_key_unwraps_with_its_own_context_only() -> None:
    ring = KeyRing({"k1": OLD}, "k1")
    wrapped = ring.wrap(data_key := os.urandom(32), b"part 1")

    assert ring.unwrap(wrapped, b"part 1") == data_key
    with pytest.raises(DataLoss) as caught:
        ring.unwrap(wrapped, b"part 2")
    assert caught.value.reason == "KEY_WRONG"


def test_wrapping_the_same_key_twice_gives_different_bytes() -> None:
    ring = KeyRing({"k1": OLD}, "k1")

    assert ring.wrap(OLD, b"").data != ring.wrap(OLD, b"").data


def test_after_a_rotation_old_keys_still_unwrap_and_the_new_one_wraps() -> None:
    before = KeyRing({"k1": OLD}, "k1")
    after = KeyRing.parse(f"{line('k1', OLD)}\n{line('k2', NEW)}", "k2")
    data_key = os.urandom(32)

    assert after.unwrap(before.wrap(data_key, b"c"), b"c") == data_key
    assert after.wrap(data_key, b"c").key_id == "k2"


def test_a_key_that_is_not_in_the_ring_is_named() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        KeyRing({"k1": OLD}, "k1").unwrap(Wrapped("k9", b""), b"")

    assert (caught.value.reason, caught.value.metadata) == ("KEY_UNKNOWN", {"key_id": "k9"})


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[:5], lambda d: d[:-1], lambda d: d[:-1] + bytes([d[-1] ^ 1])]
)
def test_damaged_wrapped_keys_are_refused(damage) -> None:
    ring = KeyRing({"k1": OLD}, "k1")
    wrapped = ring.wrap(NEW, b"c")
    with pytest.raises(DataLoss) as caught:
        ring.unwrap(Wrapped("k1", damage(wrapped.data)), b"c")

    assert caught.value.reason == "KEY_WRONG"


def test_another_key_of_the_same_id_is_wrong() -> None:
    wrapped = KeyRing({"k1": OLD}, "k1").wrap(os.urandom(32), b"c")
    with pytest.raises(DataLoss) as caught:
        KeyRing({"k1": NEW}, "k1").unwrap(wrapped, b"c")

    assert caught.value.reason == "KEY_WRONG"


def test_lines_comments_and_semicolons_make_a_ring() -> None:
    text = f"# ring of 2026\n\n{line('k1', OLD)} # first\r\n;{line('k2', NEW)};"

    assert KeyRing.parse(text).active_id == "k1"
    assert KeyRing.parse(text, "k2").active_id == "k2"


@pytest.mark.parametrize(
    ("text", "active"),
    [
        ("", ""),
        ("# nothing", ""),
        ("k1", ""),
        ("k1 a b", ""),
        ("k1 not-base64!", ""),
        (line("k1", OLD[:16]), ""),
        (line("k1", bytes(32)), ""),
        (line("bad/id", OLD), ""),
        (line("k" * 33, OLD), ""),
        (f"{line('k1', OLD)};{line('k1', NEW)}", ""),
        (line("k1", OLD), "k2"),
    ],
)
def test_a_ring_of_another_form_is_refused_without_showing_a_key(text: str, active: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        KeyRing.parse(text, active)

    assert caught.value.reason == "KEYS_INVALID"
    assert base64.b64encode(OLD).decode() not in str(caught.value)


def settings(**changes: object) -> Settings:
    return Settings(control_dsn="postgresql://x", platform_dsn="postgresql://x", artifacts="memory:", **changes)


def test_settings_name_a_file_or_hold_the_ring(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{line('k1', OLD)}\n{line('k2', NEW)}\n")

    assert KeyRing.from_settings(settings(key_file=file, active_key="k2")).active_id == "k2"
    assert KeyRing.from_settings(settings(keys=line("k3", OLD))).active_id == "k3"


def test_settings_without_keys_are_refused(tmp_path: Path) -> None:
    for given in (settings(), settings(key_file=tmp_path / "none")):
        with pytest.raises(InvalidRequest) as caught:
            KeyRing.from_settings(given)

        assert caught.value.reason == "KEYS_MISSING"
