"""Engines, one file each: `edge_speech/backends/NAME.py` has `load(path, spec, num_threads) -> Encoder`."""

from __future__ import annotations

import importlib
from pathlib import Path

from edge_speech.encoder import Encoder, StreamingSpec
from edge_speech.errors import InputError


def load_encoder(backend: str, path: Path, spec: StreamingSpec, num_threads: int = 1) -> Encoder:
    """Load the artifact at `path` with the engine named `backend`. Raises InputError."""
    known = available()
    if backend not in known:
        raise InputError(f"unknown backend {backend!r}; this install knows {', '.join(known)}")
    module = importlib.import_module(f"edge_speech.backends.{backend}")
    encoder: Encoder = module.load(path, spec, num_threads)
    return encoder


def available() -> list[str]:
    """Names of the engines this install has a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")
