"""The client's version, as the server sees it in its logs and audit rows."""

VERSION = "0.1.0"
