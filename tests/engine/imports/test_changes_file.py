"""The changes of a plan as a file: opened in a spreadsheet, nothing of it is run."""

from __future__ import annotations

import pytest

from engine.imports.changes import _csv_lines
from engine.imports.model import ChangeKind, FieldChange, RowChange


@pytest.mark.parametrize(
    "text", ["=1", "+1-1", "-2+3+cmd|' /C calc'!A0", "@x", "|x", "\u200b=1", "＝1", "\t=1", "'x", "-"]
)
def test_what_a_spreadsheet_would_run_is_made_text(text):
    (line,) = _csv_lines(RowChange(1, ChangeKind.UPDATE, {}, (FieldChange("note", None, text),), "things"))

    assert line.endswith(("'" + text + "\n", "\"'" + text.replace('"', '""') + '"\n'))


@pytest.mark.parametrize("text", ["-5", "+5", "-1.5", ".5", "-1e-5", "007", "a=1", "2020-01-01"])
def test_numbers_and_plain_texts_stay_as_they_are(text):
    (line,) = _csv_lines(RowChange(1, ChangeKind.UPDATE, {}, (FieldChange("note", None, text),), "things"))

    assert line.endswith(f",{text}\n")
