"""`python -m dataops_client` is the `dataops` command."""

import sys

from dataops_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
