"""Lhotse's cuts, one JSON object a line: parts of recorded files with what is said in them.

Form: https://lhotse.readthedocs.io/en/latest/cuts.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.fields import Table
from edge_speech.utterance import Utterance

_LONGEST_S = 1e9


def is_cut(data: Mapping[str, Any]) -> bool:
    """Whether a line of JSON is a cut of any kind."""
    return "audio_filepath" not in data and str(data.get("type")).endswith("Cut")


def parse_cut(data: Mapping[str, Any], where: str, folder: Path, need_text: bool) -> Utterance:
    """The utterance of a cut; the texts of its supervisions are joined in the order of their times.

    Raises InputError on what is no plain part of one file: mixed and padded cuts, changed recordings.
    """
    cut = Table.of(data, where)
    if data["type"] != "MonoCut":
        raise _not_plain(where, f"a {data['type']}")
    recording = cut.table("recording")
    if recording.data.get("transforms"):
        raise _not_plain(where, "a recording with transforms")
    supervisions = cut.tables("supervisions", 10_000)
    supervisions.sort(key=lambda s: s.number("start", -_LONGEST_S, _LONGEST_S))
    texts = [s.text("text") for s in supervisions if s.data.get("text") is not None]
    if need_text and not texts:
        raise InputError(f"{where}: a cut without a text; its supervisions must have one")
    extra = {"utterance": cut.text("id"), "sample_rate": recording.data.get("sampling_rate")}
    speakers = {s.data["speaker"] for s in supervisions if s.data.get("speaker")}
    if len(speakers) == 1:
        extra["speaker"] = speakers.pop()
    start_s, duration_s = (cut.number(key, 0, _LONGEST_S) for key in ("start", "duration"))
    return Utterance(_file(recording, where, folder), " ".join(texts), duration_s, extra, start_s)


def _file(recording: Table, where: str, folder: Path) -> Path:
    """The recording's file: from the manifest's folder or, as in Lhotse, from the working folder."""
    sources = recording.tables("sources", 1000)
    if len(sources) != 1 or sources[0].data.get("type") != "file":
        raise _not_plain(where, "a recording that is not one file")
    name = sources[0].text("source")
    paths = [folder / name, Path(name)]
    return next((path for path in paths if path.is_file()), paths[0])


def _not_plain(where: str, what: str) -> InputError:
    return InputError(
        f"{where}: {what}; only parts of files are read, store it with Lhotse's save_audios first"
    )
