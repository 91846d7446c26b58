"""Buffers are used again, and few are kept from one job to the next."""

from __future__ import annotations

from engine.artifacts.buffers import BETWEEN_JOBS, KEPT, BufferPool


def test_a_buffer_is_used_again_and_what_nobody_uses_is_let_go():
    pool = BufferPool()
    taken = [pool.take() for _ in range(KEPT + 1)]
    for buffer in taken:
        pool.give_back(buffer)
    assert pool.take() is taken[KEPT - 1], "one more than are kept was given back"
    pool.give_back(taken[KEPT - 1])

    pool.let_go()
    again = [pool.take() for _ in range(KEPT)]
    assert sum(buffer in taken for buffer in again) == BETWEEN_JOBS
