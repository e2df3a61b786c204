"""Decoded recordings on disk: one `.npy` of float32 samples each, mapped into memory by whoever reads it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import resample
from edge_speech.utterance import Utterance

_CHECKSUM_BYTES = 4  # CRC-32 of the samples, after them, where np.load does not look


class AudioCache:
    """A folder of decoded recordings, shared by processes and runs. Raises InputError if it cannot be made.

    An entry is found by the file's path, size and time of change, the part of it, the sample rate and the
    versions of what decoded it, so that it is never stale. It is written under another name and renamed, and
    checked when a process first reads it: what is cut off or damaged is made anew. When the disk is full, one
    line is printed and recordings are decoded as without a cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"data.cache is {folder}, which cannot be made ({error.strerror}); name another"
            ) from None
        self._made_by = [_version(package) for package in ("edge-speech", "soundfile")]
        self._checked: set[Path] = set()
        self._full = multiprocessing.Value("b", False)  # shared with the workers, which tell it once

    def read(self, utterance: Utterance, sample_rate: int) -> FloatArray:
        """Samples (N,) at `sample_rate`, read-only. Raises InputError as `Utterance.read` does."""
        path = self._path(utterance, sample_rate)
        if path is not None and (stored := self._load(path)) is not None:
            return stored
        samples = resample(*utterance.read(), sample_rate)
        if path is not None and not self._full.value:
            self._store(path, samples)
        return samples

    def _path(self, utterance: Utterance, sample_rate: int) -> Path | None:
        """Where the entry is; None when the recording is not there."""
        try:
            file = utterance.audio_path.stat()
        except OSError:
            return None
        part: object = None if utterance.offset_s is None else (utterance.offset_s, utterance.duration_s)
        identity = [
            os.path.abspath(utterance.audio_path),
            utterance.name,
            file.st_size,
            file.st_mtime_ns,
            part,
            sample_rate,
        ]
        key = hashlib.sha256(json.dumps([*identity, *self._made_by]).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"

    def _load(self, path: Path) -> FloatArray | None:
        """The samples of an entry; None when there is none to be trusted."""
        try:
            samples: FloatArray = np.load(path, mmap_mode="r").view(np.ndarray)
            if path not in self._checked and not _is_sound(path, samples):
                return None
        except (OSError, ValueError, EOFError):
            return None
        self._checked.add(path)
        return samples

    def _store(self, path: Path, samples: FloatArray) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            with part.open("wb") as file:
                np.save(file, samples)
                file.write(_checksum(samples))
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            with self._full.get_lock():
                told, self._full.value = self._full.value, True
            if not told:
                print(f"data.cache: {self.folder} takes no more ({error.strerror or error})", file=sys.stderr)


def _is_sound(path: Path, samples: FloatArray) -> bool:
    if samples.ndim != 1 or samples.dtype != np.float32:
        return False
    with path.open("rb") as file:
        file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
        return file.read() == _checksum(samples)


def _checksum(samples: FloatArray) -> bytes:
    return zlib.crc32(np.ascontiguousarray(samples).data).to_bytes(_CHECKSUM_BYTES, "little")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
