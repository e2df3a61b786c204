"""speechocean762: English read by Mandarin speakers, half of them children, 16 kHz (Zhang et al., 2021)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_speech.corpus import Corpus, find_root, normalise, read_table
from edge_speech.errors import InputError
from edge_speech.kaldi_directory import read_kaldi_directory
from edge_speech.utterance import Utterance

SOURCE = "https://www.openslr.org/101"
SPLITS = ("train", "test")


def read(folder: Path) -> Corpus:
    """A Kaldi directory for each split, with spk2age and spk2gender; paths start at the corpus."""
    root = find_root(folder, "speechocean762", ("WAVE",), SOURCE)
    lost = [split for split in SPLITS if not (root / split).is_dir()]
    if lost:
        raise InputError(f"{root}: no {', '.join(lost)}; unpack it again: {SOURCE}")
    return Corpus({split: _split(root, root / split) for split in SPLITS})


def _split(root: Path, folder: Path) -> list[Utterance]:
    ages, genders = (dict(read_table(folder / name)) for name in ("spk2age", "spk2gender"))
    utterances = []
    for utterance in read_kaldi_directory(folder, audio_root=root):
        speaker = utterance.extra.get("speaker", "")
        extra: dict[str, Any] = {"speaker": speaker}
        if ages.get(speaker, "").isdecimal():
            extra["age"] = int(ages[speaker])
        if speaker in genders:
            extra["gender"] = genders[speaker]
        utterances.append(replace(utterance, text=normalise(utterance.text), extra=extra))
    return utterances
