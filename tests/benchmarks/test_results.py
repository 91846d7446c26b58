"""The file of a bench: medians, ratios the way they are shown, and what is not reached is marked."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.results import Results


def test_medians_ratios_and_marks(tmp_path, capsys):
    results = Results()
    results.ours |= {"import_filled": [13.0, 12.0, 30.0], "upload": [2.0], "export_csv": [1.0]}
    results.reference |= {"import_filled": [10.0, 10.0, 11.0], "upload": [1.0]}
    results.note_peak("server", 250.0)
    results.note_peak("server", 200.0)
    results.watchers_ms = 300.0
    results.write(tmp_path / "build" / "bench.json")
    results.print()

    assert json.loads((tmp_path / "build" / "bench.json").read_text()) == {
        "import_filled": {"ours_s": 13.0, "reference_s": 10.0, "ratio": 1.3, "reach": 1.3},
        "upload": {"ours_s": 2.0, "reference_s": 1.0, "ratio": 0.5, "reach": 0.7},
        "memory_server": {"ours_mb": 250.0, "ratio": 0.833, "reach": 1.0},
        "watchers": {"ours_s": 0.3, "ratio": 1.2, "reach": 1.0},
    }
    marked = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " * " in line]
    assert marked == ["upload", "watchers"]


def test_only_a_run_that_ended_well_counts():
    results = Results()
    with pytest.raises(ZeroDivisionError), results.timed("import_filled", ours=True):
        1 / 0  # noqa: B018
    assert results.ours == {}
