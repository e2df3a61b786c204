"""Typed fp16 ONNX and the recipe that builds a TensorRT engine from it on the board.

An engine runs only with the TensorRT version and on the GPU model it was built for, so none is built here:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
The graph carries its precision in its types; STRONGLY_TYPED networks take it from there:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/capabilities.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edge_speech.bundle import sha256_of
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_fp16 import to_fp16
from edge_speech_tools.passes import PassResult, Source

BACKEND = "tensorrt"
PRECISION = "fp16"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.fp16.onnx"
RECIPE_NAME = "tensorrt_recipe.json"
ENGINE_NAME = "encoder.fp16.engine"


@dataclass(frozen=True)
class Config:
    """`fp32_op_types` stay float32: sums of squares and of exponentials overflow or lose digits in fp16.

    Inputs, outputs and state stay float32 with a cast at the border, so the stream's spec is the same for
    every artifact of a bundle.
    """

    fp32_op_types: tuple[str, ...] = ("LayerNormalization", "LogSoftmax", "ReduceMean", "Pow", "Sqrt")


def run(source: Source, config: Config = Config()) -> PassResult:
    """Convert the fp32 graph in `source.directory` and write the build recipe. Raises CheckFailed."""
    path = source.directory / FILE_NAME
    fp32 = onnx.load(source.directory / streaming_onnx.FILE_NAME)
    onnx.save(to_fp16(fp32, config.fp32_op_types), path)
    check_graph(path, source.spec)
    recipe = source.directory / RECIPE_NAME
    recipe.write_text(json.dumps(build_recipe(path, source.recipe), indent=1) + "\n", encoding="utf-8")
    command = command_line(int(source.recipe.get("tensorrt_major", 10)), path.name)
    return PassResult(path, BACKEND, PRECISION, "planned", "onnxruntime", command, (recipe,))


def command_line(major: int, onnx_name: str) -> str:
    """The trtexec call of one TensorRT generation: from 10 on the graph's types rule, 8 wants a flag."""
    precision = "--fp16" if major < 10 else "--stronglyTyped"
    return f"trtexec --onnx={onnx_name} --saveEngine={ENGINE_NAME} {precision}"


def build_recipe(path: Path, device: Mapping[str, Any]) -> dict[str, Any]:
    """How to build the engine of the typed graph at `path`, and for which board a built one may be kept."""
    return {
        "onnx": path.name,
        "onnx_sha256": sha256_of(path),
        "engine": ENGINE_NAME,
        "commands": {f"TensorRT {major}": command_line(major, path.name) for major in (8, 10, 11)},
        "cache_key": ["tensorrt_version", "gpu_name", "compute_capability", "bundle_sha256"],
        "device": dict(device),
    }
