"""Pronouncing lexicons: CMUdict (http://www.speech.cs.cmu.edu/cgi-bin/cmudict) and Kaldi's lexicon.txt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_speech.errors import InputError

# What sets off the later pronunciations of a word in CMUdict: "read(2)".
_VARIANT = re.compile(r"\(\d+\)$")


@dataclass(frozen=True)
class Pronunciations:
    """Phones of each word, as numbers from 1 (0 is the blank); `phones` are their names in order."""

    phones: tuple[str, ...]
    of_word: dict[str, tuple[int, ...]]

    def of_text(self, text: str) -> list[int] | None:
        """The phones of all words of `text`, or None where one is not in the lexicon."""
        words = [self.of_word.get(word) for word in text.lower().split()]
        return None if None in words else [phone for word in words if word for phone in word]


def read_pronunciations(path: Path) -> Pronunciations:
    """Read lines "word phone phone …"; the first pronunciation of a word counts, without marks of stress.

    Raises InputError on a missing file and on one without such lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a pronouncing lexicon ({error})") from error
    spoken: dict[str, list[str]] = {}
    for line in lines:
        word, *phones = line.split(" #")[0].split() or [";;;"]
        if phones and not word.startswith(";;;"):
            spoken.setdefault(_VARIANT.sub("", word).lower(), [phone.rstrip("012") for phone in phones])
    if not spoken:
        raise InputError(
            f'{path}: no line of it is "word phone phone …"; give CMUdict or a Kaldi lexicon.txt'
        )
    names = sorted({phone for phones in spoken.values() for phone in phones})
    number = {name: i for i, name in enumerate(names, start=1)}
    return Pronunciations(
        tuple(names), {word: tuple(number[p] for p in phones) for word, phones in spoken.items()}
    )
