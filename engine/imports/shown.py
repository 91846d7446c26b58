"""How a refused value is shown."""

from __future__ import annotations

MASK = "***"
"""Stands for a value of a secret field."""
SHOWN = 200
"""Characters of a value that a verdict shows."""
