"""How a CSV file is written, from the wire."""

from __future__ import annotations

from dataclasses import dataclass

from dataops.v1 import common_pb2


@dataclass(frozen=True)
class Csv:
    """With every default filled in."""

    delimiter: str
    null_text: str
    quote: str = '"'
    encoding: str = "utf-8"


def csv_options(options: common_pb2.CsvOptions) -> Csv:
    """The options that are set, and the contract's defaults. An encoding is judged where it is used."""
    return Csv(options.delimiter or ",", options.null_text, options.quote or '"', options.encoding or "utf-8")
