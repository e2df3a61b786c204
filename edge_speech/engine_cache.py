"""Engines built on this device: in the folder `engines` of the bundle, each with a note of what it is.

An engine is good for one TensorRT version, one GPU and one bundle. Loading an engine runs what is in it: take
a bundle's `engines` from nobody else (`edge-speech pack` leaves the folder out).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edge_speech.bundle import Artifact, Bundle, as_json, sha256_of
from edge_speech.engine_recipe import GPU_ALONE, EngineRecipe
from edge_speech.errors import EngineRefused, InputError
from edge_speech.fields import Table
from edge_speech.gpu import Gpu, open_gpu

FOLDER = "engines"
_SUFFIX = ".engine"


@dataclass(frozen=True)
class Key:
    """What an engine is good for; where any of it differs the engine is built anew."""

    tensorrt_version: str
    gpu_name: str
    compute_capability: str
    bundle_sha256: str


@dataclass(frozen=True)
class Options:
    """What the person at the device chose; another choice builds the engine anew."""

    dla_core: int = GPU_ALONE
    power_mode: str | None = None


@dataclass(frozen=True)
class Note:
    """What stands beside an engine, in `NAME.json`."""

    key: Key
    options: Options
    artifact: str
    sha256: str
    version_compatible: bool = False


def tensorrt_module() -> Any:
    """TensorRT's Python package. Raises InputError where it does not load."""
    try:
        import tensorrt
    except ImportError as error:
        raise InputError(
            f"TensorRT's Python package does not load here ({error}); on a Jetson it comes with JetPack "
            "(`sudo apt-get install python3-libnvinfer`), and a virtual environment sees it when made with "
            "--system-site-packages"
        ) from None
    return tensorrt


def key_of(bundle: Bundle, tensorrt_version: str, gpu: Gpu) -> Key:
    """Of an engine of this bundle, built here."""
    sha256 = as_json(bundle.manifest)["sha256"]
    return Key(tensorrt_version, gpu.name, gpu.compute_capability, sha256)


def engine_path(bundle: Bundle, artifact: Artifact, key: Key) -> Path:
    """Where the engine with this key is, or shall be."""
    text = json.dumps(asdict(key), sort_keys=True)
    return (
        bundle.root / FOLDER / f"{_stem(artifact)}.{hashlib.sha256(text.encode()).hexdigest()[:16]}{_SUFFIX}"
    )


def timing_name(recipe: EngineRecipe, key: Key) -> str:
    """The file beside the engines that keeps how fast kernels were, for later builds."""
    return f"{recipe.timing_cache}-{key.tensorrt_version}-{key.compute_capability}.cache"


def has_engine(bundle: Bundle, artifact: Artifact) -> bool:
    """Whether any engine was built from `artifact`, here or elsewhere; loads nothing."""
    return bool(_engines(bundle, artifact))


def find_engine(bundle: Bundle, artifact: Artifact) -> Path:
    """The engine for this device. Raises EngineRefused when there is none, or nothing that could run it."""
    try:
        here = key_of(bundle, tensorrt_module().__version__, open_gpu())
    except InputError as error:
        raise EngineRefused(str(error)) from None
    path = engine_path(bundle, artifact, here)
    if path.is_file():
        return path
    others = [read_note(path).key for path in _engines(bundle, artifact)]
    built = f"the engine was built for {_where(others[0], here)}" if others else "no engine was built yet"
    raise EngineRefused(
        f"{bundle.root}: {built}, this is {_where(here, others[0] if others else here)}; "
        f"build it with `{command(bundle, artifact)}`"
    )


def command(bundle: Bundle, artifact: Artifact) -> str:
    """What builds the engine."""
    return f"edge-speech build-engine {shlex.quote(str(bundle.root))} --precision {artifact.precision}"


def read_note(engine: Path) -> Note:
    """What stands beside an engine. Raises EngineRefused when that is missing or odd."""
    path = engine.with_suffix(".json")
    try:
        table = Table.of(json.loads(path.read_text(encoding="utf-8")), str(path))
        key, options = table.table("key"), table.table("options")
        mode = None if options.data.get("power_mode") is None else options.text("power_mode")
        return Note(
            key=Key(**{field.name: key.text(field.name) for field in fields(Key)}),
            options=Options(options.integer("dla_core", GPU_ALONE, 15), mode),
            artifact=table.text("artifact"),
            sha256=table.text("sha256"),
            version_compatible=table.boolean("version_compatible"),
        )
    except (OSError, ValueError, RecursionError) as error:
        raise EngineRefused(f"{engine}: its note cannot be read ({error}); build the engine again") from None


def read_engine(engine: Path) -> tuple[bytes, Note]:
    """An engine and its note. Raises EngineRefused when it is not what was built."""
    note = read_note(engine)
    if sha256_of(engine) != note.sha256:
        raise EngineRefused(f"{engine}: its SHA-256 is not the one in its note; build the engine again")
    return engine.read_bytes(), note


def write_note(
    engine: Path, key: Key, options: Options, artifact: Artifact, version_compatible: bool
) -> None:
    """Describe the engine already written."""
    note = Note(key, options, artifact.path, sha256_of(engine), version_compatible)
    engine.with_suffix(".json").write_text(json.dumps(asdict(note), indent=1) + "\n", encoding="utf-8")


@contextmanager
def new_engine(path: Path) -> Iterator[Path]:
    """Yield a temporary name for an engine; it becomes `path`, with its note, when the block ends well."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent, ignore_cleanup_errors=True) as work:
        fresh = Path(work) / path.name
        yield fresh
        os.replace(fresh.with_suffix(".json"), path.with_suffix(".json"))
        os.replace(fresh, path)


def _engines(bundle: Bundle, artifact: Artifact) -> list[Path]:
    found = sorted((bundle.root / FOLDER).glob(f"*{_SUFFIX}"))
    return [path for path in found if path.stem.rpartition(".")[0] == _stem(artifact)]


def _stem(artifact: Artifact) -> str:
    return artifact.path.removesuffix(".onnx").replace("/", "-")


def _where(key: Key, other: Key) -> str:
    """The device of `key`, and the bundle where that alone differs."""
    device = f"TensorRT {key.tensorrt_version} on {key.gpu_name} ({key.compute_capability})"
    other_bundle = key.bundle_sha256 != other.bundle_sha256
    return f"bundle {key.bundle_sha256[:8]} and {device}" if other_bundle else device
