"""Which phone is said in each frame, from CTM files: forced alignments of Kaldi, MFA or pocketsphinx.

CTM is NIST's "recording channel start duration label" with times in seconds
(https://www.nist.gov/itl/iad/mig/open-speech-analytic-technologies, sctk's ctm format).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_speech.errors import InputError
from edge_speech.training.recipe import Recipe

# No phone is said, and nothing is known of what is said.
SILENCE_LABEL, UNKNOWN_LABEL = 0, -1

Times = list[tuple[float, float, str]]


@dataclass(frozen=True)
class PhoneLabels:
    """Of each training source, in the recipe's order, start, end (s) and phone of its recordings by name.

    `phones` are all labels there are; the first has number 1.
    """

    phones: tuple[str, ...]
    sources: tuple[dict[str, Times], ...]

    @staticmethod
    def of(recipe: Recipe) -> PhoneLabels:
        """Read what the recipe's sources name as `alignment`. Raises InputError where none does."""
        root = Path(recipe.data.root)
        sources = tuple(read_ctm(root / s.alignment) if s.alignment else {} for s in recipe.data.train)
        phones = {phone for source in sources for times in source.values() for _, _, phone in times}
        if not phones:
            raise InputError(
                "recipe: [auxiliary] needs a [[data.train]] source with an alignment, a CTM file"
            )
        return PhoneLabels(tuple(sorted(phones)), sources)

    def frames(
        self, source: int, name: str, count: int, frame_shift_s: float, speed: float = 1.0
    ) -> npt.NDArray[np.int64]:
        """Phone numbers (count,) of the frames of a recording played `speed` times as fast."""
        times = self.sources[source].get(name)
        if times is None:
            return np.full(count, UNKNOWN_LABEL)
        number = {phone: i for i, phone in enumerate(self.phones, start=1)}
        labels = np.full(count, SILENCE_LABEL)
        for start_s, end_s, phone in times:
            first, last = (round(t / (frame_shift_s * speed)) for t in (start_s, end_s))
            labels[first:last] = number[phone]
        return labels


def read_ctm(path: Path) -> dict[str, Times]:
    """Start and end in seconds and label of everything said, by recording. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a CTM file ({error})") from error
    spoken: dict[str, Times] = {}
    for place, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(";;"):
            name, entry = _entry(f"{path}:{place}", line.split())
            spoken.setdefault(name, []).append(entry)
    return spoken


def _entry(where: str, fields: list[str]) -> tuple[str, tuple[float, float, str]]:
    try:
        name, _, start, duration, label = fields[:5]
        start_s, duration_s = float(start), float(duration)
        if not (0 <= start_s < float("inf") and 0 <= duration_s < float("inf")):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f'{where}: {" ".join(fields)[:60]!r} is not "recording channel start duration label" in seconds'
        ) from error
    return name, (start_s, start_s + duration_s, label)
