"""Texts that do not come back as they went: guarded formulas, other encodings, what a spreadsheet would guess."""

from __future__ import annotations

import pytest

FORMULAS = [
    "=cmd|' /C calc'!A0", "+1", "-5", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "'", "''", "'=1", "'''x",
    "a=1", "|pipe", "\\|", "", "plain", "%00", "-", "'\n", '"=1"', "=", "\ufeff=1",
]  # fmt: skip
LOOKALIKES = ["007", "1234567890123456789", "1e5", "3-4", "1899-12-31", "TRUE", "NULL", "\\N", "None", "1.10", "+49 30"]
TABLE = "CREATE TABLE public.t (id int PRIMARY KEY, v text); CREATE TABLE public.copy (LIKE public.t INCLUDING ALL);"


def filled(fresh, texts):
    world = fresh(TABLE)
    for number, text in enumerate(texts):
        world.sql("INSERT INTO public.t VALUES (%s, %s)", number, text)
    world.sql("INSERT INTO public.t VALUES (-1, NULL)")
    return world


@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT", "REPLACE"])
@pytest.mark.parametrize("guard", [True, False])
def test_an_export_comes_back_byte_for_byte_and_again_changes_nothing(fresh, guard, mode):
    world = filled(fresh, FORMULAS + LOOKALIKES)
    _, data = world.export("t", **({} if guard else {"formula_guard": False}))
    options = {"import_type": mode, "csv": {"undo_formula_guard": guard}}

    row = world.load("copy", data, **options)
    assert (row.status, world.errors(row)) == ("COMPLETED", []), row.error
    assert world.sql("SELECT * FROM public.copy ORDER BY id") == world.sql("SELECT * FROM public.t ORDER BY id")

    row = world.plan("t", data, **options)
    total = len(FORMULAS + LOOKALIKES) + 1
    assert row.plan_summary["counts"]["skip" if mode == "ADDITIVE" else "unchanged"] == total


@pytest.mark.parametrize("mode", ["UPSERT", "REPLACE"])
def test_a_guarded_file_whose_guard_is_not_undone_is_shown_as_changes_not_taken_in_silence(fresh, mode):
    world = filled(fresh, ["=1", "plain"])
    _, data = world.export("t")
    row = world.plan("t", data + b"\n", import_type=mode)  # another file than the one that we have written

    assert row.plan_summary["entities"][0]["updated_fields"] == {"v": 1}


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"id,v\n1,caf\xe9\n", 10),
        (b"id,v\n1,ok\n2,\xff\xfe\n", 12),
        (b"id,v\n" + b"1,x\n" * 0 + b"1," + b"y" * 3_000_000 + b"\n2,\x93smart\x94\n", 3_000_010),
        (b"i\x80d,v\n1,a\n", 1),
        (b"id,v\n1,half \xe2\x82", 12),
        ("id,v\n1,a\n".encode("utf-16"), 0),
        ("id,v\n1,a\n".encode("utf-16-be"), None),
    ],
)
@pytest.mark.parametrize("mode", ["ADDITIVE", "UPSERT", "REPLACE"])
def test_another_encoding_is_refused_at_its_byte_and_never_replaced(fresh, data, offset, mode):
    world = fresh(TABLE + "INSERT INTO public.t VALUES (7, 'there')")
    row = world.plan("t", data, import_type=mode, auto_apply=True)

    assert row.status == "FAILED"
    if offset is None:  # without a mark it is text full of NULs, which is no header of ours
        assert world.reason(row) in ("COLUMN_UNKNOWN", "COLUMNS_REFUSED", "FILE_NOT_UTF8")
    elif len(data) < 1_000_000:
        assert (world.reason(row), row.error["metadata"]) == ("FILE_NOT_UTF8", {"offset": str(offset)})
    else:  # the record is larger than any may be, which may be seen first
        assert world.reason(row) in ("FILE_NOT_UTF8", "FILE_RECORD_TOO_LARGE")
    assert world.sql("SELECT * FROM public.t") == [(7, "there")]
