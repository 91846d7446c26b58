"""What is wrong with a file's columns and their mapping: collected, then told all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from engine.errors import MAX_VIOLATIONS, DataInvalid, Violation

SHOWN_NAME = 60
"""Characters of a name that a message shows."""
LOOKED_AT = 100
"""Characters by which names are compared: it takes the square of them."""


class Found:
    """Collects faults, each with its own word; a mapping corrected one fault at a time costs a plan for each."""

    def __init__(self) -> None:
        self._wrong: list[tuple[str, Violation]] = []

    def add(self, code: str, subject: str, description: str) -> None:
        self._wrong.append((code, Violation(subject, description)))

    def near(self, name: str, among: Iterable[str]) -> str:
        """A hint at the name that was probably meant, to end a message with; empty if none is near.

        Empty also once there are more faults than are ever shown: a thousand wrong names against a thousand fields
        would take half a minute.
        """
        if len(self._wrong) >= MAX_VIOLATIONS:
            return ""
        by_folded = {other[:LOOKED_AT].casefold(): other for other in among}
        near = difflib.get_close_matches(name[:LOOKED_AT].casefold(), by_folded, n=1)
        return f"; did you mean {by_folded[near[0]]!r}?" if near else ""

    def __bool__(self) -> bool:
        return bool(self._wrong)

    def refuse(self) -> None:
        """Raises:
        DataInvalid: if anything was found; its reason is the faults' own when they are of one kind, else
            COLUMNS_REFUSED.
        """
        if not self._wrong:
            return
        codes = {code for code, _ in self._wrong}
        shown = "; ".join(v.description for _, v in self._wrong[:3])
        more = f"; and {len(self._wrong) - 3} more" if len(self._wrong) > 3 else ""
        raise DataInvalid(
            f"columns: {shown}{more}",
            reason=codes.pop() if len(codes) == 1 else "COLUMNS_REFUSED",
            violations=[Violation(v.subject, f"{code}: {v.description}") for code, v in self._wrong],
        )


def quoted(name: str) -> str:
    return repr(name[:SHOWN_NAME])
