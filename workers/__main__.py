"""`python -m workers`: one process, one slot."""

from __future__ import annotations

import sys

from workers.app import main

if __name__ == "__main__":
    sys.exit(main())
