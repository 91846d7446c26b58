"""Peak resident memory of processes, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def forget_peak(pid: int) -> None:
    """Begin counting anew (needs to own the process)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_megabytes(pid: int) -> float:
    """The most memory the process held since it began, or since ``forget_peak``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"/proc/{pid}/status has no VmHWM")
