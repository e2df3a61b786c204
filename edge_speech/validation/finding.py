"""What the checks look at, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_speech.utterance import Utterance
from edge_speech.validation.measures import Checked, Measures

BROKEN, ADVICE = "broken", "advice"


@dataclass(frozen=True)
class DataSet:
    """One manifest with everything measured. `texts` is empty when no utterance has one, as of noise."""

    name: str
    checked: Sequence[Checked]

    @property
    def readable(self) -> list[tuple[Utterance, Measures]]:
        """The utterances whose audio could be read."""
        return [(c.utterance, c.measures) for c in self.checked if c.measures is not None]

    @property
    def texts(self) -> list[Utterance]:
        """The utterances, when there is any text among them."""
        utterances = [c.utterance for c in self.checked]
        return utterances if any(u.text.strip() for u in utterances) else []

    @property
    def speakers(self) -> set[str]:
        """Names of the speakers, where the manifest has them."""
        return {str(c.utterance.extra["speaker"]) for c in self.checked if "speaker" in c.utterance.extra}


@dataclass(frozen=True)
class Case:
    """One utterance of a finding, and what it is about it."""

    utterance: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """What a check says of a set, or of two: `broken` fails the validation, `advice` does not."""

    severity: str
    check: str
    manifest: str
    count: int
    message: str
    cases: tuple[Case, ...] = ()


def finding(severity: str, check: str, data: DataSet, cases: Sequence[Case], message: str) -> list[Finding]:
    """Nothing when there is no case."""
    return [Finding(severity, check, data.name, len(cases), message, tuple(cases))] if cases else []
