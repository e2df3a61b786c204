"""What a search adds to the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Searched:
    """`report` is report.json's `search`, `chosen` what provenance says, `reasons` what decided."""

    report: dict[str, Any]
    chosen: dict[str, Any]
    reasons: tuple[str, ...]
