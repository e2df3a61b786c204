"""Utterances → a Kaldi data directory: `wav.scp`, `segments`, `utt2spk`, `spk2utt` and `text`.

Form: https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.utterance import Utterance


def check_kaldi_output(folder: Path) -> None:
    """Before the work, not after it. Raises InputError when `folder` exists or cannot be made."""
    if folder.exists():
        raise InputError(f"{folder} exists; remove it or choose another name for the Kaldi directory")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such directory for {folder.name}; make it first")


def write_kaldi_directory(folder: Path, utterances: Sequence[Utterance]) -> None:
    """Write parts of recordings, each with its offset and duration; the folder is there whole or not at all.

    An utterance is named after its speaker, or where that is unknown after its recording, as Kaldi's sorting
    wants it. `text` is left out where no utterance has one. Raises InputError on a path Kaldi cannot have.
    """
    recordings = _recording_names(utterances)
    tables: dict[str, list[str]] = {"segments": [], "utt2spk": [], "text": []}
    speakers: dict[str, list[str]] = {}
    for utterance in utterances:
        assert utterance.offset_s is not None
        assert utterance.duration_s is not None
        recording = recordings[utterance.audio_path]
        speaker = _name(str(utterance.extra.get("speaker", ""))) or recording
        end_s = utterance.offset_s + utterance.duration_s
        prefix = recording if speaker == recording else f"{speaker}-{recording}"
        key = f"{prefix}-{round(1000 * utterance.offset_s):08d}-{round(1000 * end_s):08d}"
        tables["segments"].append(f"{key} {recording} {utterance.offset_s:.3f} {end_s:.3f}")
        tables["utt2spk"].append(f"{key} {speaker}")
        tables["text"].append(f"{key} {utterance.text}")
        speakers.setdefault(speaker, []).append(key)
    tables["spk2utt"] = [f"{speaker} {' '.join(sorted(keys))}" for speaker, keys in speakers.items()]
    tables["wav.scp"] = [f"{name} {path.absolute()}" for path, name in recordings.items()]
    if not any(utterance.text for utterance in utterances):
        del tables["text"]
    _write(folder, tables)


def _write(folder: Path, tables: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        part = Path(work) / "part"
        part.mkdir()
        for name, lines in tables.items():
            (part / name).write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
        part.rename(folder)


def _recording_names(utterances: Sequence[Utterance]) -> dict[Path, str]:
    """The file's name without its ending; where two files share one, a number follows."""
    names: dict[Path, str] = {}
    for path in dict.fromkeys(u.audio_path for u in utterances):
        if "|" in str(path) or "\n" in str(path):
            raise InputError(f"{str(path)!r} has a sign that Kaldi takes for a command or a line's end")
        name, number = _name(path.stem), 1
        while (numbered := name if number == 1 else f"{name}-{number}") in names.values():
            number += 1
        names[path] = numbered
    return names


def _name(text: str) -> str:
    """Kaldi's names have no spaces."""
    return "_".join(text.split())
