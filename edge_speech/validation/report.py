"""Manifests → what they hold and what is wrong with them, as one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_speech.manifest import read_manifest
from edge_speech.validation.across import check_across
from edge_speech.validation.checks import CHECKS
from edge_speech.validation.finding import BROKEN, DataSet, Finding
from edge_speech.validation.measures import measure_all
from edge_speech.validation.texts import characters, check_texts


@dataclass(frozen=True)
class Validation:
    """The sets as read, and the findings, broken ones first."""

    sets: tuple[DataSet, ...]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> int:
        """How many utterances are broken, in whatever way."""
        found = [f for f in self.findings if f.severity == BROKEN]
        return len({(f.manifest, case.utterance) for f in found for case in f.cases})

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "sets": [describe(data) for data in self.sets],
            "findings": [asdict(f) for f in self.findings],
            "broken": self.broken,
        }


def validate(manifests: Sequence[str], quiet: bool = False) -> Validation:
    """Read every recording of every manifest once. Raises InputError on a manifest that is none."""
    read = [(name, read_manifest(name, need_text=False)) for name in manifests]
    sets = [DataSet(name, measure_all(utterances, name, quiet)) for name, utterances in read]
    found = [f for data in sets for check in (*CHECKS, check_texts) for f in check(data)]
    found += check_across(sets)
    found.sort(key=lambda f: (f.severity != BROKEN, manifests.index(f.manifest)))
    return Validation(tuple(sets), tuple(found))


def describe(data: DataSet) -> dict[str, Any]:
    """Size and spread of a set; spreads are [least, 5 %, median, 95 %, most], or None."""
    measures = [m for _, m in data.readable]
    rates = Counter(m.sample_rate for m in measures)
    return {
        "manifest": data.name,
        "utterances": len(data.checked),
        "hours": round(sum(m.duration_s for m in measures) / 3600, 4),
        "speakers": len(data.speakers),
        "sample_rates": {str(rate): count for rate, count in sorted(rates.items())},
        "different_texts": len({u.text for u in data.texts}),
        "duration_s": spread([m.duration_s for m in measures]),
        "characters_per_s": spread(speaking_rates(data)),
        "level_db": spread([m.level_db for m in measures]),
        "snr_db": spread([m.snr_db for m in measures if m.snr_db is not None]),
        "characters": dict(sorted(characters(data).items())),
    }


def speaking_rates(data: DataSet) -> list[float]:
    """Characters per second of what can be read and has a text."""
    return [len(u.text) / m.duration_s for u, m in data.readable if u.text.strip()]


def spread(values: Sequence[float]) -> list[float] | None:
    """[least, 5 %, median, 95 %, most]."""
    return [round(float(q), 3) for q in np.quantile(values, (0, 0.05, 0.5, 0.95, 1))] if values else None


def set_rows(sets: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and one row per described set, as a person reads them."""
    header = ["manifest", "utterances", "hours", "speakers", "Hz", "s", "characters/s", "level dB", "SNR dB"]
    return [header, *(_row(data) for data in sets)]


def _row(data: dict[str, Any]) -> list[str]:
    row = [data["manifest"], str(data["utterances"]), f"{data['hours']:.2f}", str(data["speakers"] or "-")]
    keys = ("duration_s", 1), ("characters_per_s", 1), ("level_db", 0), ("snr_db", 0)
    spreads = [_short(data[key], digits) for key, digits in keys]
    return [*row, " ".join(data["sample_rates"]) or "-", *spreads]


def _short(values: list[float] | None, digits: int) -> str:
    """5 %, median, 95 %."""
    return "-" if values is None else " … ".join(f"{v:.{digits}f}" for v in values[1:4])
