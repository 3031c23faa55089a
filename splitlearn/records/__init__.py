"""Rows of a silo's file: plain text, JSON, JSONL, CSV, TSV. Torch-free, streaming, strict.

Nothing here knows what a task makes of a row; :mod:`splitlearn.tasks` does. ``docs/data.md`` describes
the formats.
"""

from splitlearn.records.columns import ColumnMapping
from splitlearn.records.layouts import Layout, OnBadRow
from splitlearn.records.reading import (
    DEFAULT_LIMITS,
    DataFormat,
    ReadLimits,
    end_reading,
    format_of,
    read_records,
)
from splitlearn.records.record import MissingColumnError, Record, known_names, plain_text, write_records

__all__ = [
    "DEFAULT_LIMITS",
    "ColumnMapping",
    "DataFormat",
    "Layout",
    "MissingColumnError",
    "OnBadRow",
    "ReadLimits",
    "Record",
    "end_reading",
    "format_of",
    "known_names",
    "plain_text",
    "read_records",
    "write_records",
]
