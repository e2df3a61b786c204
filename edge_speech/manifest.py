"""Data manifests: JSON lines in NeMo's form, `{"audio_filepath", "duration", "text", …}`; Kaldi directories;
Lhotse's cuts; Hugging Face data sets.

With an `offset` (seconds) an entry is the part of the file that begins there and lasts `duration`.

Form: https://docs.nvidia.com/nemo-framework/user-guide/latest/nemotoolkit/asr/datasets.html
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.huggingface import is_dataset, read_dataset
from edge_speech.kaldi_directory import read_kaldi_directory
from edge_speech.lhotse_cuts import is_cut, parse_cut
from edge_speech.utterance import Utterance

__all__ = ["Utterance", "read_manifest"]


def read_manifest(path: Path | str, need_text: bool = True) -> list[Utterance]:
    """Read a manifest, its audio paths relative to it.

    JSON lines in NeMo's form or Lhotse's cuts, either also as `.gz`; a Kaldi directory; a Hugging Face data
    set (`save_to_disk`, Parquet). Raises InputError that names the line.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such manifest; expected a file of JSON lines with audio_filepath, duration, text, "
            "a Kaldi directory, Lhotse's cuts or a Hugging Face data set"
        )
    if is_dataset(path):
        utterances = read_dataset(path, need_text)
    elif path.is_dir():
        utterances = read_kaldi_directory(path, need_text)
    else:
        utterances = list(_parse(path, need_text))
    if not utterances:
        raise InputError(
            f"{path}: an empty manifest; it needs at least one JSON line with audio_filepath and text"
        )
    return utterances


def _parse(path: Path, need_text: bool) -> Iterator[Utterance]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse_line(line, f"{path}:{number}", path.parent, need_text)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); copy it again") from None


def _parse_line(line: str, where: str, folder: Path, need_text: bool) -> Utterance:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); each line is one object") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {type(data).__name__}")
    if is_cut(data):
        return parse_cut(data, where, folder, need_text)
    name = data.pop("audio_filepath", None)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: 'audio_filepath' must be a non-empty string, got {name!r}")
    text = data.pop("text", None)
    if not isinstance(text, str) and (need_text or text is not None):
        raise InputError(f"{where}: 'text' must be a string, got {text!r}")
    duration_s, offset_s = (_seconds(data, key, where) for key in ("duration", "offset"))
    return Utterance(folder / name, text or "", duration_s, data, offset_s)


def _seconds(data: dict[str, object], key: str, where: str) -> float | None:
    value = data.pop(key, None)
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise InputError(f"{where}: {key!r} must be seconds, got {value!r}")
    return float(value)  # type: ignore[arg-type]
