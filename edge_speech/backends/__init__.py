"""Engines, one file each: `edge_speech/backends/NAME.py` has `load(path, spec, num_threads) -> Encoder`.

Each file also names the module it needs (`REQUIRES`) and the pip extra that brings it (`EXTRA`), and imports
it only inside `load`.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from edge_speech.encoder import Encoder, StreamingSpec
from edge_speech.errors import InputError


def load_encoder(backend: str, path: Path, spec: StreamingSpec, num_threads: int = 1) -> Encoder:
    """Load the artifact at `path` with the engine named `backend`. Raises InputError."""
    problem = missing(backend)
    if problem:
        raise InputError(problem)
    module = importlib.import_module(f"edge_speech.backends.{backend}")
    encoder: Encoder = module.load(path, spec, num_threads)
    return encoder


def available() -> list[str]:
    """Names of the engines this install has a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def missing(backend: str) -> str | None:
    """Why `backend` cannot run in this install, in one line; None when it can."""
    known = available()
    if backend not in known:
        return f"unknown backend {backend!r}; this install knows {', '.join(known)}"
    module = importlib.import_module(f"edge_speech.backends.{backend}")
    if importlib.util.find_spec(module.REQUIRES) is None:
        return f"backend {backend!r} needs {module.REQUIRES}; install it with `{module.EXTRA}`"
    return None
