"""Free Spoken Digit Dataset: English digits, 8 kHz, half a second each."""

from __future__ import annotations

from pathlib import Path

from edge_speech.corpus import Corpus, find_root
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TAKES, _TEST_TAKES = 50, 5


def read(folder: Path) -> Corpus:
    """recordings/DIGIT_SPEAKER_TAKE.wav; officially takes 0 to 4 are `test`, 5 to 49 `train`."""
    root = find_root(folder, "free-spoken-digit-dataset", ("recordings",), SOURCE) / "recordings"
    names = [path.stem.split("_") for path in root.glob("[0-9]_*_*.wav")]
    speakers = sorted({name[1] for name in names if len(name) == 3})
    if not speakers:
        raise InputError(f"{root}: holds no DIGIT_SPEAKER_TAKE.wav; fetch it again: {SOURCE}")
    splits = {
        "train": _takes(root, speakers, range(_TEST_TAKES, _TAKES)),
        "test": _takes(root, speakers, range(_TEST_TAKES)),
    }
    return Corpus(splits)


def _takes(root: Path, speakers: list[str], takes: range) -> list[Utterance]:
    """Every speaker says every digit in every take."""
    return [
        Utterance(root / f"{digit}_{speaker}_{take}.wav", word, extra={"speaker": speaker})
        for speaker in speakers
        for digit, word in enumerate(DIGITS)
        for take in takes
    ]
