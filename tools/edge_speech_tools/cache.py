"""What a run made, kept by the content of what it was made from: the next run does only what changed.

An entry is a folder: its files, and `entry.json` with a value and the SHA-256 of everything. It is written
under a temporary name and renamed, so it is whole or not there; a changed one is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_speech.bundle import sha256_of

_ENTRY = "entry.json"
_FILLED = ".filled-by-its-step"
_TEMPORARY = ".new-"


def key_of(*parts: Any) -> str:
    """SHA-256 (hex) of plain data; what is no JSON counts as its text."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A finished step: its value (plain data), and the folder that holds its files."""

    folder: Path
    value: Any
    files: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """Entries in one folder. `used` collects the names of what this run read or wrote."""

    folder: Path
    used: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)

    def get(self, step: str, key: str) -> Entry | None:
        """The entry of a step, None when it is not there, incomplete or changed."""
        folder = self.folder / _name(step, key)
        entry = _read(folder)
        if entry is not None:
            self.used.add(folder.name)
        return entry

    def put(self, step: str, key: str, value: Any, files: Iterable[Path] = ()) -> Entry:
        """Keep a value and copies of `files` (by their names). Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / _name(step, key)
        with tempfile.TemporaryDirectory(
            prefix=_TEMPORARY, dir=self.folder, ignore_cleanup_errors=True
        ) as work:
            new = Path(work) / "entry"
            new.mkdir()
            copies = [Path(shutil.copyfile(path, new / path.name)) for path in files]
            hashes = {path.name: sha256_of(path) for path in copies}
            document = {"value": value, "files": hashes, "sha256": key_of(value, hashes)}
            (new / _ENTRY).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            if _read(folder) is None:  # another process may have been first
                shutil.rmtree(folder, ignore_errors=True)
                new.rename(folder)
        self.used.add(folder.name)
        self.made.add(folder.name)
        return Entry(folder, value, tuple(hashes))

    def value(self, step: str, key: str, make: Callable[[], Any]) -> Any:
        """The value of a step, made when it is not there."""
        found = self.get(step, key)
        return found.value if found is not None else self.put(step, key, make()).value

    def folder_of(self, step: str, key: str, make: bool = True) -> Path:
        """A folder that a step fills itself, over several runs. Raises OSError."""
        folder = self.folder / _name(step, key)
        if make:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _FILLED).touch()
        self.used.add(folder.name)
        return folder

    def keep(self, step: str, key: str) -> None:
        """An entry that this run did not read, as all that needs it is there, but a next one may."""
        self.used.add(_name(step, key))

    def drop_unused(self) -> None:
        """Remove every entry that this run did not use, and what an interrupted one left half written."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.name not in self.used and (
                folder.name.startswith(_TEMPORARY)
                or (folder / _ENTRY).is_file()
                or (folder / _FILLED).is_file()
            ):
                shutil.rmtree(folder, ignore_errors=True)


def _name(step: str, key: str) -> str:
    return f"{step.replace('/', '-')}.{key[:32]}"


def _read(folder: Path) -> Entry | None:
    try:
        document = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
        value, files = document["value"], document["files"]
        if document["sha256"] != key_of(value, files):
            return None
        if any(sha256_of(folder / name) != sha256 for name, sha256 in files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Entry(folder, value, tuple(files))
