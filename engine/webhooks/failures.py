"""Why an attempt failed: one word, which its delivery keeps as `last_error`. What the receiver says is not kept."""

from __future__ import annotations


class NotDelivered(Exception):
    """`word` is one of the table in docs/webhooks.md; `final`: no further attempt is of any use."""

    def __init__(self, word: str, *, final: bool = False) -> None:
        super().__init__(word)
        self.word, self.final = word, final
