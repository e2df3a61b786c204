"""Speech Commands v0.02: 35 English words of a second each, 16 kHz (Warden, 2018)."""

from __future__ import annotations

from pathlib import Path

from edge_speech.corpus import Corpus, find_root, read_table
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

SOURCE = "https://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
# SHA-256, as torchaudio.datasets has it.
ARCHIVES = {
    "speech_commands_v0.02.tar.gz": "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
}
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
WORDS = (
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no "
    "off on one right seven sheila six stop three tree two up visual wow yes zero"
).split()
_NOISE = "_background_noise_"


def read(folder: Path) -> Corpus:
    """WORD/SPEAKER_nohash_N.wav; two lists name `validation` and `test`, all else is `train`.

    The background noises make a split `noise` without texts.
    """
    root = find_root(folder, "speech_commands_v0.02", list(LISTS.values()), SOURCE)
    listed = {split: [name for name, _ in read_table(root / file)] for split, file in LISTS.items()}
    taken = {name for names in listed.values() for name in names}
    words = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != _NOISE)
    every = [f"{word}/{path.name}" for word in words for path in sorted((root / word).glob("*.wav"))]
    names = {"train": [name for name in every if name not in taken], **listed}
    if not names["train"]:
        raise InputError(f"{root}: holds no WORD/SPEAKER_nohash_N.wav; unpack it again: {SOURCE}")
    splits = {split: [_utterance(root, name) for name in of_split] for split, of_split in names.items()}
    noises = [Utterance(path, "") for path in sorted((root / _NOISE).glob("*.wav"))]
    absent = [name for name in (*WORDS, _NOISE) if not (root / name).is_dir()]
    return Corpus(splits | ({"noise": noises} if noises else {}), tuple(absent))


def _utterance(root: Path, name: str) -> Utterance:
    word, _, file = name.partition("/")
    return Utterance(root / name, word, extra={"speaker": file.partition("_")[0]})
