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

# SHA-256, as torchaudio.datasets has them.
ARCHIVES = {
    "train-clean-100.tar.gz": "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    "train-clean-360.tar.gz": "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    "train-other-500.tar.gz": "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    "dev-clean.tar.gz": "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    "dev-other.tar.gz": "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    "test-clean.tar.gz": "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    "test-other.tar.gz": "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
}


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
