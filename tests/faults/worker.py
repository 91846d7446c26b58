"""A real worker process that knows the test kinds: `python -m tests.faults.worker`, settings by environment."""

from __future__ import annotations

import sys

from engine import telemetry
from engine.config import load_settings
from tests.engine.jobs import kit
from workers import app

if __name__ == "__main__":
    settings = load_settings()
    telemetry.configure("text")
    sys.exit(app.run(settings, kit.kinds()))
