"""LJ Speech 1.1: one voice reading English books, 22.05 kHz, 24 h (Ito and Johnson, 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_speech.corpus import Corpus, find_root, normalise
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

SOURCE = "https://keithito.com/LJ-Speech-Dataset/"
# SHA-256, as torchaudio.datasets has it.
ARCHIVES = {
    "LJSpeech-1.1.tar.bz2": "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
}
_HELD_OUT = 250


def read(folder: Path) -> Corpus:
    """metadata.csv: ID|text|text with numbers and abbreviations in words, of wavs/ID.wav.

    There are no official splits. As in ESPnet, the last 250 utterances are `test` and the 250 before `dev`.
    """
    root = find_root(folder, "LJSpeech-1.1", ("metadata.csv",), SOURCE)
    every = [
        Utterance(root / "wavs" / f"{name}.wav", text, extra={"speaker": "lj"})
        for name, text in _texts(root / "metadata.csv")
    ]
    if len(every) <= 2 * _HELD_OUT:
        raise InputError(f"{root / 'metadata.csv'}: {len(every)} of 13100 lines; unpack it again: {SOURCE}")
    dev, test = len(every) - 2 * _HELD_OUT, len(every) - _HELD_OUT
    return Corpus({"train": every[:dev], "dev": every[dev:test], "test": every[test:]})


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """(ID, text in words) of every line; quotation marks are text there, not CSV's."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("|")
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: {len(fields)} fields, not 3; unpack it again: {SOURCE}")
        yield fields[0], normalise(fields[2])
