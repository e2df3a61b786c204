"""LibriSpeech: read English, 16 kHz, 960 h (Panayotov et al., 2015)."""

from __future__ import annotations

from pathlib import Path

from edge_speech.corpus import Corpus, find_root, normalise, read_table
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

SOURCE = "https://www.openslr.org/12"
SPLITS = (
    "train-clean-100", "train-clean-360", "train-other-500",
    "dev-clean", "dev-other", "test-clean", "test-other",
)  # fmt: skip


def read(folder: Path) -> Corpus:
    """SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, beside it the FLAC files that it names."""
    root = find_root(folder, "LibriSpeech", SPLITS, SOURCE)
    present = [split for split in SPLITS if (root / split).is_dir()]
    genders = _genders(root / "SPEAKERS.TXT")
    splits = {split: _split(root / split, genders) for split in present}
    return Corpus(splits, tuple(split for split in SPLITS if split not in present))


def _split(folder: Path, genders: dict[str, str]) -> list[Utterance]:
    utterances = []
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        transcript = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        speaker = {"speaker": chapter.parent.name}
        if chapter.parent.name in genders:
            speaker["gender"] = genders[chapter.parent.name]
        for name, text in read_table(transcript):
            utterances.append(Utterance(chapter / f"{name}.flac", normalise(text), extra=speaker))
    if not utterances:
        raise InputError(f"{folder}: holds no SPEAKER/CHAPTER folder; unpack it again: {SOURCE}")
    return utterances


def _genders(path: Path) -> dict[str, str]:
    """`speaker | F or M | …` of every line but comments; the file may be missing."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split("|") for line in lines if not line.startswith(";") and line.count("|") >= 2]
    return {row[0].strip(): row[1].strip().lower() for row in rows}
