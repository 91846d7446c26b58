"""What a benchmark came to: ours beside the reference of the same run, and how far it is from what is to be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic


@dataclass(frozen=True)
class Measure:
    """A ratio and what it is to be: of a bare echo's speed at least, of another tool's time at most."""

    shown: str
    reach: float
    at_least: bool = False

    def ratio(self, ours: float, reference: float) -> float:
        return reference / ours if self.at_least else ours / reference

    def reached(self, ratio: float) -> bool:
        return ratio >= self.reach if self.at_least else ratio <= self.reach


MEASURES = {
    "import_filled": Measure("ours / \\copy", 1.3),
    "import_empty": Measure("ours / \\copy", 0.9),
    "export_csv": Measure("ours / \\copy", 1.5),
    "export_json": Measure("ours / COPY of row_to_json", 1.3),
    "backup": Measure("ours / pg_dump -Fc", 0.4),
    "backup_size": Measure("ours / pg_dump -Fc, bytes", 1.0),
    "increment_content": Measure("unchanged, by content / full backup", 0.5),
    "increment_candidates": Measure("unchanged, by candidates / full backup", 0.15),
    "increment_size": Measure("1 % of the rows changed / full backup, bytes", 0.05),
    "restore": Measure("ours / pg_restore --single-transaction", 1.2),
    "upload": Measure("bare echo / ours", 0.7, at_least=True),
    "download": Measure("bare echo / ours", 0.7, at_least=True),
}
BESIDE = ("pre_import_backup", "pre_restore_backup")
"""Seconds that are told beside the measures they are a part of, and not counted in them."""

_LIMIT = Measure("", 1.0)
"""What has no reference but a limit, of which it shows the share."""

MEMORY_MB = 300
WATCHERS_MS = 250


@dataclass
class Results:
    """Seconds of every run by measure, ours and the reference's; peaks of memory by process."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    reference: dict[str, list[float]] = field(default_factory=dict)
    peaks_mb: dict[str, float] = field(default_factory=dict)
    watchers_ms: float | None = None

    @contextmanager
    def timed(self, name: str, *, ours: bool) -> Iterator[None]:
        """Counts a run of `name`, if it ends well."""
        began = monotonic()
        yield
        seconds = monotonic() - began
        (self.ours if ours else self.reference).setdefault(name, []).append(seconds)
        print(f"{name:<16} {'ours' if ours else 'reference':<10} {seconds:7.2f} s", flush=True)

    def note(self, name: str, value: float, *, ours: bool) -> None:
        """Counts what was measured otherwise: a stage's seconds by the job's own events, or bytes."""
        (self.ours if ours else self.reference).setdefault(name, []).append(value)
        print(f"{name:<16} {'ours' if ours else 'reference':<10} {value:,.2f}", flush=True)

    def note_peak(self, process: str, megabytes: float) -> None:
        self.peaks_mb[process] = max(self.peaks_mb.get(process, 0.0), megabytes)

    def as_record(self) -> dict[str, dict[str, float]]:
        """The form of build/bench.json: medians of the runs."""
        found: dict[str, dict[str, float]] = {}
        for name, measure in MEASURES.items():
            if name in self.ours and name in self.reference:
                ours, reference = median(self.ours[name]), median(self.reference[name])
                ratio = measure.ratio(ours, reference)
                unit = "mb" if name.endswith("_size") else "s"
                found[name] = {
                    f"ours_{unit}": ours,
                    f"reference_{unit}": reference,
                    "ratio": ratio,
                    "reach": measure.reach,
                }
        for name in BESIDE:
            if name in self.ours:
                found[name] = {"ours_s": median(self.ours[name])}
        for process, peak in self.peaks_mb.items():
            found[f"memory_{process}"] = {"ours_mb": peak, "ratio": peak / MEMORY_MB, "reach": _LIMIT.reach}
        if self.watchers_ms is not None:
            ratio = self.watchers_ms / WATCHERS_MS
            found["watchers"] = {"ours_s": self.watchers_ms / 1000, "ratio": ratio, "reach": _LIMIT.reach}
        return {name: {key: round(value, 3) for key, value in entry.items()} for name, entry in found.items()}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_record(), indent=2) + "\n", encoding="utf-8")

    def print(self) -> None:
        """One line a measure; `*` where it is not reached."""
        print("\nratio: as the line's end says; of memory to 300 MB, of the last of 1,000 watchers (p99) to 250 ms.")
        print("reach: what the ratio is to be, at least of a bare echo, at most of all others; a star where it is not.")
        print("Small files show what an import costs whatever its size.")
        print(f"\n{'measure':<24}{'ours':>12}{'reference':>12}{'ratio':>8}{'reach':>8}")
        for name, entry in self.as_record().items():
            ours = f"{entry['ours_mb']:.0f} MB" if "ours_mb" in entry else f"{entry['ours_s']:.2f} s"
            reference = f"{entry['reference_mb']:.0f} MB" if "reference_mb" in entry else ""
            reference = f"{entry['reference_s']:.2f} s" if "reference_s" in entry else reference
            if name in BESIDE:
                print(f"{name:<24}{ours:>12}   told beside")
                continue
            measure = MEASURES.get(name, _LIMIT)
            mark = " " if measure.reached(entry["ratio"]) else "*"
            print(
                f"{name:<24}{ours:>12}{reference:>12}{entry['ratio']:>8.2f}{measure.reach:>8.2f} {mark} {measure.shown}"
            )
