"""A corpus in its official layout → one NeMo manifest for each official split."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_speech.audio import read_length
from edge_speech.corpora import archives, read_corpus
from edge_speech.corpus import check_files
from edge_speech.corpus_archives import check_archives
from edge_speech.lm.output import check_output, replaced
from edge_speech.progress import track
from edge_speech.utterance import Utterance


def prepare(
    name: str, folder: Path, output: Path, force: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Write OUTPUT/SPLIT.jsonl; durations are the headers'. Raises InputError before anything is written.

    → {"corpus", "splits": [{"manifest", "utterances", "hours"}], "absent": what else is official, "archives":
    those that lie there and are whole}
    """
    corpus = read_corpus(name, folder)
    checked = check_archives(archives(name), folder, quiet)
    for utterances in corpus.splits.values():
        check_files(utterances)
    output.mkdir(parents=True, exist_ok=True)
    paths = {split: output / f"{split}.jsonl" for split in corpus.splits}
    for path in paths.values():
        check_output(path, force)
    rows = {split: _rows(us, output, split, quiet) for split, us in corpus.splits.items()}
    splits = [_write(of_split, paths[split]) for split, of_split in rows.items()]
    return {"corpus": name, "splits": splits, "absent": list(corpus.absent), "archives": checked}


def _rows(utterances: Sequence[Utterance], folder: Path, label: str, quiet: bool) -> list[dict[str, Any]]:
    rows = []
    for utterance in track(utterances, label, quiet):
        length, sample_rate = read_length(utterance.audio_path)
        row: dict[str, Any] = {"audio_filepath": _name(utterance.audio_path, folder)}
        row |= {"duration": round(length / sample_rate, 4), "sample_rate": sample_rate}
        rows.append(row | ({"text": utterance.text} if utterance.text else {}) | dict(utterance.extra))
    return rows


def _write(rows: Sequence[dict[str, Any]], path: Path) -> dict[str, Any]:
    with replaced(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    hours = sum(row["duration"] for row in rows) / 3600
    return {"manifest": str(path), "utterances": len(rows), "hours": round(hours, 4)}


def _name(audio: Path, folder: Path) -> str:
    """Relative where the audio lies below the manifest, so that both can move; absolute elsewhere."""
    audio, folder = Path(os.path.abspath(audio)), Path(os.path.abspath(folder))
    return audio.relative_to(folder).as_posix() if audio.is_relative_to(folder) else str(audio)
