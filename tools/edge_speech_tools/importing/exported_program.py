"""A torch.export archive (.pt2) that holds nothing but tensors and operators of ATen.

`torch.export.load` unpickles whatever it finds and evaluates the expressions of dynamic shapes, so a
stranger's file could run any code: https://docs.pytorch.org/docs/stable/export/api_reference.html. What
could is looked for first, in the archive itself, and refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from edge_speech.errors import InputError
from edge_speech_tools.onnx_graph import quiet

_MAX_BYTES = 4 << 30
_MAX_JSON = 256 << 20
_NAMES = (
    r"archive_format", r"archive_version", r"byteorder", r"version", r"\.format_version",
    r"\.storage_alignment", r"\.data/(serialization_id|version)",
    r"models/[\w.-]+\.json", r"data/sample_inputs/[\w.-]+\.pt",
    r"data/(weights|constants)/[\w.-]+", r"extra/[\w./-]+",
)  # fmt: skip
_OPERATORS = re.compile(r"torch\.ops\.(aten|prims)\.[\w.]+|_operator\.getitem")


def load_exported(path: Path) -> torch.export.ExportedProgram:
    """Open a .pt2 file. Raises InputError on anything in it that could run code, or that is not whole."""
    try:
        _check_archive(path)
        with quiet():
            return torch.export.load(path)
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a whole torch.export archive ({reason})") from error


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
            raise InputError(f"{path} unpacks to more than {_MAX_BYTES} bytes")
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            if not any(re.fullmatch(pattern, name) for pattern in _NAMES):
                raise InputError(f"{path} holds {entry.filename[:80]!r}, no part of a plain exported model")
            if name.endswith(".json"):
                _check_json(path, name, _json(path, archive, entry))
            elif name.startswith("data/sample_inputs/"):
                _check_tensors(path, entry.filename, archive.read(entry))
            elif name.startswith("data/") and name.endswith(".pt"):
                raise InputError(f"{path} holds pickled weights, {entry.filename!r}; export it again")


def _json(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    if entry.file_size > _MAX_JSON:
        raise InputError(
            f"{path}: {entry.filename} has {entry.file_size} bytes, at most {_MAX_JSON} are read"
        )
    return json.loads(archive.read(entry))


def _check_json(path: Path, name: str, document: Any) -> None:
    """Graphs and the lists of weights: no pickles, no expressions, no operators but ATen's."""
    for key, value in _pairs(document):
        if key == "use_pickle" and value:
            raise InputError(f"{path}: {name} asks for a pickle, which could run code; export plain tensors")
        if key == "expr_str":
            raise InputError(
                f"{path} has dynamic shapes; export it with fixed ones, for batch 1 and one chunk"
            )
        if key == "target" and isinstance(value, str) and not _OPERATORS.fullmatch(value):
            raise InputError(f"{path} calls {value[:80]!r}; an exported model has operators of ATen alone")


def _pairs(document: Any) -> Iterator[tuple[str, Any]]:
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _check_tensors(path: Path, name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: {name} holds more than tensors, which could run code") from error
