"""What a corpus is once its official layout is read, and what the readers of `corpora/` share."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.utterance import Utterance


@dataclass(frozen=True)
class Corpus:
    """Official splits by name, and what the official layout has besides that is not on this disk."""

    splits: Mapping[str, Sequence[Utterance]]
    absent: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Lower case; letters, digits and apostrophes stay, all else becomes a space; single spaces."""
    kept = (c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text.lower())
    return " ".join("".join(kept).split())


def find_root(folder: Path, inner: str, holds: Sequence[str], source: str) -> Path:
    """`folder`, or `inner` in it: the one that has something of `holds`. Raises InputError."""
    for root in (folder, folder / inner):
        if any((root / name).exists() for name in holds):
            return root
    raise InputError(
        f"{folder}: holds none of {', '.join(holds)}, nor does {inner} in it; "
        f"unpack the corpus there: {source}"
    )


def read_table(path: Path) -> Iterator[tuple[str, str]]:
    """(first word, rest) of every line of a text file that has any. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: is missing; unpack the corpus again")
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.split(maxsplit=1):
            yield words[0], words[1].strip() if len(words) > 1 else ""


def check_files(utterances: Sequence[Utterance]) -> None:
    """Raises InputError naming the first of the audio files that are not there."""
    lost = [u.audio_path for u in utterances if not u.audio_path.is_file()]
    if lost:
        raise InputError(
            f"{lost[0]}: is missing, with it {len(lost)} of {len(utterances)} audio files; "
            "unpack the corpus again"
        )
