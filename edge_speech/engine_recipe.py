"""engine.toml: how a TensorRT engine is built on the device from the typed ONNX beside it.

`encoder.fp16.onnx` has `encoder.fp16.engine.toml`. The host writes it, `edge-speech build-engine` reads it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError
from edge_speech.fields import Table
from edge_speech.target import read_toml

FORMAT = "edge-speech-engine"
VERSION = 1
SUFFIX = ".engine.toml"
PRECISIONS = ("fp16", "int8-static")
# The oldest whose tensors have addresses by name (`set_tensor_address`, `execute_async_v3`):
# https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-853/release-notes/index.html
OLDEST = (8, 5)
GPU_ALONE = -1
_LARGEST_DIMENSION = 1 << 26


@dataclass(frozen=True)
class Profile:
    """Smallest, usual and largest shape of one input; a stream's shapes are fixed, so the three are one."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class EngineRecipe:
    """How to build one engine.

    `tensorrt_minimum` is the oldest TensorRT of the target. `typed`: the graph's types are the engine's (from
    TensorRT 10 on). `dla_core` is -1 for the GPU alone; what a DLA core cannot run goes to the GPU where
    `gpu_fallback`. `sparse_weights` lets 2:4 sparse kernels be tried. The last two make an engine that more
    versions or boards load, at some cost in speed. `timing_cache` is the beginning of a file's name.
    """

    onnx: str
    onnx_sha256: str
    precision: str
    profiles: tuple[Profile, ...]
    tensorrt_minimum: str
    typed: bool = True
    workspace_mib: int = 256
    timing_cache: str = "timing"
    dla_core: int = GPU_ALONE
    gpu_fallback: bool = True
    sparse_weights: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False


def profiles_of(spec: StreamingSpec) -> tuple[Profile, ...]:
    """The fixed shapes of a step's inputs: features (1, window, F) and every state tensor."""
    return tuple(Profile(name, shape, shape, shape) for name, (_, shape) in spec.inputs().items())


def version_of(text: str) -> tuple[int, ...]:
    """(10, 3, 0) of "10.3.0.30"; of what is no version, ()."""
    found = re.match(r"\d+(?:\.\d+){0,2}", text)
    return tuple(map(int, found.group().split("."))) if found else ()


def as_toml(recipe: EngineRecipe) -> str:
    """The recipe as the text of engine.toml."""
    keys = [field.name for field in fields(recipe) if field.name != "profiles"]
    lines = [f"format = {_value(FORMAT)}", f"version = {VERSION}"]
    lines += [f"{key} = {_value(getattr(recipe, key))}" for key in keys]
    for profile in recipe.profiles:
        lines += ["", "[[profiles]]"]
        lines += [f"{field.name} = {_value(getattr(profile, field.name))}" for field in fields(profile)]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def read_recipe(path: Path) -> EngineRecipe:
    """Read engine.toml. Raises InputError on anything missing, odd or unknown."""
    table = Table.of(read_toml(path), str(path))
    names = tuple(field.name for field in fields(EngineRecipe))
    table.only("format", "version", *names)
    if table.text("format") != FORMAT:
        raise table.wrong("format", repr(FORMAT))
    if table.integer("version", 0, 1 << 30) != VERSION:
        raise table.wrong("version", f"{VERSION}, the one this edge-speech reads")
    if table.text("precision") not in PRECISIONS:
        raise table.wrong("precision", f"one of {', '.join(PRECISIONS)}")
    if len(version_of(table.text("tensorrt_minimum"))) < 2:
        raise table.wrong("tensorrt_minimum", 'a version such as "10.3"')
    if not re.fullmatch(r"[\w-]{1,60}", table.text("timing_cache"), re.ASCII):
        raise table.wrong("timing_cache", "letters, digits, - and _")
    profiles = tuple(_profile(one) for one in table.tables("profiles", 4097))
    if not profiles:
        raise table.wrong("profiles", "a table for each input")
    return EngineRecipe(
        onnx=table.text("onnx"),
        onnx_sha256=table.text("onnx_sha256"),
        precision=table.text("precision"),
        profiles=profiles,
        tensorrt_minimum=table.text("tensorrt_minimum"),
        typed=table.boolean("typed"),
        workspace_mib=table.integer("workspace_mib", 1, 1 << 20),
        timing_cache=table.text("timing_cache"),
        dla_core=table.integer("dla_core", GPU_ALONE, 15),
        gpu_fallback=table.boolean("gpu_fallback"),
        sparse_weights=table.boolean("sparse_weights"),
        version_compatible=table.boolean("version_compatible"),
        hardware_compatible=table.boolean("hardware_compatible"),
    )


def _profile(table: Table) -> Profile:
    table.only("name", "min", "opt", "max")
    least, usual, most = (table.integers(key, 8, 1, _LARGEST_DIMENSION) for key in ("min", "opt", "max"))
    ordered = all(a <= b <= c for a, b, c in zip(least, usual, most, strict=False))
    if not len(least) == len(usual) == len(most) or not ordered:
        raise InputError(f"{table.where}: min, opt and max must be shapes of one rank, none above the next")
    return Profile(table.text("name"), least, usual, most)
