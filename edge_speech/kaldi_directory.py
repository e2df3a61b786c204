"""Kaldi data directories: `wav.scp`, `text`, `utt2spk` and `segments`, one entry a line.

Form: https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

_ARCHIVED = re.compile(r"\.ark:\d+$")


def read_kaldi_directory(
    folder: Path, need_text: bool = True, audio_root: Path | None = None
) -> list[Utterance]:
    """The utterances of `segments`, or the whole files of `wav.scp` where there is no such file.

    `utt2spk` may be missing. Relative paths start at `audio_root`, or are tried from `folder` and then, as in
    Kaldi, from the working folder. Raises InputError that names the line.
    """
    recordings = {key: _audio_path(value, where) for key, value, where in _table(folder / "wav.scp")}
    texts = _values(folder / "text") if need_text or (folder / "text").is_file() else {}
    speakers = _values(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    roots = (folder, Path()) if audio_root is None else (audio_root,)
    utterances = []
    for key, recording, start_s, duration_s, where in _parts(folder, recordings):
        if recording not in recordings:
            raise InputError(f"{where}: recording {recording!r} is not in {folder / 'wav.scp'}")
        if need_text and key not in texts:
            raise InputError(f"{folder / 'text'}: nothing for {key!r}; run Kaldi's utils/fix_data_dir.sh")
        extra = {"utterance": key} | ({"speaker": speakers[key]} if key in speakers else {})
        path = _found(recordings[recording], roots)
        utterances.append(Utterance(path, texts.get(key, ""), duration_s, extra, start_s))
    return utterances


def _parts(
    folder: Path, recordings: dict[str, str]
) -> Iterator[tuple[str, str, float | None, float | None, str]]:
    """(utterance, recording, start, duration, where it says so) of every utterance."""
    if not (folder / "segments").is_file():
        yield from ((key, key, None, None, "") for key in recordings)
        return
    for key, value, where in _table(folder / "segments"):
        fields = value.split()
        if len(fields) != 3:
            raise InputError(f"{where}: {value!r} after the utterance; expected `recording start end`")
        yield key, fields[0], *_span(fields[1], fields[2], where), where


def _span(start: str, end: str, where: str) -> tuple[float, float | None]:
    """Start and duration in seconds; an end of -1 is the end of the file."""
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        start_s = end_s = math.nan
    if math.isfinite(start_s) and start_s >= 0 and end_s == -1:
        return start_s, None
    if not (math.isfinite(end_s) and 0 <= start_s < end_s):
        raise InputError(f"{where}: start and end are {start} and {end}; allowed: seconds, 0 <= start < end")
    return start_s, end_s - start_s


def _audio_path(value: str, where: str) -> str:
    if "|" in value:
        raise InputError(
            f"{where}: {value[:60]!r} is a command, which is not run here; run it first, "
            "store what it writes as a file and name that file"
        )
    if not value or value == "-" or _ARCHIVED.search(value):
        raise InputError(f"{where}: {value!r} is no audio file; name a WAV, FLAC or Ogg file")
    return value


def _found(name: str, roots: tuple[Path, ...]) -> Path:
    paths = [root / name for root in roots]
    return next((path for path in paths if path.is_file()), paths[0])


def _values(path: Path) -> dict[str, str]:
    return {key: value for key, value, _ in _table(path)}


def _table(path: Path) -> Iterator[tuple[str, str, str]]:
    """(key, rest of the line, where) of every line. Raises InputError on a key that comes twice."""
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name}; a Kaldi directory has wav.scp, text and utt2spk")
    seen = set()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            key, _, value = line.strip().replace("\t", " ").partition(" ")
            if not key:
                continue
            if key in seen:
                raise InputError(f"{path}:{number}: {key!r} comes twice; give every entry a key of its own")
            seen.add(key)
            yield key, value.strip(), f"{path}:{number}"
