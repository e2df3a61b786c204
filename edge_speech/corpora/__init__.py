"""Corpora, one file each: `edge_speech/corpora/NAME.py` has `read(folder) -> Corpus` and its `SOURCE`.

`ARCHIVES`, where their publisher or a well-known library names them, are SHA-256 sums of what is downloaded.
`read` looks at the official layout, unpacked in `folder`, and raises InputError on what is incomplete.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from edge_speech.corpus import Corpus
from edge_speech.errors import InputError


def available() -> list[str]:
    """Names of the corpora there is a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def read_corpus(name: str, folder: Path) -> Corpus:
    """Read the corpus `name`. Raises InputError."""
    if name not in available():
        raise InputError(f"unknown corpus {name!r}; known: {', '.join(available())}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one where {name} was unpacked")
    corpus: Corpus = importlib.import_module(f"edge_speech.corpora.{name}").read(folder)
    return corpus


def archives(name: str) -> Mapping[str, str]:
    """SHA-256 of the archives that the corpus `name` comes in; none where none is known."""
    return getattr(importlib.import_module(f"edge_speech.corpora.{name}"), "ARCHIVES", {})
