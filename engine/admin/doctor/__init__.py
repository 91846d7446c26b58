"""`dataops-admin doctor`: what of an installation works, what is refused and why, and what mends it.

Each module is a group of checks: `reach` (can the database be worked with at all), `server` (its settings), `access`
(what our role may), `rights` (the same table by table), `tables` (what the tables are), `house` (keys, storage, control
schema). A check is a function that yields findings; `run` calls them in order. Nothing is changed anywhere but for one
probe object, which is written to the artifact store and removed.
"""

from engine.admin.doctor.finding import Finding, Severity
from engine.admin.doctor.report import Report
from engine.admin.doctor.run import diagnose

__all__ = ["Finding", "Report", "Severity", "diagnose"]
