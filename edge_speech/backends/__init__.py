"""Engines, one file each: `edge_speech/backends/NAME.py` has `load(path, spec, num_threads) -> Encoder`.

Each file also names the modules it needs (`REQUIRES`) and what brings them (`EXTRA`), and imports them only
inside `load`. One whose engines are built on the device has `has_engine(bundle, artifact)` and
`find_engine(bundle, artifact)`, the path that `load` takes. `RUNS` names the backends whose artifacts an
engine loads beside those of its own name; with `ON_REQUEST = True` it does so only when it is named.
`obstacle()`, if there, says what else it lacks here, or None.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from edge_speech.bundle import Artifact, Bundle
from edge_speech.encoder import Encoder, StreamingSpec
from edge_speech.errors import InputError


def load_artifact(bundle: Bundle, artifact: Artifact, num_threads: int = 1) -> Encoder:
    """Load an artifact of a bundle, or the engine that was built from it on this device.

    Raises InputError; of it EngineRefused for an engine that is not for this device, or damaged.
    """
    problem = missing(artifact.backend)
    if problem:
        raise InputError(problem)
    path = bundle.verified_path(artifact)
    if artifact.status == "planned":
        path = _module(artifact.backend).find_engine(bundle, artifact)
    return load_encoder(artifact.backend, path, bundle.manifest.encoder, num_threads)


def has_engine(bundle: Bundle, artifact: Artifact) -> bool:
    """Whether an engine was built from a planned artifact; only loading it tells whether for this device."""
    if artifact.status != "planned" or artifact.backend not in available():
        return False
    module = _module(artifact.backend)
    return hasattr(module, "has_engine") and module.has_engine(bundle, artifact)


def load_encoder(backend: str, path: Path, spec: StreamingSpec, num_threads: int = 1) -> Encoder:
    """Load the artifact at `path` with the engine named `backend`. Raises InputError."""
    problem = missing(backend)
    if problem:
        raise InputError(problem)
    encoder: Encoder = _module(backend).load(path, spec, num_threads)
    return encoder


def others(artifacts: Iterable[Artifact], on_request: bool = False) -> list[Artifact]:
    """The artifacts as further engines, installed or not, load their files: the same path, and the engine's
    name as `backend`. Engines that want to be named are among them with `on_request`."""
    engines = [(name, _module(name)) for name in available()]
    return [
        replace(artifact, backend=name)
        for artifact in artifacts
        for name, engine in engines
        if artifact.backend in getattr(engine, "RUNS", ())
        and (on_request or not getattr(engine, "ON_REQUEST", False))
    ]


def available() -> list[str]:
    """Names of the engines this install has a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def missing(backend: str) -> str | None:
    """Why `backend` cannot run in this install, in one line; None when it can."""
    known = available()
    if backend not in known:
        return f"unknown backend {backend!r}; this install knows {', '.join(known)}"
    module = _module(backend)
    absent = [name for name in module.REQUIRES.split() if importlib.util.find_spec(name) is None]
    if absent:
        return f"backend {backend!r} needs {absent[0]}; install it with `{module.EXTRA}`"
    problem: str | None = module.obstacle() if hasattr(module, "obstacle") else None
    return problem


def _module(backend: str) -> ModuleType:
    return importlib.import_module(f"edge_speech.backends.{backend}")
