"""How a CSV file is written, from the wire."""

from __future__ import annotations

from dataclasses import dataclass

from dataops.v1 import common_pb2

from engine.errors import NotBuilt


@dataclass(frozen=True)
class Csv:
    """With every default filled in."""

    delimiter: str
    null_text: str


def csv_options(options: common_pb2.CsvOptions) -> Csv:
    """The options that are set, and the contract's defaults.

    Raises:
        NotBuilt: NOT_BUILT for another quote or encoding than `"` and UTF-8.
    """
    if options.quote not in ("", '"'):
        raise NotBuilt(f"quote: found {options.quote}, expected '\"' in this release", reason="NOT_BUILT")
    if options.encoding.lower() not in ("", "utf-8", "utf8"):
        raise NotBuilt(f"encoding: found {options.encoding!r}, expected utf-8 in this release", reason="NOT_BUILT")
    return Csv(options.delimiter or ",", options.null_text)
