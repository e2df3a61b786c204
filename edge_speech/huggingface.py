"""Hugging Face data sets on this disk: `save_to_disk` folders, Parquet and Arrow files with audio inside.

pyarrow reads them; the datasets package is not needed. Audio is a struct of `bytes` (a file's content) and
`path`: https://huggingface.co/docs/datasets/audio_dataset
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_speech.audio import decode_audio, read_audio
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_dataset(path: Path) -> bool:
    """Whether a path looks like such a data set."""
    if path.is_dir():
        return any((path / name).is_file() for name in (_STATE, _SPLITS)) or any(path.glob("*.parquet"))
    return path.suffix in (".parquet", ".arrow")


def read_dataset(path: Path, need_text: bool = True) -> list[Utterance]:
    """The rows of a data set; its text is the first of `TEXT_COLUMNS`. Raises InputError."""
    return [utterance for file in _files(path) for utterance in _rows(file, need_text)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / _SPLITS).is_file():
        splits = ", ".join(sorted(p.parent.name for p in path.glob(f"*/{_STATE}")))
        raise InputError(f"{path} has the splits {splits}; give one of them, for example {path}/train")
    if not (path / _STATE).is_file():
        return sorted(path.glob("*.parquet"))
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        return [path / file["filename"] for file in state["_data_files"]]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path / _STATE}: damaged; save the data set again") from None


def _rows(path: Path, need_text: bool) -> list[Utterance]:
    table = Table(path)
    names = table.columns
    text = next((name for name in TEXT_COLUMNS if name in names), None)
    if need_text and text is None:
        raise InputError(
            f"{path}: no text in the columns {', '.join(names)}; rename one of them to {TEXT_COLUMNS[0]!r}"
        )
    speaker = next((name for name in _SPEAKER_COLUMNS if name in names), None)
    kept = {k: v for k, v in {"text": text, "speaker": speaker}.items() if v is not None}
    utterances = []
    for row, values in enumerate(table.values(list(kept.values()))):
        said = values[text] if text else ""
        if not isinstance(said, str) and (need_text or said is not None):
            raise InputError(f"{path}: row {row}: {text!r} must be a string, got {said!r}")
        extra = {"speaker": str(values[speaker])} if speaker else {}
        utterances.append(Utterance(path, said or "", extra=extra, stored=StoredAudio(table, row)))
    return utterances


@dataclass(frozen=True)
class StoredAudio:
    """The audio of one row."""

    table: Table
    row: int

    @property
    def name(self) -> str:
        """Which one it is in the file."""
        return f"row {self.row}"

    def read(self) -> tuple[FloatArray, int]:
        """Samples (N,) and their rate in Hz. Raises InputError as `read_audio` does."""
        where = f"{self.table.path}: {self.name}"
        audio = self.table.audio(self.row)
        if audio and audio["bytes"]:
            return decode_audio(audio["bytes"], where)
        if audio and audio["path"]:
            return read_audio(self.table.path.parent / audio["path"])
        raise InputError(f"{where}: no audio; remove the row")


class Table:
    """A file of rows. Arrow is mapped into memory; of Parquet one group of rows is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group, self._rows = -1, None
        pyarrow = _pyarrow(path)
        try:
            if path.suffix == ".parquet":
                self._file = importlib.import_module("pyarrow.parquet").ParquetFile(path, memory_map=True)
                schema = self._file.schema_arrow
            else:
                self._file = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
                schema = self._file.schema
        except (OSError, pyarrow.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: not a data set ({reason}); save it again") from None
        self._audio = _audio_column(schema, path)
        self.columns = [name for name in schema.names if name != self._audio]

    def __reduce__(self) -> tuple[type[Table], tuple[Path]]:
        return Table, (self.path,)  # opened anew in another process

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def values(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """All rows of these columns."""
        if not columns:
            count = self._file.metadata.num_rows if self._is_parquet else self._file.num_rows
            return [{} for _ in range(count)]
        chosen = self._file.read(list(columns)) if self._is_parquet else self._file.select(list(columns))
        rows: list[dict[str, Any]] = chosen.to_pylist()
        return rows

    def audio(self, row: int) -> dict[str, Any] | None:
        """`bytes` and `path` of a row."""
        found: dict[str, Any] | None
        if not self._is_parquet:
            found = self._file.column(self._audio)[row].as_py()
            return found
        group = 0
        while row >= (count := self._file.metadata.row_group(group).num_rows):
            row, group = row - count, group + 1
        if self._group != group:
            self._group, self._rows = (
                group,
                self._file.read_row_group(group, [self._audio], use_threads=False).column(0),
            )
        assert self._rows is not None
        found = self._rows[row].as_py()
        return found


def _audio_column(schema: Any, path: Path) -> str:
    for column in schema:
        inner = {column.type.field(i).name for i in range(column.type.num_fields)}
        if {"bytes", "path"} <= inner:
            return str(column.name)
    raise InputError(f"{path}: no audio in the columns {', '.join(schema.names)}; see datasets.Audio")


def _pyarrow(path: Path) -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise InputError(
            f'{path}: reading it needs pyarrow; install it with `pip install "edge-speech[huggingface]"`'
        ) from None
