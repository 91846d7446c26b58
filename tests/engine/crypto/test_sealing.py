"""Sealed parts: round trips, and everything an adversary with the stored bytes can try."""

from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.crypto import sealing
from engine.crypto.sealing import (
    CHUNK_BYTES,
    HEADER_BYTES,
    PartIdentity,
    check_sealed,
    open_chunks,
    seal,
    sealed_length,
)
from engine.errors import DataLoss, InternalError

KEY = os.urandom(32)
ARTIFACT = uuid.UUID("0190a000-0000-7000-8000-000000000001")
IDENTITY = PartIdentity(ARTIFACT, "UPLOAD", 7)


def sealed(plaintext: bytes, identity: PartIdentity = IDENTITY, key: bytes = KEY) -> bytes:
    out = bytearray(sealed_length(len(plaintext)))
    assert seal(identity, "k1", key, memoryview(plaintext), memoryview(out)) == len(out)
    return bytes(out)


def opened(data: bytes, identity: PartIdentity = IDENTITY, key: bytes = KEY) -> bytes:
    return b"".join(open_chunks(identity, key, data))


def refused(data: bytes, identity: PartIdentity = IDENTITY, key: bytes = KEY) -> str:
    with pytest.raises(DataLoss) as caught:
        opened(data, identity, key)
    assert caught.value.reason == "PART_DAMAGED"
    return caught.value.message


THREE_CHUNKS = os.urandom(2 * CHUNK_BYTES + 1000)
SEALED = sealed(THREE_CHUNKS)


@pytest.mark.parametrize("size", [1, 16, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 8 << 20])
def test_what_was_sealed_opens_again(size: int) -> None:
    plaintext = os.urandom(size)

    assert opened(sealed(plaintext)) == plaintext


@pytest.mark.parametrize("size", [0, (8 << 20) + 1])
def test_a_part_has_at_least_a_byte_and_at_most_8_mib(size: int) -> None:
    with pytest.raises(ValueError, match="a part has 1 to 8388608 bytes"):
        sealed(bytes(size))


def test_equal_plaintext_under_two_keys_has_nothing_in_common() -> None:
    one, two = sealed(bytes(64)), sealed(bytes(64), key=os.urandom(32))

    assert one[HEADER_BYTES:] != two[HEADER_BYTES:]
    assert one[80:112] != two[80:112]


@settings(max_examples=150, deadline=None)
@given(position=st.one_of(st.integers(0, HEADER_BYTES), st.integers(0, len(SEALED) - 1)), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(position: int, bit: int) -> None:
    data = bytearray(SEALED)
    data[position] ^= 1 << bit

    refused(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    length=st.one_of(
        st.integers(0, len(SEALED) - 1),
        st.sampled_from([0, 1, 2]).map(lambda chunks: HEADER_BYTES + chunks * (CHUNK_BYTES + 16)),
    )
)
def test_any_cut_is_refused_also_on_a_chunk_border(length: int) -> None:
    refused(SEALED[:length])


@settings(max_examples=50, deadline=None)
@given(tail=st.binary(min_size=1, max_size=100))
def test_anything_appended_is_refused(tail: bytes) -> None:
    refused(SEALED + tail)


def chunks_of(data: bytes) -> list[bytes]:
    size = CHUNK_BYTES + 16
    return [data[at : at + size] for at in range(HEADER_BYTES, len(data), size)]


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 0, 2), (1, 2), (0, 2), (0, 1), (0, 1, 2, 2), (0, 1, 1, 2)])
def test_chunks_in_another_order_or_number_are_refused(order: tuple[int, ...]) -> None:
    chunks = chunks_of(SEALED)

    refused(SEALED[:HEADER_BYTES] + b"".join(chunks[at] for at in order))


def test_a_chunk_of_another_part_is_refused_even_under_the_same_key() -> None:
    other = sealed(os.urandom(len(THREE_CHUNKS)), PartIdentity(ARTIFACT, "UPLOAD", 8))
    mine, theirs = chunks_of(SEALED), chunks_of(other)

    refused(SEALED[:HEADER_BYTES] + mine[0] + theirs[1] + mine[2])


@pytest.mark.parametrize(
    "identity",
    [
        PartIdentity(ARTIFACT, "UPLOAD", 8),
        PartIdentity(ARTIFACT, "EXPORT", 7),
        PartIdentity(uuid.uuid4(), "UPLOAD", 7),
    ],
)
def test_a_part_in_the_place_of_another_is_refused(identity: PartIdentity) -> None:
    assert "another part" in refused(SEALED, identity)
    # With the header made to fit, what is bound elsewhere still refuses.
    forged = identity.bound_header("k1") + SEALED[80:]
    assert "does not commit" in refused(forged, identity)


def test_a_wrong_key_is_known_before_any_chunk_is_opened() -> None:
    chunks = open_chunks(IDENTITY, os.urandom(32), SEALED)
    with pytest.raises(DataLoss, match="does not commit"):
        next(chunks)


def test_an_unknown_format_version_is_refused() -> None:
    assert "version 1, found 2" in refused(SEALED[:8] + b"\x00\x02" + SEALED[10:])


def test_a_chunk_is_refused_before_it_leaves() -> None:
    data = bytearray(SEALED)
    data[-1] ^= 1
    chunks = open_chunks(IDENTITY, KEY, bytes(data))

    assert next(chunks) + next(chunks) == THREE_CHUNKS[: 2 * CHUNK_BYTES]
    with pytest.raises(DataLoss):
        next(chunks)


def test_the_self_check_finds_sealing_that_went_wrong() -> None:
    plaintext = bytearray(os.urandom(1000))
    data = memoryview(bytearray(sealed(bytes(plaintext))))
    check_sealed(IDENTITY, KEY, memoryview(plaintext), data)

    for where, what in ((plaintext, 500), (data, 300)):
        where[what] ^= 1
        with pytest.raises(InternalError) as caught:
            check_sealed(IDENTITY, KEY, memoryview(plaintext), data)
        where[what] ^= 1
        assert caught.value.reason == "SELF_CHECK_FAILED"


def test_the_longest_kind_and_key_id_fit_and_longer_ones_are_refused() -> None:
    PartIdentity(ARTIFACT, "K" * 16, 0).bound_header("k" * 32)
    for kind, key_id in (("K" * 17, "k"), ("K", "k" * 33), ("", "k"), ("K", "")):
        with pytest.raises(ValueError, match="ASCII"):
            PartIdentity(ARTIFACT, kind, 0).bound_header(key_id)


def test_nonces_do_not_repeat_within_a_part() -> None:
    assert len({sealing._nonce(number) for number in range(8)}) == 8
